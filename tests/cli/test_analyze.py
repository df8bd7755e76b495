"""`tf-gnc train --probe` and `tf-gnc analyze`, through the command line."""

import json
import shutil

import keras
import numpy as np
import pytest

from tf_gnc.cli import progress
from tf_gnc.cli.main import main
from tf_gnc.experiments.figures.registry import DRAWINGS

MODULE = """
import keras


def build():
    keras.utils.set_random_seed(3)
    inputs = keras.Input((8, 8, 1))
    h = keras.layers.Flatten()(inputs)
    h = keras.layers.Dense(6, "relu", name="hidden")(h)
    return keras.Model(inputs, keras.layers.Dense(10, name="out")(h))
"""
ALL = (
    "similarity,spectrum,sharpness,smoothness,landscape,noise_norm,"
    "loss_spread,relative_displacement,gradient_noise_scale"
)


@pytest.fixture(scope="module", autouse=True)
def _small_model(tmp_path_factory):
    """A model that is quickly traced, named on the command line."""
    folder = tmp_path_factory.mktemp("model")
    (folder / "analyzed_model.py").write_text(MODULE)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(folder)
        yield


def _flags(digits_dir, run_dir, *more):
    """A run of two epochs of two steps each."""
    return [
        "train", f"--data_dir={digits_dir}", f"--run_dir={run_dir}",
        "--model_fn=analyzed_model:build", "--workers=4", "--batch_size=512",
        "--epochs=2", *more,
    ]  # fmt: skip


def _rows(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def _steps(run_dir):
    return [row["step"] for row in _rows(run_dir / "probe.jsonl")]


def _one_error(capsys, command):
    err = capsys.readouterr().err
    assert err.count("\n") == 1, err
    assert err.startswith(f"tf-gnc {command}: error: ")
    return err


@pytest.fixture(scope="module")
def runs(digits_dir, tmp_path_factory):
    """Runs with everything recorded, with little, and without noise."""
    folder = tmp_path_factory.mktemp("runs")
    for name, more in {
        "gnc": ["--method=gnc", f"--probe={ALL}", "--probe_every=4"],
        "rnc": [
            "--method=rnc", "--scaling=none", "--probe=similarity",
            "--checkpoint_every=1",
        ],
        "dpsgd": ["--method=dpsgd"],
    }.items():  # fmt: skip
        assert main(_flags(digits_dir, folder / name, *more)) == 0
    return folder


def test_probe__of_each_run__rows_when_and_of_what_was_asked(runs):
    rows = _rows(runs / "rnc" / "probe.jsonl")  # once an epoch
    assert [(row["step"], row["epoch"]) for row in rows] == [(2, 1), (4, 2)]
    assert all({"step", "epoch", "similarity"} == set(row) for row in rows)
    (row,) = _rows(runs / "gnc" / "probe.jsonl")
    assert set(row) == {"step", "epoch", *ALL.split(",")}
    assert row["step"] == 4
    assert row["relative_displacement"] > 0


def test_metrics__probed_epochs__have_the_numbers_and_others_none(runs):
    first, second = _rows(runs / "gnc" / "metrics.jsonl")
    (row,) = _rows(runs / "gnc" / "probe.jsonl")
    plain = set(_rows(runs / "dpsgd" / "metrics.jsonl")[1])
    assert plain == set(first)  # not measured yet
    assert not any(name.startswith("probe_") for name in plain)
    new = set(second) - plain
    assert all(name.startswith("probe_") for name in new)
    assert second["probe_noise_norm"] == row["noise_norm"] > 0
    assert second["probe_similarity_total"] == row["similarity"]["total"]
    assert second["probe_loss_spread_std"] == row["loss_spread"]["std"]
    assert list(second)[: len(plain)] == list(first)


def test_log_dir__probed_run__has_tensorboards_events(digits_dir, tmp_path):
    flags = _flags(
        digits_dir, tmp_path / "run", "--probe=noise_norm", "--epochs=1",
        f"--log_dir={tmp_path / 'new' / 'logs'}",
    )  # fmt: skip
    assert main(flags) == 0
    (events,) = (tmp_path / "new" / "logs").iterdir()
    assert b"probe_noise_norm" in events.read_bytes()


def test_checkpoints__each_epoch__lie_there_and_nothing_else(runs):
    folder = runs / "rnc" / "checkpoints"
    names = sorted(path.name for path in folder.iterdir())
    assert names == ["epoch-0001.keras", "epoch-0002.keras"]
    assert not (runs / "gnc" / "checkpoints").exists()


def test_probe__measuring__changes_nothing_that_comes_out(
    runs, digits_dir, tmp_path
):
    assert main(_flags(digits_dir, tmp_path / "plain", "--method=gnc")) == 0
    pairs = zip(
        _rows(tmp_path / "plain" / "metrics.jsonl"),
        _rows(runs / "gnc" / "metrics.jsonl"),
        strict=True,
    )
    for plain, probed in pairs:
        for name in ("loss", "val_loss", "val_accuracy", "learning_rate"):
            assert probed[name] == pytest.approx(plain[name], rel=1e-5)


@pytest.mark.parametrize("backup", ["1", "never"])
def test_resume__measured_runs__no_row_twice_and_none_missing(
    digits_dir, tmp_path, monkeypatch, backup
):
    run_dir = tmp_path / "run"
    flags = _flags(
        digits_dir, run_dir, f"--backup={backup}", "--probe=noise_norm",
        "--probe_every=1",
    )  # fmt: skip
    calls = []

    def interrupt(self, epoch, logs=None):
        calls.append(epoch)
        if len(calls) == 2:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(progress.EpochLines, "on_epoch_end", interrupt)
        assert main(flags) == 130
    assert _steps(run_dir) == [1, 2, 3, 4]
    before = _rows(run_dir / "probe.jsonl")
    # Another choice of measurements is no other run.
    assert main([*flags, "--resume", "--checkpoint_every=2"]) == 0
    assert _steps(run_dir) == [1, 2, 3, 4]
    after = _rows(run_dir / "probe.jsonl")
    norms = [[row["noise_norm"] for row in rows] for rows in (before, after)]
    assert norms[1] == pytest.approx(norms[0], rel=1e-3)
    assert (run_dir / "checkpoints" / "epoch-0002.keras").exists()
    assert not (run_dir / "probe-1.jsonl").exists()


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--probe=loudness"], ["`probe` must be", "got probe='loudness'"]),
        (["--probe_every=0"], ["--probe_every=0", "positive"]),
        (["--log_dir=logs"], ["`log_dir`", "'logs'", "--probe"]),
        (
            [f"--log_dir={__file__}", "--probe=noise_norm"],
            ["`log_dir` must be", __file__],
        ),
        (["--log_dir=gs://a", "--probe=noise_norm"], ["'gs://a'"]),
        (["--probe=spectrum", "--workers=2"], ["'spectrum'", "num_workers=2"]),
    ],
)
def test_probe__bad_flag__one_line_exit_2_and_nothing_left(
    flags, words, digits_dir, tmp_path, capsys
):
    run_dir = tmp_path / "run"
    assert main(_flags(digits_dir, run_dir, *flags)) == 2
    err = _one_error(capsys, "train")
    assert all(word in err for word in words), err
    assert not run_dir.exists()


