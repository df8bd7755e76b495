import json
import re
import sys

import pytest

from tf_gnc.cli import compare, train
from tf_gnc.cli.main import main
from tf_gnc.cli.runs import child
from tf_gnc.experiments.compare.plan import Comparison
from tf_gnc.experiments.recipes import RECIPES

# Stands for a run: leaves what one leaves.
FAKE = """
import json, pathlib, sys
task = json.loads(sys.argv[1])
folder = pathlib.Path(task["run_dir"])
folder.mkdir(parents=True)
rate = 0.9 + task["config"]["seed"] / 100
for name, content in {
    "metrics.jsonl": {"epoch": 1, "loss": 0.5, "val_accuracy": rate,
                      "seconds": 2.0},
    "config.json": {"environment": {"machine": "m"}},
    "summary.json": {"val_accuracy": rate, "best_val_accuracy": rate,
                     "train_loss": 0.5},
}.items():
    (folder / name).write_text(json.dumps(content))
"""


@pytest.fixture
def fake(monkeypatch):
    """Runs that take no time, on data that nobody looks at."""
    real = child.command_line
    monkeypatch.setattr(
        child,
        "command_line",
        lambda *arguments: [sys.executable, "-c", FAKE, real(*arguments)[-1]],
    )
    monkeypatch.setattr(Comparison, "check", lambda _: None)


def test_reproduce__two_rows__published_values_stand_beside_ours(
    fake, tmp_path, capfd
):
    command = [
        "reproduce", "table2", "--rows=cifar10-8192,cifar100-4096",
        "--seeds=2", "--scale=1/10", f"--out_dir={tmp_path}",
    ]  # fmt: skip
    assert main(command) == 0
    out = capfd.readouterr().out
    for row in ("cifar10-8192", "cifar100-4096"):
        table = (tmp_path / row / "table.txt").read_text()
        assert table in out
        for value in RECIPES[row].published.values():
            assert str(value) in table
        assert "90.00" in table and "91.00" in table
        assert "arXiv:1906.10822" in table
        assert "was not the recipe" in " ".join(table.split())
        about = json.loads((tmp_path / row / "compare.json").read_text())
        assert {run["epochs"] for run in about["runs"]} == {16}
    assert main(command) == 0  # all is there
    assert "runs to do" not in capfd.readouterr().out


def test_reproduce__list__has_every_recipe(capsys):
    assert main(["reproduce", "--list"]) == 0
    out = capsys.readouterr().out
    assert all(f"{name} (" in out for name in RECIPES)
    for words in (["fig3c", "--list"], ["--list", "fig3c"]):
        assert main(["reproduce", *words]) == 0
        assert "cifar10-8192" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "a table or figure must be named"),
        (["table3"], "got 'table3'"),
        (["table2", "--rows=cifar10"], "got 'cifar10'"),
        (["table2", "--scale=2"], "--scale must be"),
        (["table2", "--scale=1/0"], "--scale must be"),
        (["table2", "--scale=1e400"], "--scale must be"),
        (["table2", "--scale=nan"], "--scale must be"),
        (["table2", "--scale=small"], "got 'small'"),
        (["table2", "--seeds=x"], "--seeds must be"),
        (["table2", "--methods=sgd"], "got methods='sgd'"),
        (["fig3c", "--methods=gnc"], "got methods='gnc'"),
        (["table2", "more"], "one table .*, got table2, more"),
        (["--rows", "x", "table2"], "--rows must be .*, got 'x'"),
        (["laptop", "--out_dir=ftp://b/c"], "must be a local directory"),
    ],
)
def test_reproduce__bad_command__one_line_exit_2_and_nothing_left(
    words, message, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    assert main(["reproduce", *words]) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1 and re.search(message, err)
    assert list(tmp_path.iterdir()) == []


def test_reproduce__digits_debug__really_runs(tmp_path, digits_dir, capfd):
    command = [
        "reproduce", "laptop", "--rows=digits", "--scale=debug",
        "--methods=gnc", f"--data_dir={digits_dir}",
        f"--out_dir={tmp_path}",
    ]  # fmt: skip
    assert main(command) == 0, capfd.readouterr().err
    about = json.loads((tmp_path / "digits" / "compare.json").read_text())
    assert {run["max_steps"] for run in about["runs"]} == {2}


def test_compare__recipe__is_the_plan_of_the_recipe():
    flags, _ = compare.build_flags().parse(
        ["--recipe=cifar10-laptop", "--seeds=2", "--data_dir=here"]
    )
    plan = compare._plan(flags)
    assert plan == RECIPES["cifar10-laptop"].plan(seeds=[0, 1], data_dir="here")
    assert {run.batch_size for run in plan.runs} == {8192}


def test_compare__recipe_and_dataset__is_refused(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    flags = ["--recipe=cifar10-laptop", "--dataset=digits"]
    assert main(["compare", *flags]) == 2
    assert "--recipe brings its data set" in capsys.readouterr().err


def test_train__recipe__is_a_run_of_the_recipe(tmp_path):
    flags, _ = train.build_flags().parse(
        ["--recipe=simple-2048", "--seed=3", "--data_dir=here", "--epochs=2"]
    )
    config = train.config_of(flags)
    want = RECIPES["simple-2048"].config("dpsgd", 3, data_dir="here", epochs=2)
    assert config == want
    assert not config.batch_norm and config.learning_rate == 0.016


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--recipe=cifar10-laptop", "--dataset=digits"], "brings its data"),
        (["--recipe=cifar11"], "got recipe='cifar11'"),
        (["--recipe=simple-2048", "--method=gnc"], "got methods='gnc'"),
    ],
)
def test_train__recipe_that_cannot_be__is_refused(flags, message, capsys):
    assert main(["train", *flags]) == 2
    assert message in capsys.readouterr().err
