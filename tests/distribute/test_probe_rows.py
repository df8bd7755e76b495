"""A probe in several processes: one measurement, one writer, one collective."""

import json

import numpy as np
import pytest
import tensorflow as tf

import tf_gnc
from tests import problems

CHEAP = ["noise_norm", "relative_displacement", "loss_spread",
         "gradient_noise_scale"]  # fmt: skip


def _model(strategy, **arguments):
    with strategy.scope():
        model = problems.quick_network()
        model.compile(
            problems.sgd(), problems.cross_entropy(),
            noise=tf_gnc.GradientNoise(alpha=0.5), num_workers=8, **arguments,
        )  # fmt: skip
    return model


def _run(strategy, folder, measures=CHEAP, **arguments):
    x, y = problems.vectors(64)
    probe = tf_gnc.callbacks.Probe(
        measures, every=2, batch=(x[:32], y[:32]), directory=folder
    )
    model = _model(strategy, **arguments)
    history = model.fit(
        x, y, batch_size=32, epochs=2, shuffle=False, verbose=0,
        callbacks=[probe],
    ).history  # fmt: skip
    lines = (folder / "probe.jsonl").read_text().splitlines()
    return {
        "weights": problems.float_weights(model),
        "history": history,
        "rows": [json.loads(line) for line in lines],
    }


def probed(strategy, folder):
    return _run(strategy, folder, [*CHEAP, "sharpness"])


def two_steps_a_call(strategy, folder):
    return _run(strategy, folder, steps_per_execution=2)


def unprobed(strategy, folder):
    x, y = problems.vectors(64)
    model = _model(strategy)
    model.fit(x, y, batch_size=32, epochs=2, shuffle=False, verbose=0)
    return problems.float_weights(model)


SCENARIOS = [probed, two_steps_a_call, unprobed]


@pytest.fixture
def in_two(two_processes):
    return two_processes


@pytest.fixture(scope="module")
def in_one(tmp_path_factory):
    folder = tmp_path_factory.mktemp("one")
    return _run(tf.distribute.get_strategy(), folder)


def _numbers(rows):
    return [
        [row["step"], *(row[name] for name in CHEAP if name != "loss_spread"),
         *row["loss_spread"].values()]
        for row in rows
    ]  # fmt: skip


@pytest.mark.parametrize("scenario", [probed, two_steps_a_call])
def test_probe__two_processes__same_numbers_as_one(in_one, in_two, scenario):
    first, second = in_two[scenario]
    # One file, and each row in it once.
    assert [row["step"] for row in first["rows"]] == [2, 4]
    expected = np.array(_numbers(in_one["rows"]), float)
    found = np.array(_numbers(first["rows"]), float)
    np.testing.assert_allclose(found[0], expected[0], rtol=1e-5)
    np.testing.assert_allclose(found[1], expected[1], rtol=1e-4)
    np.testing.assert_equal(first["history"], second["history"])  # NaN too
    for name in CHEAP[:2]:
        np.testing.assert_allclose(
            first["history"][f"probe_{name}"],
            in_one["history"][f"probe_{name}"],
            rtol=1e-4,
        )


def test_probe__two_processes__trains_as_without(in_two):
    for scenario in (probed, two_steps_a_call):
        for result, plain in zip(
            in_two[scenario], in_two[unprobed], strict=True
        ):
            difference = problems.largest_difference(plain, result["weights"])
            assert difference < 1e-6


def test_probe__full_measure_in_two_processes__one_row_each(in_two):
    for result in in_two[probed]:
        assert [row["step"] for row in result["rows"]] == [2, 4]
        assert all(row["sharpness"]["losses"] for row in result["rows"])
