import errno
import json
import os
import re
import shutil
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from tests.problems import DIGITS_NETWORK
from tf_gnc import data
from tf_gnc.cli import progress, train
from tf_gnc.cli.main import main
from tf_gnc.experiments import RunConfig
from tf_gnc.experiments.run.building import build_model, learning_rates

TINY = ["--workers=2", "--batch_size=512", "--epochs=1", DIGITS_NETWORK]


@pytest.fixture
def tiny(digits_dir, tmp_path):
    """Flags of a run of two steps, and its directory."""
    run_dir = tmp_path / "run"
    return [f"--data_dir={digits_dir}", f"--run_dir={run_dir}", *TINY], run_dir


def _one_error(capsys):
    err = capsys.readouterr().err
    assert err.count("\n") == 1, err
    assert err.startswith("tf-gnc train: error: ")
    return err


def test_train__twice_in_a_process__says_threads_are_late_and_dir_is_taken(
    tiny, capsys
):
    flags, run_dir = tiny
    # More than any machine has, so that it isn't what TensorFlow runs with.
    assert main(["train", *flags, "--threads=997"]) == 0
    captured = capsys.readouterr()
    assert "--threads=997 comes too late" in captured.err
    assert "epoch 1/1" in captured.out
    assert f"in {run_dir}" in captured.out
    before = {path: path.read_bytes() for path in run_dir.iterdir()}
    assert len(before) == 5
    assert main(["train", *flags]) == 2
    assert "new or empty" in _one_error(capsys)
    assert {path: path.read_bytes() for path in run_dir.iterdir()} == before
    written = json.loads((run_dir / "config.json").read_text())
    assert RunConfig.from_dict(written["config"]).batch_size == 512
    assert written["command"].startswith("tf-gnc train --data_dir=")


def test_train__help__shows_defaults_per_data_set(capsys):
    assert main(["train", "--help"]) == 0
    out = capsys.readouterr().out
    assert "160 (cifar10, cifar100)" in " ".join(out.split())
    assert all(len(line) <= 80 for line in out.splitlines())


def test_train__help__names_each_methods_own_default(capsys):
    assert main(["train", "--help"]) == 0
    out = " ".join(capsys.readouterr().out.split())
    alpha = out[out.index("--alpha=<float>") : out.index("--scaling=")]
    # "gnc, gnc_current: Coefficient ... Default: 0.1 (digits), ..."
    parts = re.split(r"((?:\w+, )*[a-z_]+): (?=[A-Z])", alpha)[1:]
    texts = {
        method: text.partition("Default: ")[2]
        for methods, text in zip(parts[::2], parts[1::2], strict=True)
        for method in methods.split(", ")
    }
    assert "0.0001 (imagenet2012)" in texts["gnc"]
    assert "0.01 (imagenet2012)" in texts["gnc_to_rnc"]
    assert "0.01 (digits, imagenet2012)" in texts["rnc"]


def _config(*flags):
    """The run that flags ask for."""
    return train.config_of(train.build_flags().parse(flags)[0])


@pytest.mark.parametrize(
    ("flags", "left_out"),
    [
        ([], {"bias", "gamma", "beta"}),
        (["--lars_exclude=none"], set()),
        (["--lars_exclude=gamma|beta"], {"gamma", "beta"}),
        (["--lars_variant=mlperf", "--lars_exclude=none"], set()),
        (["--lars_variant=larc", "--lars_exclude=/kernel$"], {"kernel"}),
        (["--lars_variant=chainer"], set()),
        (["--lars_variant=chainer", "--lars_exclude=bias"], {"bias"}),
    ],
)
def test_train__lars_exclude__those_weights_follow_the_global_rate(
    flags, left_out
):
    config = _config("--optimizer=lars", DIGITS_NETWORK, *flags)
    model = build_model(config, 0.5)
    weights = model.trainable_variables
    for weight in weights:
        weight.assign(weight + 0.3)  # Some of them are zero.
    before = [w.numpy() for w in weights]
    model.optimizer.apply([tf.ones(w.shape) for w in weights], weights)
    plain = {
        weight.name
        for weight, old in zip(weights, before, strict=True)
        if np.allclose(old - weight.numpy(), 0.5, rtol=0, atol=1e-6)
    }
    assert plain == left_out
    if not left_out:  # Not even a layer with "none" in its name.
        assert model.optimizer.exclude == ()


