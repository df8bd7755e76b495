import json
import os
import re
import subprocess
import sys

import keras
import numpy as np
import pytest

from tf_gnc import models
from tf_gnc.cli.main import main
from tf_gnc.cli.progress import Console, EpochLines, show_progress

_TF_GNC = (sys.executable, "-m", "tf_gnc.cli.main")


def test_launch__help__has_every_flag_and_the_command(capsys):
    assert main(["launch", "--help"]) == 0
    out = capsys.readouterr().out
    assert "tf-gnc launch [--flags] -- <command> [arguments]\n" in out
    for name in ("processes", "max_restarts", "machines", "machine_rank"):
        assert f"--{name}=" in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "there must be --"),
        (["train"], "there must be --"),
        (["--"], "a command to run, got none"),
        (["--processes=0", "--", "true"], "--processes=0"),
        (["--processes=2", "--", "no-such"], "train, .* got 'no-such'"),
        (["--machines=a:1", "--", "true"], "given together"),
        (["--machines=a:1,b", "--machine_rank=0", "--", "true"], "got 'b'"),
        (["train", "--", "true"], "got 'train'"),
    ],
)
def test_launch__cannot_be_run__one_line_and_2(arguments, message, capsys):
    assert main(["launch", *arguments]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    (line,) = captured.err.splitlines()
    assert line.startswith("tf-gnc launch: error: ")
    assert re.search(message, line)


def test_launch__flags__reach_the_launcher(capfd):
    script = "import os; print(os.environ['TF_CONFIG'])"
    flags = ["--processes=2", "--machines=a:10, b:10", "--machine_rank=1"]
    assert main(["launch", *flags, "--", sys.executable, "-c", script]) == 0
    lines = dict(
        line.split(" ", 1) for line in capfd.readouterr().out.splitlines()
    )
    config = json.loads(lines["[3]"])
    assert config["cluster"]["worker"] == ["a:10", "a:11", "b:10", "b:11"]


def test_dry_run__train__shares_rows_and_workers_and_starts_nothing(
    capfd, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    command = ["launch", "--dry_run", "--processes=16", "--", "train",
               "--workers=32", "--batch_size=512"]  # fmt: skip
    assert main(command) == 0
    out = capfd.readouterr().out
    shares = re.findall(
        r"1 replica on the CPU, workers (\d+) to (\d+) of 32, "
        r"rows (\d+) to (\d+) of each batch of 512",
        out,
    )
    numbers = [tuple(map(int, share)) for share in shares]
    # Each has its own, in order, and none is left over.
    assert numbers == [
        (2 * n, 2 * n + 1, 32 * n, 32 * n + 31) for n in range(16)
    ]
    configs = [json.loads(c) for c in re.findall(r"TF_CONFIG=(.*)", out)]
    assert [c["task"]["index"] for c in configs] == list(range(16))
    assert len({json.dumps(c["cluster"]) for c in configs}) == 1
    # 2 workers of ResNet-8's weights for the digits, float32.
    weights = models.build("resnet8", 10, (8, 8, 1))
    size = 2 * 4 * sum(v.numpy().size for v in weights.trainable_variables)
    assert out.count(f"noise {size / 1e3:.3g} kB a replica") == 16
    assert list(tmp_path.iterdir()) == []


def test_dry_run__other_program_on_a_second_machine__shows_its_environment(
    capfd,
):
    command = ["launch", "--dry_run", "--machines=a:10,b:10",
               "--machine_rank=1", "--processes=2", "--", "true"]  # fmt: skip
    assert main(command) == 0
    out = capfd.readouterr().out
    assert "process 2:" in out and "process 3:" in out
    assert "process 0:" not in out and "workers" not in out
    assert out.count('["a:10", "a:11", "b:10", "b:11"]') == 2


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["--workers=32"],
            "with 3 replicas. Use num_workers=33",
        ),
        (["--alpha=-1"], "`alpha` must be a finite number"),
        (["--alfa=1"], "Unknown command line flag 'alfa'"),
    ],
)
def test_dry_run__run_that_would_be_refused__is(words, message, capfd):
    assert main(["launch", "--dry_run", "--processes=3", "--", "train",
                 *words]) == 2  # fmt: skip
    assert message in capfd.readouterr().err


def test_launch__own_subcommand__needs_no_path_and_gives_its_code(capfd):
    arguments = ["launch", "--max_restarts=0", "--", "launch", "--nonsense"]
    assert main(arguments) == 2
    assert "[0] tf-gnc launch: error: " in capfd.readouterr().err


def test_launch__nobody_reads__ends_without_a_traceback(tmp_path):
    script = tmp_path / "script.py"
    script.write_text("while True: print('line')")
    process = subprocess.Popen(
        [*_TF_GNC, "launch", "--", str(script)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout.readline() == "[0] line\n"
    process.stdout.close()
    assert process.wait(timeout=30) == 141
    assert process.stderr.read() == ""
    process.stderr.close()


def test_launch__imports__neither_tensorflow_nor_keras_nor_rich():
    code = (
        "import sys; import tf_gnc.cli.launch; "
        "print({'tensorflow', 'keras', 'rich', 'numpy'} & {*sys.modules})"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60
    )
    assert result.stdout == "set()\n"


def _fit(callback):
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    model.compile(optimizer="sgd", loss="mse", run_eagerly=True)
    model.fit(
        np.ones((4, 2)), np.ones((4, 1)), batch_size=2, epochs=2,
        verbose=0, callbacks=[callback],
    )  # fmt: skip


def test_show_progress__under_the_launcher__reports_to_it(monkeypatch):
    ours, theirs = os.pipe()
    monkeypatch.setenv("TF_GNC_PROGRESS_FD", str(theirs))
    with show_progress(Console()) as callback:
        _fit(callback)
    os.close(theirs)
    with os.fdopen(ours) as file:
        reports = [json.loads(line) for line in file]
    assert set(reports[-1]) == {"epoch", "epochs", "step", "steps", "text"}
    ends = [(r["epoch"], r["step"]) for r in reports if r["step"] == 2]
    assert ends[0] == (1, 2)
    assert ends[-1] == (2, 2)
    assert reports[-1]["epochs"] == reports[-1]["steps"] == 2
    assert reports[-1]["text"].startswith("loss ")


def test_show_progress__the_launcher_is_gone__training_goes_on(monkeypatch):
    ours, theirs = os.pipe()
    os.close(ours)
    monkeypatch.setenv("TF_GNC_PROGRESS_FD", str(theirs))
    with show_progress(Console()) as callback:
        _fit(callback)
    os.close(theirs)


def test_show_progress__the_launchers_grandchild__prints_lines(
    monkeypatch, tmp_path
):
    # It has inherited the variable; the number stands for another file.
    with open(tmp_path / "file", "w") as file:
        monkeypatch.setenv("TF_GNC_PROGRESS_FD", str(file.fileno()))
        with show_progress(Console(force_terminal=False)) as callback:
            assert isinstance(callback, EpochLines)