def test_analyze__one_run__all_figures_and_a_page(runs, capsys):
    assert main(["analyze", str(runs / "gnc"), "--around=2"]) == 0
    out = runs / "gnc" / "analysis"
    assert f"in {out}" in capsys.readouterr().out
    page = (out / "index.html").read_text()
    for name in set(DRAWINGS) - {"fig5_runs"}:
        assert (out / f"{name}.png").stat().st_size > 5000
        assert f'id="{name}"' in page
    assert "Not drawn" not in page
    # Again, in the same place.
    assert main(["analyze", "--layer", "out/bias", str(runs / "gnc")]) == 0
    assert "out/bias" in (out / "index.html").read_text()
    assert not (out / "fig4bc_losses_around.png").exists()


def test_analyze__two_runs__draws_what_there_is_and_names_the_rest(
    runs, tmp_path, capsys
):
    out = tmp_path / "out"
    paths = [str(runs / name) for name in ("rnc", "dpsgd")]
    assert main(["analyze", *paths, f"--out_dir={out}"]) == 0
    said = capsys.readouterr().out
    assert "Not drawn, since nothing was recorded: fig4a_cond" in said
    page = (out / "index.html").read_text()
    assert "Not recorded by: dpsgd." in page
    assert "tf-gnc train --probe=smoothness" in page
    assert not (out / "fig5_smoothness.png").exists()


def test_measure__checkpoints_under_rnc__is_what_the_probe_recorded(
    runs, capsys
):
    run_dir = runs / "rnc"
    command = ["analyze", str(run_dir), "--measure=similarity"]
    assert main(command) == 0
    said = capsys.readouterr().out
    assert "rnc: epoch 2, step 4: similarity\n" in said
    recorded = {row["step"]: row for row in _rows(run_dir / "probe.jsonl")}
    rows = _rows(run_dir / "analysis" / "measured.jsonl")
    assert [(row["step"], row["epoch"]) for row in rows] == [(2, 1), (4, 2)]
    for row in rows:
        there = recorded[row["step"]]["similarity"]
        close = pytest.approx(there["total"], abs=1e-4)
        assert row["similarity"]["total"] == close
        close = pytest.approx(there["layers"], abs=1e-4)
        assert row["similarity"]["layers"] == close
    # Another measure joins the rows, and is drawn.
    assert main(["analyze", str(run_dir), "--measure=spectrum"]) == 0
    rows = _rows(run_dir / "analysis" / "measured.jsonl")
    assert all({"similarity", "spectrum"} <= set(row) for row in rows)
    assert (run_dir / "analysis" / "fig4a_eigenvalues.png").exists()


