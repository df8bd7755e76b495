"""What a run records in several processes: one file, written by the first."""

import json

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests import problems
from tf_gnc.experiments import Placement, make_config, run
from tf_gnc.experiments.loggers.run_log import LogTo
from tf_gnc.experiments.run.recording import Recording

THIS = "tests.distribute.test_recorded_run"


def load():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(102, 6)).astype("float32")
    y = (x[:, 0] > 0).astype("int64") + (x[:, 1] > 0)
    return (x[:70], y[:70]), (x[70:], y[70:])  # 4 3/8 batches


def build():
    inputs = keras.Input((6,))
    h = keras.layers.Dense(8, "relu")(inputs)
    return keras.Model(inputs, keras.layers.Dense(3)(h))


def recorded(strategy, folder):
    config = make_config(
        f"{THIS}:load", "gnc", model=f"{THIS}:build", num_workers=4,
        batch_size=16, epochs=2, learning_rate=0.1, remainder="carry",
        steps_per_execution=3,
    )  # fmt: skip
    recording = Recording(["noise_norm", "similarity"], 2, checkpoint_every=1)
    log_to = LogTo("tensorboard", log_every=1)
    placement = Placement(strategy, recording=recording, log_to=log_to)
    run(config, folder / "run", placement=placement)
    run_dir = folder / "run"
    names = sorted(path.name for path in run_dir.rglob("*") if path.is_file())
    events = [name for name in names if ".tfevents." in name]
    model = keras.models.load_model(run_dir / "model.keras")
    return {
        "rows": _rows(run_dir / "probe.jsonl"),
        "updates": [r["updates"] for r in _rows(run_dir / "metrics.jsonl")],
        "weights": model.get_weights(),
        "names": [name for name in names if name not in events],
        "events": len(events),
        "logged": json.loads((run_dir / "loggers.json").read_text()),
    }


def _rows(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.fixture
def in_two(two_processes):
    return two_processes[recorded]


def test_recording__two_processes__one_file_of_whole_rows(in_two):
    first, second = in_two
    rows, names = first["rows"], first["names"]
    assert second["rows"] == rows
    # 4 3/8 batches an epoch in calls of three updates: the last ones are short.
    assert first["updates"] == [4, 8]
    assert [row["step"] for row in rows] == [3, 4, 7, 8]
    assert all(-1 <= row["similarity"]["total"] <= 1 for row in rows)
    assert {"epoch-0001.keras", "epoch-0002.keras"} <= set(names)
    assert not any(name.startswith(".unfinished") for name in names)


def test_log__two_processes__the_first_alone_has_done_so(in_two):
    for process in in_two:
        assert process["events"] == 1
        assert process["logged"]["tensorboard"]["step"] == 8


def test_recording__two_processes__same_numbers_as_one(in_two, tmp_path):
    one, two = recorded(tf.distribute.get_strategy(), tmp_path), in_two[0]
    assert one["names"] == two["names"] and one["updates"] == two["updates"]
    assert problems.largest_difference(one["weights"], two["weights"]) < 1e-5
    for row, other in zip(one["rows"], two["rows"], strict=True):
        close = pytest.approx(row["noise_norm"], rel=1e-4)
        assert other["noise_norm"] == close
        close = pytest.approx(row["similarity"]["total"], abs=1e-4)
        assert other["similarity"]["total"] == close
