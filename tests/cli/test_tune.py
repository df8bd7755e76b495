import csv
import json
import os
import re
import sys

import pytest

from tests.problems import DIGITS_NETWORK
from tf_gnc.cli import tune
from tf_gnc.cli.main import main
from tf_gnc.cli.runs import child
from tf_gnc.experiments.tune import report
from tf_gnc.experiments.tune.trials import Tuning

TINY = ["--workers=2", "--batch_size=512", "--epochs=1", "--schedule=constant"]

# Stands for a run: leaves what one leaves. Its accuracy is best at alpha=0.1,
# and it diverges from alpha=5 on.
FAKE = """
import json, math, os, pathlib, signal, sys
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
alpha = config["alpha"]
value = 0.9 - abs(math.log10(alpha) + 1) / 10 + config["seed"] / 100
value -= abs(config["learning_rate"] - 0.5)
row = {"epoch": 1, "loss": 1 - value, "val_loss": 2 - value,
       "val_accuracy": value, "seconds": 2.0}
leave("metrics.jsonl", row)
leave("config.json", task)
leave("displacement.json", {"epochs": [alpha / 10, alpha / 5]})
if alpha >= 5:
    leave("diverged.json", {"epoch": 1})
else:
    leave("summary.json", {})
"""


@pytest.fixture
def fake(monkeypatch, digits_dir, tmp_path):
    """Flags of a search of runs that take no time, and its directory."""
    real = child.command_line

    def command_line(*arguments):
        return [sys.executable, "-c", FAKE, real(*arguments)[-1]]

    monkeypatch.setattr(child, "command_line", command_line)
    out_dir = tmp_path / "out"
    flags = [f"--data_dir={digits_dir}", f"--out_dir={out_dir}", *TINY]
    return [*flags, "--learning_rate=0.5"], out_dir


def _lines(out_dir):
    with (out_dir / "tune.csv").open() as file:
        return list(csv.DictReader(file))


