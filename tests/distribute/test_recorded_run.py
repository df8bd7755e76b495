"""What a run records in several processes: one file, written by the first."""

import json

import keras
import numpy as np
import pytest
import tensorflow as tf

from tf_gnc.experiments import Placement, make_config, run
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
    )  # fmt: skip
    recording = Recording(["noise_norm", "similarity"], 2, checkpoint_every=1)
    placement = Placement(strategy, recording=recording)
    run(config, folder / "run", placement=placement)
    run_dir = folder / "run"
    lines = (run_dir / "probe.jsonl").read_text().splitlines()
    names = sorted(path.name for path in run_dir.rglob("*") if path.is_file())
    return [json.loads(line) for line in lines], names


@pytest.fixture
def in_two(two_processes):
    return two_processes[recorded]


def test_recording__two_processes__one_file_of_whole_rows(in_two):
    (rows, names), other = in_two
    assert other[0] == rows
    assert [row["step"] for row in rows] == [2, 4, 6, 8]
    assert all(-1 <= row["similarity"]["total"] <= 1 for row in rows)
    assert {"epoch-0001.keras", "epoch-0002.keras"} <= set(names)
    assert not any(name.startswith(".unfinished") for name in names)


def test_recording__two_processes__same_numbers_as_one(in_two, tmp_path):
    rows, names = recorded(tf.distribute.get_strategy(), tmp_path)
    assert names == in_two[0][1]
    for one, two in zip(rows, in_two[0][0], strict=True):
        close = pytest.approx(one["noise_norm"], rel=1e-4)
        assert two["noise_norm"] == close
        close = pytest.approx(one["similarity"]["total"], abs=1e-4)
        assert two["similarity"]["total"] == close
