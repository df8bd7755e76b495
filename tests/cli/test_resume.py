"""`tf-gnc train --resume`: cut short and taken up, it is the same run."""

import json
import os
import signal

import keras
import numpy as np
import pytest

from tests.problems import DIGITS_NETWORK
from tf_gnc.cli import progress
from tf_gnc.cli.main import main


def _flags(digits_dir, run_dir, *more):
    return [
        "train", f"--data_dir={digits_dir}", f"--run_dir={run_dir}",
        "--workers=2", "--batch_size=512", "--epochs=2", "--backup=1",
        "--method=gnc_to_rnc", "--switch_epoch=1", DIGITS_NETWORK, *more,
    ]  # fmt: skip


def _rows(run_dir):
    lines = (run_dir / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def _cut_short(monkeypatch, method, act):
    """Has the second call of a method of the progress lines end the run."""
    calls = []

    def count(self, *args, **kwargs):
        calls.append(args)
        if len(calls) == 2:
            act()

    monkeypatch.setattr(progress.EpochLines, method, count, raising=False)


@pytest.fixture(scope="module")
def finished(digits_dir, tmp_path_factory):
    """A run that nothing has disturbed."""
    run_dir = tmp_path_factory.mktemp("finished") / "run"
    assert main(_flags(digits_dir, run_dir)) == 0
    return run_dir


@pytest.fixture
def cut(digits_dir, tmp_path, monkeypatch):
    """A run that was interrupted in its second epoch, before a backup."""
    run_dir = tmp_path / "run"

    def interrupt():
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        _cut_short(patch, "on_epoch_end", interrupt)
        assert main(_flags(digits_dir, run_dir)) == 130
    assert len(_rows(run_dir)) == 2  # One more than the backup knows of.
    return run_dir


def _assert_same(run_dir, finished):
    for ours, theirs in zip(_rows(run_dir), _rows(finished), strict=True):
        assert ours.keys() == theirs.keys()
        for name in ours.keys() - {"seconds"}:
            if isinstance(theirs[name], float):
                close = pytest.approx(theirs[name], rel=1e-3, abs=2e-3)
                assert ours[name] == close, name
            else:
                assert ours[name] == theirs[name], name
    weights = [
        keras.models.load_model(folder / "model.keras").get_weights()
        for folder in (run_dir, finished)
    ]
    for ours, theirs in zip(*weights, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-3, atol=1e-3)


def test_resume__cut_short__is_the_run_and_then_prints_its_result_again(
    digits_dir, cut, finished, monkeypatch, capsys
):
    capsys.readouterr()
    assert main(_flags(digits_dir, cut, "--resume")) == 0
    captured = capsys.readouterr()
    assert "Goes on at step 4" in captured.err
    assert "epoch 1/2" not in captured.out
    assert "epoch 2/2" in captured.out
    _assert_same(cut, finished)
    for run_dir, steps in ((cut, [4]), (finished, [])):
        summary = json.loads((run_dir / "summary.json").read_text())
        assert summary["resumed_steps"] == steps
    names = sorted(path.name for path in cut.iterdir())
    assert names == sorted(path.name for path in finished.iterdir())

    def refuse(*args, **kwargs):
        raise RuntimeError("It trains.")

    monkeypatch.setattr("tf_gnc.step.train_step.GNCModel.fit", refuse)
    before = {path: path.read_bytes() for path in cut.iterdir()}
    assert main(_flags(digits_dir, cut, "--resume")) == 0
    assert "test accuracy" in capsys.readouterr().out
    assert {path: path.read_bytes() for path in cut.iterdir()} == before


def test_resume__other_settings_or_none_asked__refused_and_untouched(
    digits_dir, finished, capsys
):
    before = {path: path.read_bytes() for path in finished.iterdir()}
    for more, words in (
        (["--resume", "--seed=5"], "got seed=5 where"),
        (["--resume", "--alpha=0.75"], "got alpha=0.75 where"),
        ([], "take it up again with resume=True (--resume)"),
    ):
        assert main(_flags(digits_dir, finished, *more)) == 2
        err = capsys.readouterr().err
        assert words in err
        assert err.count("\n") == 1
    assert {path: path.read_bytes() for path in finished.iterdir()} == before


def test_resume__nothing_there_yet__begins(digits_dir, tmp_path, monkeypatch):
    # The launcher asks for it so when it starts again.
    monkeypatch.setenv("TF_GNC_RESTART", "1")
    run_dir = tmp_path / "run"

    def terminate():
        os.kill(os.getpid(), signal.SIGTERM)

    _cut_short(monkeypatch, "on_train_batch_begin", terminate)
    with pytest.raises(SystemExit) as caught:
        main(_flags(digits_dir, run_dir))
    assert caught.value.code == 75
    backups = sorted(os.listdir(run_dir / "backup"))
    assert backups == ["step-000000000001", "step-000000000002"]
    assert _rows(run_dir) == []


@pytest.mark.parametrize("word", ["0", "-3", "often", "1.5"])
def test_backup__bad_word__exit_2(word, capsys):
    assert main(["train", f"--backup={word}"]) == 2
    err = capsys.readouterr().err
    assert "--backup must be `auto`, `epoch`, `never` or a number" in err