def test_train__decay_steps__are_the_users_and_the_collapse_stays():
    """The letter: T = 4120 with batches of 131,072 too."""
    flags = ["--recipe=imagenet-131072", "--method=gnc"]
    config = _config(*flags, "--decay_steps=4120")
    updates = data.Updates(1_281_167, 131_072, carry=True)
    rates = learning_rates(config, updates)
    # 5 and 80 epochs are 48.9 and 781.9 updates.
    for step in (48, 500, 780, 781, 878):
        rate = 42 * (1 - Fraction(step - 48, 4120)) ** 2
        rate /= 5 if step >= 781 else 1
        assert float(rates(step)) == pytest.approx(float(rate), rel=1e-6)
    own = learning_rates(_config(*flags), updates)
    assert float(own(500)) < 0.5 * float(rates(500))  # T = 1030


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--method=sgd"], ["'gnc_to_rnc', ", "got method='sgd'"]),
        (["--workers=0"], ["--workers=0", "positive"]),
        (["--lerning_rate=1"], ["lerning_rate", "learning_rate"]),
        (["--learning_rate=nan"], ["`learning_rate`", "got learning_rate=nan"]),
        (["--lars_exclude=bias"], ["`lars_exclude`", "optimizer='lars'"]),
        (
            ["--optimizer=lars", "--lars_exclude=("],
            ["`lars_exclude`", "got '('"],
        ),
        (["--momentum=2"], ["`momentum`", "at most 1", "got momentum=2.0"]),
        (["--seed=3000000000"], ["`seed`", "at most 2147483647"]),
        (["--workers=3", "--batch_size=64"], ["batch_size=64", "63"]),
        (
            ["--method=dpsgd", "--alpha=1"],
            ["--alpha", "rnc|gnc|gnc_to_rnc|extrapolation"],
        ),
        (["--method=gnc_to_rnc", "--epochs=4", "--switch_epoch=4"], ["here 3"]),
        (["--batch_size=2048"], ["batch_size=2048 with 1437 examples"]),
        (["--dataset=cifar10"], ["'cifar10' is not prepared", "--download"]),
        (["--run_dir=ftp://host/run"], ["local directory", "gs://bucket/name"]),
        (["digits"], ["only flags", "'digits'"]),
    ],
)
def test_train__bad_command__one_line_exit_2_and_nothing_left(
    flags, words, digits_dir, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    assert main(["train", f"--data_dir={digits_dir}", *flags]) == 2
    err = _one_error(capsys)
    assert all(word in err for word in words), err
    assert list(tmp_path.iterdir()) == []


def test_train__full_disk_at_the_start__exit_2_and_nothing_left(
    tiny, monkeypatch, capsys
):
    flags, run_dir = tiny
    usage = shutil.disk_usage("/")._replace(free=0)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    assert main(["train", *flags]) == 2
    assert "disk is full" in _one_error(capsys)
    assert not run_dir.exists()


def test_train__disk_full_in_the_run__exit_1_and_keeps_what_there_is(
    tiny, monkeypatch, capsys
):
    flags, run_dir = tiny
    replace = os.replace

    def full(source, target):
        if Path(target).name == "model.keras":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(target))
        replace(source, target)

    monkeypatch.setattr(os, "replace", full)
    assert main(["train", *flags]) == 1
    err = _one_error(capsys)
    assert err == (
        "tf-gnc train: error: No space left on device "
        f"({run_dir}/model.keras). What was written is kept in {run_dir}.\n"
    )
    names = sorted(path.name for path in run_dir.iterdir())
    assert names == ["backup", "config.json", "metrics.jsonl"]
    (row,) = (run_dir / "metrics.jsonl").read_text().splitlines()
    assert json.loads(row)["epoch"] == 1


def test_train__gradients_not_finite__exit_1_and_one_line(tiny, capsys):
    flags, run_dir = tiny
    flags = [*flags, "--learning_rate=1e30", "--warmup=0"]
    assert main(["train", *flags]) == 1
    assert f"kept in {run_dir}" in _one_error(capsys)
    assert (run_dir / "config.json").exists()
    assert not (run_dir / "summary.json").exists()


def test_train__interrupted__exit_130_and_keeps_the_rows(
    tiny, monkeypatch, capsys
):
    flags, run_dir = tiny

    def interrupt(self, epoch, logs=None):
        raise KeyboardInterrupt

    monkeypatch.setattr(progress.EpochLines, "on_epoch_end", interrupt)
    assert main(["train", *flags]) == 130
    assert capsys.readouterr().err == (
        f"\ntf-gnc train: interrupted. What was written is kept in {run_dir}.\n"
    )
    assert len((run_dir / "metrics.jsonl").read_text().splitlines()) == 1
