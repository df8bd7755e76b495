"""Runs whose epochs leave no example out."""

import json

import keras
import numpy as np
import pytest
import tensorflow as tf

from tf_gnc.cli import progress
from tf_gnc.experiments import Placement, make_config, prepare, train
from tf_gnc.experiments.run.building import learning_rates, training_data
from tf_gnc.experiments.run.recording import Recording

THIS = "tests.experiments.run.test_remainder"
UPDATES = [4, 8, 13, 17]  # 70 examples, 16 at a time: 4 3/8 an epoch


def load():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(90, 6)).astype("float32")
    y = (x[:, 0] > 0).astype("int64") + (x[:, 1] > 0)
    return (x[:70], y[:70]), (x[70:], y[70:])


def build():
    inputs = keras.Input((6,))
    h = keras.layers.Dense(8, "relu")(inputs)
    return keras.Model(inputs, keras.layers.Dense(3)(h))


def _config(method="gnc", **chosen):
    return make_config(
        f"{THIS}:load", method, model=f"{THIS}:build", num_workers=4,
        batch_size=16, epochs=4, learning_rate=0.1,
        **{"remainder": "carry", **chosen},
    )  # fmt: skip


def _rows(prepared, name="metrics.jsonl"):
    lines = prepared.files.path(name).read_text().splitlines()
    return [json.loads(line) for line in lines]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    prepared = prepare(_config(), tmp_path_factory.mktemp("carried") / "run")
    train(prepared)
    return prepared


def test_run__carried__makes_all_updates_and_is_one_long_pass(
    finished, tmp_path
):
    assert [row["updates"] for row in _rows(finished)] == UPDATES
    about = json.loads(finished.files.path("config.json").read_text())
    assert about["steps_per_epoch"] == 70 / 16
    straight = prepare(_config(), tmp_path / "run")
    data = training_data(straight.config, straight.images, 0)
    straight.model.fit(data, steps_per_epoch=17, shuffle=False, verbose=0)
    for ours, theirs in zip(
        finished.model.get_weights(), straight.model.get_weights(), strict=True
    ):
        np.testing.assert_array_equal(ours, theirs)


def test_learning_rates__carried__fall_at_true_epochs(finished):
    rates = learning_rates(_config(), finished.updates)
    drops = [s for s in range(1, 17) if rates(s) < rates(s - 1) / 2]
    assert drops == [8, 13]  # after 2 and 3 epochs


def test_run__carried_with_a_switch__comes_and_is_shown_in_true_epochs(
    tmp_path, monkeypatch
):
    monkeypatch.setattr(progress, "_SECONDS_BETWEEN_LOOKS", -1.0)
    rules, reports = [], []
    config = _config(
        method="gnc_to_rnc", switch_epoch=2, alpha=0.1, alpha_rnc=0.1
    )
    prepared = prepare(config, tmp_path / "run")
    watch = keras.callbacks.LambdaCallback(
        on_train_batch_begin=lambda batch, logs: rules.append(
            type(prepared.model.noise_rule).__name__
        )
    )
    train(prepared, [watch, progress.ProgressReports(reports.append)])
    # 2 epochs of 4 3/8 updates are 8 whole ones.
    assert rules == ["GradientNoise"] * 8 + ["RandomNoise"] * 9
    shown = [(r["epoch"], r["step"], r["steps"]) for r in reports]
    for epoch, steps in enumerate((4, 4, 5, 4), 1):
        # As it begins, at each update and as it ends.
        expected = [(epoch, n, steps) for n in (*range(steps + 1), steps)]
        assert [line for line in shown if line[0] == epoch] == expected
    assert all("val_accuracy" in row for row in _rows(prepared))


@pytest.mark.parametrize("last", [4, 5, 13])
def test_run__cut_short_around_an_epochs_end__goes_on_to_the_bit(
    finished, tmp_path, last
):
    def interrupt(batch, logs):
        if int(prepared.model.optimizer.iterations) == last:
            raise KeyboardInterrupt

    placement = Placement(
        tf.distribute.get_strategy(), save_freq=1, resume=True
    )
    prepared = prepare(_config(), tmp_path / "run", placement=placement)
    watch = keras.callbacks.LambdaCallback(on_train_batch_begin=interrupt)
    with pytest.raises(KeyboardInterrupt):
        train(prepared, [watch])
    again = prepare(_config(), tmp_path / "run", placement=placement)
    summary = train(again)
    assert list(summary.resumed_steps) == [last]
    assert [row["updates"] for row in _rows(again)] == UPDATES
    for ours, theirs in zip(
        again.model.get_weights(), finished.model.get_weights(), strict=True
    ):
        np.testing.assert_array_equal(ours, theirs)