def test_measure__landscape__is_a_curve_around_the_loss(runs):
    run_dir = runs / "dpsgd"
    out = runs / "landscape"
    command = ["analyze", str(run_dir), f"--out_dir={out}"]
    assert main([*command, "--measure=landscape"]) == 0
    (row,) = _rows(run_dir / "analysis" / "measured.jsonl")
    assert row["landscape"]["coordinates"][10] == 0
    assert len(row["landscape"]["loss"]) == 21
    assert (out / "landscape.png").stat().st_size > 5000
    shutil.rmtree(run_dir / "analysis")


def test_analyze__runs_of_a_comparison__works_again_and_again(runs, tmp_path):
    for name in ("gnc", "rnc"):
        shutil.copytree(runs / name, tmp_path / "runs" / f"{name}-seed0")

    def call():
        found = sorted(map(str, (tmp_path / "runs").iterdir()))
        assert main(["analyze", *found]) == 0

    call()
    call()
    assert (tmp_path / "analysis" / "index.html").exists()
    assert len(list((tmp_path / "runs").iterdir())) == 2
    # One of our own directories among the runs is passed over.
    (tmp_path / "analysis").rename(tmp_path / "runs" / "analysis")
    call()
    assert (tmp_path / "analysis" / "index.html").exists()


def test_measure__gradients_that_are_not_finite__one_line_and_exit_1(
    runs, tmp_path, capsys
):
    run_dir = tmp_path / "run"
    others = shutil.ignore_patterns("analysis")  # as the tests before left it
    shutil.copytree(runs / "gnc", run_dir, ignore=others)
    model = keras.models.load_model(run_dir / "model.keras")
    model.get_layer("out").kernel.assign(np.full((6, 10), np.nan))
    model.save(run_dir / "model.keras")
    assert main(["analyze", str(run_dir), "--measure=spectrum"]) == 1
    err = _one_error(capsys, "analyze")
    assert "model after step 4 can't be measured" in err
    assert "batch of step 3" in err


def test_measure__gnc_with_only_its_last_model__has_noise(runs):
    run_dir = runs / "gnc"
    before = (run_dir / "model.keras").read_bytes()
    assert main(["analyze", str(run_dir), "--measure=spectrum,sharpness"]) == 0
    (row,) = _rows(run_dir / "analysis" / "measured.jsonl")
    assert (row["step"], row["epoch"]) == (4, 2)
    recorded = _rows(run_dir / "probe.jsonl")[-1]["sharpness"]
    # The weights are those of the recorded step, and the noise is like it.
    close = pytest.approx(recorded["clean_loss"], rel=1e-5)
    assert row["sharpness"]["clean_loss"] == close
    close = pytest.approx(recorded["relative_displacement"], rel=0.1)
    assert row["sharpness"]["relative_displacement"] == close
    kernel = row["spectrum"]["layers"]["hidden/kernel"]
    assert kernel["condition_number"] > 1
    assert (run_dir / "model.keras").read_bytes() == before


def test_analyze__bad_command__one_line_and_exit_code(runs, tmp_path, capsys):
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "mine.txt").write_text("mine")
    (tmp_path / "begun").mkdir()
    config = (runs / "gnc" / "config.json").read_text()
    (tmp_path / "begun" / "config.json").write_text(config)
    gnc, dpsgd = str(runs / "gnc"), str(runs / "dpsgd")
    for flags, words, code in (
        ([], ["a RUN must be named"], 2),
        ([str(tmp_path)], ["must be the directory of a run", "no config"], 2),
        ([str(runs / "none")], [f"got '{runs / 'none'}'"], 2),
        ([str(tmp_path / "begun")], ["no records yet", "--resume"], 2),
        ([gnc, "--measure=loud"], ["`measure` must be", "measure='loud'"], 2),
        ([gnc, "--measure=noise_norm"], ["train --probe=noise_norm"], 2),
        ([gnc, f"--out_dir={tmp_path / 'taken'}"], ["holds other files"], 2),
        ([gnc, "--layers=a"], ["layers", "Did you mean"], 2),
        ([gnc, "--layer=a"], ["one of hidden/kernel, hidden/bias, out/"], 1),
        ([dpsgd, "--around=1"], ["around=1", "--measure=sharpness"], 1),
    ):
        assert main(["analyze", *flags]) == code, flags
        err = _one_error(capsys, "analyze")
        assert all(word in err for word in words), err
    assert [p.name for p in (tmp_path / "taken").iterdir()] == ["mine.txt"]
    assert not (runs / "dpsgd" / "analysis").exists()


def test_analyze__compare_directory__says_where_its_runs_are(
    runs, tmp_path, capsys
):
    (tmp_path / "runs" / "gnc-seed0").mkdir(parents=True)
    config = (runs / "gnc" / "config.json").read_text()
    (tmp_path / "runs" / "gnc-seed0" / "config.json").write_text(config)
    assert main(["analyze", str(tmp_path)]) == 2
    assert f"give {tmp_path}/runs/*" in _one_error(capsys, "analyze")


def test_analyze__help__says_what_a_run_is(capsys):
    assert main(["analyze", "--help"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("Usage: tf-gnc analyze RUN [RUN ...] [--flags]\n")
    assert all(len(line) <= 80 for line in out.splitlines())
