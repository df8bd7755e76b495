"""The indicators of A.6 on a quadratic, whose Hessian is known."""

import keras
import numpy as np
import pytest

import tf_gnc
from tests import problems
from tf_gnc.analysis import smoothness
from tf_gnc.analysis.smoothness import step_sizes

M, ROWS, SIZE, RATE, ALPHA = 4, 16, 3, 0.2, 2.0


def _data(seed):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(ROWS, SIZE)).astype("float32")
    return x, rng.normal(size=(ROWS, 1)).astype("float32")


def _quadratic(replicas=1, rate=RATE, steps=1):
    """Mean square of x w - y, after a step that gives it noise."""
    with problems.mirrored(replicas):
        inputs = keras.Input((SIZE,))
        outputs = keras.layers.Dense(1, use_bias=False)(inputs)
        model = tf_gnc.GNCModel(inputs, outputs)
        model.compile(
            keras.optimizers.SGD(rate),
            "mse",
            noise=tf_gnc.GradientNoise(alpha=ALPHA),
            num_workers=M,
        )
    if steps:
        model.fit(*_data(1), batch_size=ROWS, shuffle=False, verbose=0)
    return model


def _function(x, y, moves):
    """The mean over workers at weights plus moves, and its gradient."""
    x, y = x.astype("float64"), y[:, 0].astype("float64")

    def function(w):
        losses, gradients = [], []
        for i, move in enumerate(moves):
            rows = slice(4 * i, 4 * i + 4)
            error = x[rows] @ (w + move) - y[rows]
            losses.append(np.mean(error**2))
            gradients.append(2 * x[rows].T @ error / 4)
        return np.mean(losses), np.mean(gradients, axis=0)

    return function


@pytest.mark.parametrize("replicas", [1, 2])
def test_smoothness__quadratic__has_the_known_indicators(replicas):
    model = _quadratic(replicas)
    x, y = _data(2)
    found = smoothness(model, (x, y))
    w = model.get_weights()[0][:, 0].astype("float64")
    gradients, mean = problems.memory(model)
    moves = -ALPHA * RATE * np.linalg.norm(w) * (gradients - mean)
    hessian = 2 * x.T.astype("float64") @ x / ROWS
    for name, delta in (("plain", 0 * moves), ("convolved", moves)):
        function = _function(x, y, delta)
        g = function(w)[1]
        bend = np.linalg.norm(hessian @ g)
        # H s g at every step: in proportion to it, and beta for all alike.
        beta = bend / np.linalg.norm(g)
        np.testing.assert_allclose(found[name]["beta"], beta, rtol=1e-5)
        np.testing.assert_allclose(
            found[name]["gradient"],
            [0.5 * RATE * bend, 2 * RATE * bend],
            rtol=1e-5,
        )
        losses = [
            function(w - factor * RATE * g)[0]
            for factor in np.linspace(0.5, 2, 8)
        ]
        np.testing.assert_allclose(
            found[name]["loss"], [min(losses), max(losses)], rtol=1e-5
        )
    difference = found["convolved"]["loss"][0] - found["plain"]["loss"][0]
    assert difference > 1e-3


def test_step_sizes__any_rate__are_eight_and_even():
    sizes = step_sizes(0.4)
    np.testing.assert_allclose(np.diff(sizes), 0.6 / 7)
    assert len(sizes) == 8
    np.testing.assert_allclose([sizes[0], sizes[-1]], [0.2, 0.8])


def test_smoothness__no_noise_yet__is_plain_in_both():
    found = smoothness(_quadratic(steps=0), _data(2))
    assert found["convolved"] == found["plain"]


def test_smoothness__learning_rate_of_zero__has_no_beta():
    found = smoothness(_quadratic(rate=0.0), _data(2))
    assert found["plain"]["beta"] is None
    assert found["plain"]["gradient"] == [0.0, 0.0]
    assert found["step_sizes"] == [0.0] * 8


def test_smoothness__loss_that_is_not_finite__is_none():
    x, y = _data(2)
    y[0] = np.inf
    found = smoothness(_quadratic(), (x, y))["plain"]
    assert found["loss"] == [None, None]
    assert found["beta"] is None
