"""One device divided into several replicas; each case in a process of its own.

This process has logical CPUs already, so here only what is refused is asked.
"""

import json
import os
import subprocess
import sys

import pytest

from tests.problems import DIGITS_NETWORK
from tf_gnc.cli.main import main
from tf_gnc.distribute import logical, make_strategy


def test_train__logical_devices__is_the_run_of_one_replica(
    digits_dir, tmp_path
):
    def run(start, name, *more):
        folder = tmp_path / name
        code = start([
            "train", f"--data_dir={digits_dir}", DIGITS_NETWORK, "--workers=8",
            "--batch_size=64", "--epochs=1", "--max_steps=4", "--backup=never",
            f"--run_dir={folder}", *more,
        ])  # fmt: skip
        assert code == 0
        loss = json.loads((folder / "metrics.jsonl").read_text())["loss"]
        summary = json.loads((folder / "summary.json").read_text())
        return loss, summary["num_replicas"]

    def process(words):
        command = [sys.executable, "-m", "tf_gnc.cli.main", *words]
        environment = {**os.environ, "CUDA_VISIBLE_DEVICES": ""}
        return subprocess.run(command, env=environment, timeout=300).returncode

    one, replicas = run(main, "one")
    assert replicas == 1
    four, replicas = run(process, "four", "--logical_devices=4")
    assert replicas == 4
    assert four == pytest.approx(one, rel=1e-4)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": "none", "logical_devices": 2}, "goes with 'auto' and"),
        ({"name": "mirrored", "logical_devices": 1}, "at least 2, got"),
        (
            {"name": "mirrored", "logical_devices": 2, "devices": ["CPU:0"]},
            "without `devices`",
        ),
    ],
)
def test_make_strategy__logical_devices_that_do_nothing__are_refused(
    arguments, message
):
    with pytest.raises(ValueError, match=message):
        make_strategy(**arguments)


def test_split_device__tensorflow_runs__says_what_to_call_first():
    with pytest.raises(RuntimeError, match="before TensorFlow starts"):
        logical.split_device(3)


def test_split_device__gpu__has_its_share_of_the_memory(monkeypatch, tmp_path):
    """A GPU that isn't there, with the tool that tells its memory."""
    tool = tmp_path / "nvidia-smi"
    tool.write_text("#!/bin/sh\necho 40000\necho 80000\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    seen = {}
    config = logical.tf.config
    monkeypatch.setattr(
        config, "get_visible_devices", lambda kind: [f"/a/{kind}"]
    )
    monkeypatch.setattr(
        config, "set_logical_device_configuration", seen.__setitem__
    )
    assert logical.split_device(4) == ["GPU:0", "GPU:1", "GPU:2", "GPU:3"]
    assert [c.memory_limit for c in seen["/a/GPU"]] == [9000] * 4
    tool.write_text("#!/bin/sh\nexit 9\n")
    with pytest.raises(ValueError, match="needs to know the GPU's memory"):
        logical.split_device(4)
    monkeypatch.setattr(config, "get_visible_devices", lambda kind: ["a", "b"])
    with pytest.raises(ValueError, match="with 2 GPUs"):
        logical.split_device(4)
