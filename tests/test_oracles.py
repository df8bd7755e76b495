"""The oracle itself, checked by finite differences and by hand."""

import numpy as np

from tests import oracles


def _weights(seed=0):
    rng = np.random.default_rng(seed)
    shapes = [(3, 3, 1, 2), (2,), (32, 3), (3,)]
    return [rng.normal(size=shape) * 0.3 for shape in shapes]


def test_gradient__any_weight__agrees_with_central_differences():
    rng = np.random.default_rng(1)
    x, y = rng.normal(size=(4, 6, 6, 1)), rng.integers(0, 3, 4)
    weights = _weights()
    _, gradients = oracles.gradient(weights, x, y)
    # The error of a central difference is h**2 times a third derivative of
    # order one, plus rounding of order 1e-16 / h: both below 1e-9 for 1e-5.
    h = 1e-5
    for k, w in enumerate(weights):
        for index in np.ndindex(w.shape):
            kept = w[index]
            w[index] = kept + h
            above, _ = oracles.gradient(weights, x, y)
            w[index] = kept - h
            below, _ = oracles.gradient(weights, x, y)
            w[index] = kept
            slope = (above - below) / (2 * h)
            assert abs(slope - gradients[k][index]) < 1e-8


def test_displaced__filter_scaling__hand_numbers():
    kernel = np.array([[3.0, 1.0], [4.0, 0.0]])  # columns: norms 5 and 1
    bias = np.array([0.0, 2.0])  # one filter, norm 2
    noise = [np.array([[1.0, 2.0], [0.0, 2.0]]), np.array([1.0, 1.0])]
    moved = oracles.displaced([kernel, bias], noise, 0.1, "filter", True, None)
    np.testing.assert_allclose(moved[0], [[2.5, 0.8], [4.0, -0.2]])
    np.testing.assert_allclose(moved[1], [-0.2, 1.8])