def test_run__measured_around_an_epoch_and_killed__has_the_same_rows(tmp_path):
    """Killed in the steps that are all measured, past the last backup."""
    recording = Recording(
        ["noise_norm", "sharpness"], 3, around=[2], log_dir=tmp_path / "tb"
    )
    placement = Placement(
        tf.distribute.get_strategy(), save_freq=3, resume=True,
        recording=recording,
    )  # fmt: skip

    def kill(batch, logs):
        if int(killed.model.optimizer.iterations) == 8:
            raise RuntimeError("killed")

    whole = prepare(_config(), tmp_path / "whole", placement=placement)
    train(whole)
    (_,) = (tmp_path / "tb").iterdir()  # TensorBoard reads the last file.
    killed = prepare(_config(), tmp_path / "run", placement=placement)
    watch = keras.callbacks.LambdaCallback(on_train_batch_end=kill)
    with pytest.raises(RuntimeError, match="killed"):
        train(killed, [watch])
    assert _rows(killed, "probe.jsonl")[-1]["step"] == 8
    again = prepare(_config(), tmp_path / "run", placement=placement)
    assert list(train(again).resumed_steps) == [6]
    rows = _rows(again, "probe.jsonl")
    # 4 3/8 updates an epoch: 5 to 13 are from epoch 1 to epoch 3.
    assert [row["step"] for row in rows if "sharpness" in row] == [
        *range(5, 14)
    ]
    assert [r["step"] for r in rows if "noise_norm" in r] == [3, 6, 9, 12, 15]
    assert rows == _rows(whole, "probe.jsonl")
    for ours, theirs in zip(_rows(again), _rows(whole), strict=True):
        for name in ("probe_noise_norm", "probe_sharpness_std"):
            assert ours.get(name) == theirs.get(name), name


def test_run__max_steps__drops(tmp_path):
    prepared = prepare(_config(max_steps=3), tmp_path / "run")
    assert prepared.updates.before(4) == 12


@pytest.mark.parametrize("at_once", [2, 3, 7])
def test_run__several_steps_a_call__an_epochs_last_call_is_short(
    finished, tmp_path, at_once
):
    calls = []
    watch = keras.callbacks.LambdaCallback(
        on_train_batch_end=lambda batch, logs: calls.append(
            int(prepared.model.optimizer.iterations)
        )
    )
    prepared = prepare(_config(steps_per_execution=at_once), tmp_path / "run")
    train(prepared, [watch])
    assert [row["updates"] for row in _rows(prepared)] == UPDATES
    ends = zip([0, *UPDATES[:-1]], UPDATES, strict=True)
    assert calls == [
        min(step + at_once, end)
        for begin, end in ends
        for step in range(begin, end, at_once)
    ]
    for ours, theirs in zip(
        prepared.model.get_weights(),
        finished.model.get_weights(),
        strict=True,
    ):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("last", [4, 8, 11, 13])
def test_run__several_steps_a_call_cut_short__goes_on_to_the_bit(
    tmp_path, last
):
    """Whether the backup is of an epoch's end, a short call or a whole one."""
    placement = Placement(
        tf.distribute.get_strategy(), save_freq=1, resume=True
    )

    def interrupt(batch, logs):
        if int(prepared.model.optimizer.iterations) == last:
            raise KeyboardInterrupt

    config = _config(steps_per_execution=3)
    whole = prepare(config, tmp_path / "whole")
    train(whole)
    prepared = prepare(config, tmp_path / "run", placement=placement)
    watch = keras.callbacks.LambdaCallback(on_train_batch_begin=interrupt)
    with pytest.raises(KeyboardInterrupt):
        train(prepared, [watch])
    again = prepare(config, tmp_path / "run", placement=placement)
    assert list(train(again).resumed_steps) == [last]
    assert [row["updates"] for row in _rows(again)] == UPDATES
    for ours, theirs in zip(
        again.model.get_weights(), whole.model.get_weights(), strict=True
    ):
        np.testing.assert_array_equal(ours, theirs)


def test_run__dropped_in_calls_that_do_not_divide__makes_no_more(tmp_path):
    config = _config(remainder="drop", steps_per_execution=3)
    prepared = prepare(config, tmp_path / "run")
    train(prepared)
    assert [row["updates"] for row in _rows(prepared)] == [4, 8, 12, 16]
