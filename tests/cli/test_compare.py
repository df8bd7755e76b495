import csv
import io
import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import keras
import numpy as np
import pytest

from tests.cli import in_this_process
from tests.problems import DIGITS_NETWORK
from tf_gnc.cli import compare
from tf_gnc.cli.main import main
from tf_gnc.cli.progress import Console, RunsDisplay
from tf_gnc.cli.runs import child
from tf_gnc.experiments.compare.plan import Comparison
from tf_gnc.experiments.run.task import RunTask

ROOT = Path(__file__).parents[2]
TINY = ["--workers=2", "--batch_size=512", "--methods=dpsgd,gnc", "--seeds=2"]

# Stands for a run: leaves what one leaves, but for those that are to fail.
FAKE = """
import json, os, pathlib, signal, sys
task = json.loads(sys.argv[1])
config = task["config"]
folder = pathlib.Path(task["run_dir"])
folder.mkdir(parents=True)
def leave(name, content):
    (folder / name).write_text(json.dumps(content) + "\\n")
if folder.name == os.environ.get("INTERRUPT"):
    os.kill(os.getppid(), signal.SIGINT)
    signal.pause()
if folder.name == os.environ.get("FAIL"):
    sys.exit("No space left on device.")
rate = 0.9 + config["seed"] / 100
row = {"epoch": 1, "loss": 0.5, "val_accuracy": rate, "seconds": 2.0}
leave("metrics.jsonl", row)
leave("config.json", {"environment": {"machine": "m"}})
leave("summary.json", {"val_accuracy": rate, "best_val_accuracy": rate,
                       "train_loss": 0.5})
"""


@pytest.fixture
def fake(monkeypatch, digits_dir, tmp_path):
    """Flags of a comparison of runs that take no time, and its directory."""
    real = child.command_line

    def command_line(*arguments):
        return [sys.executable, "-c", FAKE, real(*arguments)[-1]]

    monkeypatch.setattr(child, "command_line", command_line)
    out_dir = tmp_path / "out"
    return [f"--data_dir={digits_dir}", f"--out_dir={out_dir}", *TINY], out_dir


