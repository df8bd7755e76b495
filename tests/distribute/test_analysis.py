"""The measurements are the same wherever the workers are.

Functions that take a strategy and a folder are scenarios; see
tests/processes.py.
"""

import keras
import numpy as np
import pytest
import tensorflow as tf

import tf_gnc
from tests import problems
from tf_gnc import analysis

M, ROWS = 4, 16


def measures(strategy, folder):
    """All of them, after two steps with much noise."""
    keras.backend.clear_session(free_memory=False)  # Names are counted anew.
    with strategy.scope():
        model = problems.quick_network()
        model.compile(
            problems.sgd(),
            problems.cross_entropy(),
            noise=tf_gnc.GradientNoise(alpha=1.0),
            num_workers=M,
        )
    x, y = problems.vectors(2 * ROWS, seed=5)
    model.fit(x, y, batch_size=ROWS, shuffle=False, verbose=0)
    before = [v.numpy() for v in model.variables]
    batch = problems.vectors(ROWS, seed=3)
    # 16 + 13 rows: on two replicas the last row is a piece of the second.
    data = tf.data.Dataset.from_tensor_slices(problems.vectors(29)).batch(8)
    found = {
        "similarity": analysis.similarity(model, batch, data),
        "spectrum": analysis.spectrum(model),
        "sharpness": analysis.sharpness(model, batch, eigenvalues=1),
        "all rows": analysis.sharpness(model, batch, rows="all"),
        "equal norm": analysis.sharpness(
            model,
            batch,
            noise=tf_gnc.RandomNoise(alpha=1.0, seed=3),
            relative_displacement=0.25,
        ),
        "smoothness": analysis.smoothness(model, batch),
        "landscape": analysis.landscape(model, batch, points=3),
    }
    after = [v.numpy() for v in model.variables]
    # Processes that had taken other ways through this would wait for ever.
    model.fit(x, y, batch_size=ROWS, shuffle=False, verbose=0)
    return found, before, after


def _alone(strategy=None):
    keras.utils.set_random_seed(1)
    return measures(strategy or tf.distribute.get_strategy(), None)[0]


@pytest.fixture(scope="module")
def expected():
    return _alone()


@pytest.fixture
def in_two_processes(two_processes):
    return two_processes[measures]


def _assert_near(found, expected, where=""):
    if isinstance(expected, dict):
        assert list(found) == list(expected)
        for key, value in expected.items():
            _assert_near(found[key], value, f"{where}/{key}")
    elif isinstance(expected, list):
        assert len(found) == len(expected)
        for index, value in enumerate(expected):
            _assert_near(found[index], value, f"{where}/{index}")
    elif expected is None or isinstance(expected, str):
        assert found == expected, where
    else:
        # Two runs' weights differ by 1e-5; a ratio of small eigenvalues, and
        # what stops within 1e-3 of the limit, by more.
        loose = "condition_number" in where or "hessian" in where
        np.testing.assert_allclose(
            found,
            expected,
            rtol=2e-3 if loose else 1e-5,
            atol=1e-5,
            err_msg=where,
        )


def test_measures__one_device_strategy__are_those_without_a_strategy(expected):
    _assert_near(_alone(tf.distribute.OneDeviceStrategy("CPU:1")), expected)


@pytest.mark.parametrize("replicas", [2, 4])
def test_measures__several_replicas__are_those_of_one(replicas, expected):
    with problems.mirrored(replicas):
        strategy = tf.distribute.get_strategy()
    _assert_near(_alone(strategy), expected)


def test_measures__two_processes__are_the_same_in_both_and_alone(
    in_two_processes, expected
):
    (first, _, _), (second, _, _) = in_two_processes
    assert first == second
    _assert_near(first, expected)


def test_measures__two_processes__leave_the_model_as_it_was(in_two_processes):
    for _, before, after in in_two_processes:
        for one, other in zip(before, after, strict=True):
            np.testing.assert_array_equal(one, other)