def test_tune__help__has_its_own_flags_and_those_of_train(capsys):
    assert main(["tune", "--help"]) == 0
    out = capsys.readouterr().out
    names = re.findall(r"^  --(?:\[no\])?(\w+)", out, re.M)
    own = {"search", "alphas", "trials", "objective", "holdout", "seeds"}
    assert own < set(names)
    assert {"dataset", "learning_rate", "alpha", "method"} < set(names)
    assert not {"seed", "run_dir", "resume", "strategy"} & set(names)
    assert "choosing on the test set" in " ".join(out.split())
    assert "Default: 30 (digits), 40 (cifar10" in " ".join(out.split())
    assert all(len(line) <= 80 for line in out.splitlines())


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--alphas=1:0.1:5"], ["--alphas", "lower end", "got 1:0.1"]),
        (["--alphas=0:1:5"], ["--alphas", "above 0"]),
        (["--alphas=x"], ["--alphas must be", "got --alphas=x"]),
        (["--search=golden", "--alphas=0.1,1"], ["low:high"]),
        (["--search=random"], ["--search=random"]),
        (["--trials=5"], ["--trials", "grid"]),
        (["--alpha=0.1"], ["--alpha is what is searched", "--alphas"]),
        (
            ["--learning_rates=0.1,1", "--learning_rate=1"],
            ["--learning_rate is what is searched", "--learning_rates"],
        ),
        (["--method=dpsgd"], ["'dpsgd'", "no setting to tune"]),
        (["--method=rnc", "--rnc.alpha=1"], ["--alpha is what is searched"]),
        (["--method=rnc", "--gnc.alpha=1"], ["--gnc.alpha) does nothing"]),
        (["--method=rnc", "--coefficient=scaling"], ["`coefficient`"]),
        (["--holdout=0.9"], ["`holdout`", "at most 0.5"]),
        (["--seeds=0"], ["--seeds", "got '0'"]),
        (["--jobs=0"], ["--jobs=0", "positive"]),
        (["--batch_size=1408"], ["batch_size=1408 with 1293 examples"]),
        (["--dataset=cifar10"], ["'cifar10' is not prepared", "--download"]),
        (["--out_dir=ftp://host/out"], ["local directory"]),
        (["digits"], ["only flags", "'digits'"]),
    ],
)
def test_tune__bad_command__one_line_exit_2_and_nothing_left(
    flags, words, digits_dir, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    assert main(["tune", f"--data_dir={digits_dir}", *flags]) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1, err
    assert err.startswith("tf-gnc tune: error: ")
    assert all(word in err for word in words), err
    assert list(tmp_path.iterdir()) == []


def test_tune__in_a_cluster__is_refused(fake, monkeypatch, capsys):
    flags, out_dir = fake
    cluster = {"worker": ["127.0.0.1:1", "127.0.0.1:2"]}
    config = {"cluster": cluster, "task": {"type": "worker", "index": 0}}
    monkeypatch.setenv("TF_CONFIG", json.dumps(config))
    assert main(["tune", *flags]) == 2
    assert "must be started once" in capsys.readouterr().err
    assert not out_dir.exists()


@pytest.mark.parametrize(
    ("flags", "epochs", "name", "method"),
    [
        ([], 30, "alpha", "gnc"),
        (["--epochs=7"], 7, "alpha", "gnc"),
        (["--method=rnc"], 30, "alpha", "rnc"),
        (["--method=rnc", "--coefficient=alpha_rnc"], 30, "alpha", "rnc"),
        (["--method=gnc_to_rnc"], 30, "alpha", "gnc_to_rnc"),
        (
            ["--method=gnc_to_rnc", "--coefficient=alpha_rnc"],
            30, "alpha_rnc", "gnc_to_rnc",
        ),
    ],
)  # fmt: skip
def test_search_of__flags__a_short_run_of_the_method(
    flags, epochs, name, method
):
    search = tune.search_of(tune.build_flags().parse(flags)[0])
    assert search.base.epochs == epochs
    assert search.base.deterministic
    assert search.base.method == method
    assert search.names == (name,)
    assert len(search.space[name]) == 9


def test_tune__grid_to_the_end__shows_and_leaves_the_choice(fake, capsys):
    flags, out_dir = fake
    flags = [*flags, "--alphas=1e-3:10:5", "--seeds=2"]
    assert main(["tune", *flags]) == 0
    out = capsys.readouterr().out
    # By hand: 0.9 and 0.91, of which 0.905 is the mean, 0.0071 the deviation.
    assert re.search(r"^0.1 +0.015 +0.02 +90.50 ± 0.71 .*<- best$", out, re.M)
    assert re.search(r"^10 +1.5 .* diverged, 2 of 2 seeds$", out, re.M)
    assert "10 of 10 runs of 1 epochs to do" in out
    assert "held out by seed" in " ".join(out.split())
    assert "Warning:" not in out
    assert out.endswith(
        "Chosen:\n  --method=gnc --alpha=0.1\n"
        "  tf_gnc.GradientNoise(alpha=0.1)\n"
    )
    assert sorted(os.listdir(out_dir)) == [
        "runs", "study.journal", "tune.csv", "tune.json", "tune.png",
    ]  # fmt: skip
    about = json.loads((out_dir / "tune.json").read_text())
    assert about["chosen"]["alpha"] == 0.1
    assert about["settings"]["holdout"] == 0.1
    assert [line["diverged"] for line in _lines(out_dir)] == list("00002")
    told = json.loads(
        (out_dir / "runs" / "alpha0.1-seed1" / "config.json").read_text()
    )
    assert told["holdout"] == 0.1 and told["config"]["seed"] == 1
    # Again: there is nothing to do but to show it.
    assert main(["tune", *flags]) == 0
    again = capsys.readouterr().out
    assert "started" not in again and "to do" not in again
    assert again.splitlines() == out.splitlines()[-len(again.splitlines()) :]


@pytest.mark.parametrize("search", ["golden", "tpe"])
def test_tune__golden_or_tpe__comes_near_the_best(search, fake, capsys):
    flags, out_dir = fake
    flags = [*flags, f"--search={search}", "--trials=9", "--alphas=0.01:2"]
    assert main(["tune", *flags]) == 0
    found = json.loads((out_dir / "tune.json").read_text())["chosen"]["alpha"]
    assert 0.05 < found < 0.2
    assert len(_lines(out_dir)) == 9
    assert "--trials" not in capsys.readouterr().err


def test_tune__two_dimensions__finds_both(fake, capsys):
    flags, out_dir = fake
    flags = [f for f in flags if not f.startswith("--learning_rate")]
    flags += ["--alphas=0.01,0.1,1", "--learning_rates=0.25,0.5,1"]
    assert main(["tune", *flags, "--objective=loss", "--holdout=0"]) == 0
    out = capsys.readouterr().out
    assert "--method=gnc --alpha=0.1 --learning_rate=0.5" in out
    assert "choice is made on them" in " ".join(out.split())
    assert len(_lines(out_dir)) == 9


def test_tune__best_at_the_edge__says_where_to_look(fake, capsys):
    flags, _ = fake
    assert main(["tune", *flags, "--alphas=0.1,0.3,1"]) == 0
    out = capsys.readouterr().out
    assert "lower edge of what was tried" in out
    assert "--alphas=0.0316:0.316:3" in out


def test_tune__all_diverged__says_so_and_exit_1(fake, capsys):
    flags, out_dir = fake
    assert main(["tune", *flags, "--alphas=5,10"]) == 1
    captured = capsys.readouterr()
    assert "all 2 values diverged" in captured.err
    assert "diverged in epoch 1" in captured.out
    assert "Chosen" not in captured.out
    about = json.loads((out_dir / "tune.json").read_text())
    assert about["chosen"] is None
    assert (out_dir / "tune.png").exists()


def test_tune__other_settings__refused_with_both_values_untouched(fake, capsys):
    flags, out_dir = fake
    assert main(["tune", *flags, "--alphas=0.1,1"]) == 0
    files = [path for path in out_dir.rglob("*") if path.is_file()]
    before = {path: path.read_bytes() for path in files}
    capsys.readouterr()
    assert main(["tune", *flags, "--alphas=0.1,1", "--momentum=0.5"]) == 2
    assert f"momentum=0.5 where {out_dir} has 0.9" in capsys.readouterr().err
    assert main(["tune", *flags, "--alphas=0.1,2"]) == 2
    assert "alphas=[0.1, 2.0]" in capsys.readouterr().err
    files = [path for path in out_dir.rglob("*") if path.is_file()]
    assert {path: path.read_bytes() for path in files} == before


@pytest.mark.parametrize("search", ["grid", "golden", "tpe"])
def test_tune__interrupted__goes_on_to_the_same_table(
    search, fake, monkeypatch, capsys, tmp_path
):
    flags, out_dir = fake
    flags = [*flags, f"--search={search}", "--jobs=1"]
    flags.append("--alphas=0.01:2:4" if search == "grid" else "--alphas=0.01:2")
    if search != "grid":
        flags.append("--trials=4")
    alone = [f for f in flags if not f.startswith("--out_dir")]
    alone.append(f"--out_dir={tmp_path / 'alone'}")
    assert main(["tune", *alone]) == 0
    runs = sorted(
        (tmp_path / "alone" / "runs").iterdir(),
        key=lambda path: path.stat().st_mtime_ns,
    )
    capsys.readouterr()
    monkeypatch.setenv("INTERRUPT", runs[2].name)
    assert main(["tune", *flags]) == 130
    assert f"kept in {out_dir}" in capsys.readouterr().err
    assert not (out_dir / "tune.csv").exists()
    first = out_dir / "runs" / runs[0].name / "summary.json"
    before = first.stat().st_mtime_ns
    monkeypatch.delenv("INTERRUPT")
    assert main(["tune", *flags]) == 0
    assert "2 of 4 runs of 1 epochs to do" in capsys.readouterr().out
    assert first.stat().st_mtime_ns == before
    assert _lines(out_dir) == _lines(tmp_path / "alone")
    assert len(_lines(out_dir)) == 4


def test_tune__a_run_fails__no_choice_and_it_is_tried_again(
    fake, monkeypatch, capsys
):
    flags, out_dir = fake
    flags = [*flags, "--alphas=0.01,0.1,1"]
    monkeypatch.setenv("FAIL", "alpha0.1-seed0")
    assert main(["tune", *flags]) == 1
    captured = capsys.readouterr()
    assert "alpha0.1-seed0: No space left on device." in captured.out
    assert "these runs failed: alpha0.1-seed0." in captured.err
    assert "Chosen" not in captured.out
    monkeypatch.delenv("FAIL")
    assert main(["tune", *flags]) == 0
    out = capsys.readouterr().out
    assert "1 of 3 runs of 1 epochs to do" in out
    assert "alpha1-seed0: started" not in out


def _run_here(flags, out_dir):
    """Runs a search's runs in this process; returns what they came to."""
    search = tune.search_of(tune.build_flags().parse(flags)[0])
    tuning = Tuning(search, out_dir)
    (values,) = search.space.values()
    with tuning.claimed("tf-gnc tune"):
        for value in values:
            for name, run in search.runs((value,)).items():
                task = tuning.task(name, run, 1, "c")
                assert child.main(child.command_line(task)[-1:]) == 0
    return tuning, [tuning.trial((value,)) for value in values]


def test_tune__real_runs__differ_in_alpha_and_in_displacement(
    digits_dir, tmp_path
):
    flags = [
        f"--data_dir={digits_dir}", *TINY, "--alphas=0.1,0.2", "--epochs=2",
        "--nodeterministic", DIGITS_NETWORK,
    ]  # fmt: skip
    _, (one, two) = _run_here(flags, tmp_path)
    assert len(one.results[0].displacements) == 2
    assert 1.3 < two.displacement / one.displacement < 3
    # A tenth of 1,437 examples is 144; accuracy comes in parts of that.
    accuracy = one.value("val_accuracy")
    assert accuracy * 144 == pytest.approx(round(accuracy * 144), abs=1e-3)


def test_tune__two_passes__has_displacements_and_a_picture(
    digits_dir, tmp_path
):
    flags = [
        f"--data_dir={digits_dir}", *TINY, "--alphas=0.1,0.2", "--epochs=2",
        "--method=worker_sam", "--nodeterministic", DIGITS_NETWORK,
    ]  # fmt: skip
    tuning, trials = _run_here(flags, tmp_path)
    one, two = trials
    assert len(one.results[0].displacements) == 2
    # Its length is rho whatever the gradient; the weights are all but equal.
    assert two.displacement / one.displacement == pytest.approx(2, rel=0.1)
    assert report.draw(trials, tuning.search).startswith(b"\x89PNG")


def test_tune__real_runs_diverge__is_a_result(digits_dir, tmp_path):
    flags = [
        f"--data_dir={digits_dir}", *TINY, "--warmup=0", "--epochs=2",
        "--learning_rate=1e30", "--nodeterministic", "--alphas=0.1",
        DIGITS_NETWORK,
    ]  # fmt: skip
    tuning, (trial,) = _run_here(flags, tmp_path)
    assert trial.results[0].diverged == 1
    assert not (tuning.run_dir("alpha0.1-seed0") / "backup").exists()