def test_compare__help__has_its_own_flags_and_those_of_train(capsys):
    assert main(["compare", "--help"]) == 0
    out = capsys.readouterr().out
    names = re.findall(r"^  --(\[no\])?(\w+)", out, re.M)
    names = [name for _, name in names]
    assert {"methods", "seeds", "baseline", "jobs", "out_dir"} < set(names)
    assert {"dataset", "learning_rate", "alpha", "workers"} < set(names)
    assert not {"method", "seed", "run_dir", "resume", "strategy"} & set(names)
    assert "Default: on" in out[out.index("deterministic") :][:90]
    assert all(len(line) <= 80 for line in out.splitlines())


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--methods=dpsgd,sgd"], ["`methods`", "got methods='sgd'"]),
        (["--seeds=0"], ["--seeds", "got '0'"]),
        (["--seeds=1,x"], ["--seeds", "got '1,x'"]),
        (["--seeds=2,2"], ["different from each other", "[2, 2]"]),
        (["--baseline=sgd"], ["`baseline`", "got baseline='sgd'"]),
        (["--methods=dpsgd", "--alpha=1"], ["`alpha` (--alpha) does nothing"]),
        (["--jobs=0"], ["--jobs=0", "positive"]),
        (["--method=gnc"], ["Unknown", "method", "methods"]),
        (["--batch_size=2048"], ["batch_size=2048 with 1437 examples"]),
        (["--dataset=cifar10"], ["'cifar10' is not prepared", "--download"]),
        (["--out_dir=ftp://host/out"], ["local directory"]),
        (["digits"], ["only flags", "'digits'"]),
    ],
)
def test_compare__bad_command__one_line_exit_2_and_nothing_left(
    flags, words, digits_dir, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    assert main(["compare", f"--data_dir={digits_dir}", *flags]) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1, err
    assert err.startswith("tf-gnc compare: error: ")
    assert all(word in err for word in words), err
    assert list(tmp_path.iterdir()) == []


def test_compare__in_a_cluster__is_refused(fake, monkeypatch, capsys):
    flags, out_dir = fake
    cluster = {"worker": ["127.0.0.1:1", "127.0.0.1:2"]}
    config = {"cluster": cluster, "task": {"type": "worker", "index": 0}}
    monkeypatch.setenv("TF_CONFIG", json.dumps(config))
    assert main(["compare", *flags]) == 2
    assert "must be started once" in capsys.readouterr().err
    assert not out_dir.exists()


@pytest.mark.parametrize(
    ("text", "seeds"),
    [("2", [0, 1]), ("4,2", [4, 2]), ("7,", [7]), ("0,", [0]), ("1", [0])],
)
def test_seeds__a_number_or_a_list__are_told_apart(text, seeds):
    assert compare.parse_seeds(text) == seeds


def test_compare__to_the_end__shows_the_table_and_leaves_its_files(
    fake, capsys
):
    flags, out_dir = fake
    assert main(["compare", *flags]) == 0
    out = capsys.readouterr().out
    table = (out_dir / "table.txt").read_text()
    assert table in out
    assert re.search(r"^seed 1 +91.00 +91.00$", table, re.M)
    assert sorted(os.listdir(out_dir)) == [
        "compare.json", "report.html", "runs", "table.csv", "table.md",
        "table.txt",
    ]  # fmt: skip
    assert "tf-gnc compare --data_dir=" in (out_dir / "report.html").read_text()
    # Again: there is nothing to do but to show it.
    assert main(["compare", *flags]) == 0
    again = capsys.readouterr().out
    assert table in again
    assert "started" not in again


def test_compare__other_settings__refused_with_both_values_untouched(
    fake, capsys
):
    flags, out_dir = fake
    assert main(["compare", *flags, "--learning_rate=0.5"]) == 0
    files = [path for path in out_dir.rglob("*") if path.is_file()]
    before = {path: path.read_bytes() for path in files}
    capsys.readouterr()
    assert main(["compare", *flags, "--learning_rate=0.25"]) == 2
    err = capsys.readouterr().err
    assert f"learning_rate=0.25 where {out_dir} has 0.5" in err
    files = [path for path in out_dir.rglob("*") if path.is_file()]
    assert {path: path.read_bytes() for path in files} == before


def test_compare__a_run_fails__others_go_on_and_it_is_tried_again(
    fake, monkeypatch, capsys
):
    flags, out_dir = fake
    monkeypatch.setenv("FAIL", "gnc-seed0")
    assert main(["compare", *flags]) == 1
    captured = capsys.readouterr()
    assert "gnc-seed0: No space left on device." in captured.out
    assert "these runs failed: gnc-seed0." in captured.err
    assert "INCOMPLETE: 1 of 4 runs are missing" in captured.out
    assert (out_dir / "runs" / "gnc-seed1" / "summary.json").exists()
    monkeypatch.delenv("FAIL")
    assert main(["compare", *flags]) == 0
    out = capsys.readouterr().out
    assert "1 of 4 runs to do" in out
    assert "gnc-seed1: started" not in out
    assert "INCOMPLETE" not in (out_dir / "table.txt").read_text()


def test_compare__interrupted__exit_130_no_table_and_goes_on(
    fake, monkeypatch, capsys
):
    flags, out_dir = fake
    monkeypatch.setenv("INTERRUPT", "dpsgd-seed1")
    assert main(["compare", *flags, "--jobs=1"]) == 130
    assert f"kept in {out_dir}" in capsys.readouterr().err
    assert not (out_dir / "table.txt").exists()
    monkeypatch.delenv("INTERRUPT")
    assert main(["compare", *flags]) == 0
    assert "2 of 4 runs to do" in capsys.readouterr().out


def _run_here(flags, out_dir):
    """Runs a comparison's runs in this process; returns the comparison."""
    flag_set = compare.build_flags()
    plan = compare._plan(flag_set.parse(flags)[0])
    comparison = Comparison(plan, out_dir)
    with comparison.claimed("tf-gnc compare"):
        for name, run in comparison.configs.items():
            task = comparison.task(name, run, 1, "c")
            assert child.main(child.command_line(task)[-1:]) == 0
    return comparison


def test_compare__nothing_learned__methods_of_a_seed_saw_the_same(
    digits_dir, tmp_path
):
    # Without a rate weights stay, and noise is zero: what is left to differ
    # are the weights at the start, the order and the augmentation.
    flags = [
        f"--data_dir={digits_dir}", "--workers=2", "--batch_size=512",
        "--epochs=2", "--learning_rate=0", "--schedule=constant",
        "--nodeterministic", "--methods=dpsgd,gnc_to_rnc", "--seeds=2",
        DIGITS_NETWORK,
    ]  # fmt: skip
    comparison = _run_here(flags, tmp_path)
    weights, losses = {}, {}
    for name, run in comparison.configs.items():
        path = comparison.run_dir(name) / "model.keras"
        model = keras.models.load_model(path)
        key = run.method, run.seed
        weights[key] = [w.numpy() for w in model.trainable_weights]
        losses[key] = [row["loss"] for row in comparison.result(name).rows]
    for seed in (0, 1):
        for own, other in zip(
            weights["gnc_to_rnc", seed], weights["dpsgd", seed], strict=True
        ):
            np.testing.assert_array_equal(own, other)
        np.testing.assert_allclose(
            losses["gnc_to_rnc", seed], losses["dpsgd", seed], rtol=1e-5
        )
    assert np.ptp(losses["dpsgd", 0]) > 1e-3  # Each epoch has its own order.
    assert abs(losses["dpsgd", 0][0] - losses["dpsgd", 1][0]) > 1e-3


def test_compare__probe__each_run_has_its_rows(
    digits_dir, tmp_path, monkeypatch, capfd
):
    in_this_process.use(monkeypatch)
    flags = [
        f"--data_dir={digits_dir}", f"--out_dir={tmp_path}", "--workers=2",
        "--batch_size=512", "--methods=dpsgd,gnc", "--seeds=1", "--epochs=3",
        "--max_steps=2", DIGITS_NETWORK, "--probe=noise_norm",
        "--probe_every=3",
    ]  # fmt: skip
    assert main(["compare", *flags]) == 0, capfd.readouterr().err
    assert f"tf-gnc analyze {tmp_path}/runs/*" in capfd.readouterr().out
    for method in ("dpsgd", "gnc"):
        path = tmp_path / "runs" / f"{method}-seed0" / "probe.jsonl"
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        assert [row["step"] for row in rows] == [3, 6]
        assert all((row["noise_norm"] > 0) == (method == "gnc") for row in rows)


def test_compare__runs_diverge__is_a_result(digits_dir, tmp_path):
    flags = [
        f"--data_dir={digits_dir}", "--workers=2", "--batch_size=512",
        "--epochs=2", "--learning_rate=1e30", "--warmup=0", "--seeds=1",
        "--nodeterministic", "--methods=dpsgd,gnc", DIGITS_NETWORK,
    ]  # fmt: skip
    comparison = _run_here(flags, tmp_path)
    for name in comparison.configs:
        assert comparison.result(name).diverged == 1
        assert not (comparison.run_dir(name) / "backup").exists()


def test_child__other_failures__are_no_result(digits_dir, tmp_path, capsys):
    plan = compare._plan({"methods": "gnc", "seeds": "1"})
    (run,) = plan.runs
    words = child.command_line(RunTask(run, tmp_path / "file", "c"))
    (tmp_path / "file").touch()
    assert child.main(words[-1:]) == 1
    assert "which is a file" in capsys.readouterr().err


def _processes_with(word):
    """Returns the processes in whose command line there is a word."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if word in path.read_text():
                found.append(int(path.parent.name))
        except OSError:  # It has just ended.
            continue
    return found


def _summary_and_weights(run_dir):
    """Returns what has come out of a run, but for how long it took."""
    summary = json.loads((run_dir / "summary.json").read_text())
    model = keras.models.load_model(run_dir / "model.keras")
    return summary, model.get_weights()


@pytest.mark.skipif(not Path("/proc/self/cmdline").exists(), reason="no /proc")
def test_installed_command__killed_and_started_again__same_as_runs_alone(
    digits_dir, tmp_path
):
    program = str(Path(sys.executable).with_name("tf-gnc"))
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    flags = [
        f"--data_dir={digits_dir}", "--workers=2", "--batch_size=512",
        "--epochs=2", DIGITS_NETWORK, "--deterministic",
    ]  # fmt: skip
    # One after the other: killed when the first run has ended.
    methods, killed = ["dpsgd", "gnc_to_rnc"], tmp_path / "killed"
    command = [
        program, "compare", *flags, f"--methods={','.join(methods)}",
        "--seeds=4,", f"--out_dir={killed}", "--jobs=1",
    ]  # fmt: skip
    process = subprocess.Popen(
        command, stdout=subprocess.DEVNULL, env=environment
    )
    deadline = time.monotonic() + 200
    try:
        while not list(killed.glob("runs/*/summary.json")):
            assert time.monotonic() < deadline and process.poll() is None
            time.sleep(0.05)
    finally:
        process.kill()
        process.wait()
    finished = list(killed.glob("runs/*/summary.json"))
    assert len(finished) == 1
    before = {path: path.stat().st_mtime_ns for path in finished}
    while _processes_with(str(killed)):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    done = subprocess.run(
        command, capture_output=True, text=True, env=environment
    )
    assert done.returncode == 0, done.stderr
    assert {path: path.stat().st_mtime_ns for path in finished} == before
    text = (killed / "table.csv").read_text()
    table = {row["method"]: row for row in csv.DictReader(io.StringIO(text))}
    assert list(table) == methods
    # Each run alone, in a process of its own, has the same bits, and the
    # table their numbers.
    for method in methods:
        run_dir = tmp_path / method
        done = subprocess.run(
            [
                program, "train", *flags, f"--method={method}", "--seed=4",
                f"--run_dir={run_dir}",
            ],
            capture_output=True, text=True, env=environment,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert "epoch 2/2" in done.stdout
        summary, weights = _summary_and_weights(run_dir)
        _, compared = _summary_and_weights(killed / "runs" / f"{method}-seed4")
        for ours, theirs in zip(compared, weights, strict=True):
            np.testing.assert_array_equal(ours, theirs)
        row = table[method]
        assert float(row["loss_mean"]) == summary["train_loss"]
    # It could tell the runs apart.
    assert len({row["loss_mean"] for row in table.values()}) == 2


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


def _report(epoch, step):
    return {
        "epoch": epoch, "epochs": 10, "step": step, "steps": 4, "text": "",
    }  # fmt: skip


def test_display__no_terminal__a_line_as_a_run_begins_or_ends():
    clock, file = Clock(), io.StringIO()
    display = RunsDisplay(Console(file=file), 4, lambda n: f"{n} ok", clock)
    display.started("a")
    display.started("b")
    assert display.time_left() == "time left unknown"
    display.moved("a", _report(1, 0))
    clock.now = 30.0
    display.moved("a", _report(10, 4))
    display.ended("a", None)
    display.moved("b", _report(1, 1))
    display.ended("b", "the disk is full")
    assert file.getvalue().splitlines() == [
        "a: started",
        "b: started",
        "a: a ok (1/4, 0:01:30 left)",
        "b: the disk is full (2/4, 0:00:30 left)",
    ]


def test_display__a_run_is_taken_up__what_it_had_costs_no_time():
    clock = Clock()
    console = Console(file=io.StringIO())
    display = RunsDisplay(console, 1, str, clock)
    display.started("a")
    display.moved("a", _report(6, 0))  # half of it was there
    clock.now = 10.0
    display.moved("a", _report(7, 0))  # a tenth in 10 seconds, 4 to go
    assert display.time_left() == "0:00:40 left"


def test_display__on_a_terminal__one_bar_for_all_and_one_for_each_run():
    file = io.StringIO()
    console = Console(file=file, force_terminal=True, width=90)
    with RunsDisplay(console, 2, lambda name: "fine") as display:
        display.started("gnc-seed0")
        display.moved("gnc-seed0", _report(3, 2))
        display.refresh()
        display.ended("gnc-seed0", None)
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", file.getvalue())
    assert "epoch 3/10" in text
    assert "all runs" in text
    assert re.search(r"gnc-seed0: fine \(1/2, \d:\d\d:\d\d left\)", text)
    assert "\x1b[?25h" in file.getvalue()  # The cursor is back.
