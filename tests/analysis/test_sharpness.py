"""Losses of displaced workers against NumPy; the noise scale against theory."""

import json

import keras
import numpy as np
import pytest
import tensorflow as tf

import tf_gnc
from tests import oracles, problems
from tf_gnc.analysis import sharpness
from tf_gnc.analysis.traced_workers import TracedWorkers

M, ROWS, RATE = 4, 16, 0.5


def _model(noise, replicas=1, steps=2):
    with problems.mirrored(replicas):
        model = problems.plain_network()
        model.compile(
            keras.optimizers.SGD(RATE),
            problems.cross_entropy(),
            noise=noise,
            num_workers=M,
        )
    if steps:
        x, y = problems.images(ROWS * steps, seed=7)
        model.fit(x, y, batch_size=ROWS, shuffle=False, verbose=0)
    return model


def _noise(model, rows):
    """Each worker's noise as one array per weight."""
    shapes = [v.shape for v in model.trainable_variables]
    ends = np.cumsum([np.prod(shape) for shape in shapes])[:-1]
    return [
        [p.reshape(s) for p, s in zip(np.split(row, ends), shapes, strict=True)]
        for row in rows.astype("float64")
    ]


def _losses(model, noise, step_size, x, y, rows=None):
    """In NumPy, and the mean of ||x_i - x|| / ||x||.

    Worker i has the slice `rows[i]`; by default its own four.
    """
    rows = rows or [slice(4 * i, 4 * i + 4) for i in range(M)]
    clean = [v.numpy().astype("float64") for v in model.trainable_variables]
    losses, moves = [], []
    for i, omega in enumerate(noise):
        weights = oracles.displaced(
            clean, omega, step_size, "filter", True, None
        )
        losses.append(oracles.gradient(weights, x[rows[i]], y[rows[i]])[0])
        squares = [
            np.sum((w - c) ** 2) for w, c in zip(weights, clean, strict=True)
        ]
        moves.append(np.sqrt(sum(squares)))
    length = np.sqrt(sum(np.sum(c**2) for c in clean))
    return np.array(losses), np.mean(moves) / length


def _assert_found(found, losses, displacement):
    np.testing.assert_allclose(found["losses"], losses, rtol=1e-5)
    np.testing.assert_allclose(
        [found[key] for key in ("mean", "std", "min", "max")],
        [losses.mean(), losses.std(), losses.min(), losses.max()],
        rtol=1e-4,
    )
    np.testing.assert_allclose(
        found["relative_displacement"], displacement, rtol=1e-4
    )


@pytest.fixture(scope="module")
def gnc():
    """A model under GNC; nobody changes it."""
    return _model(tf_gnc.GradientNoise(alpha=1.0))


@pytest.mark.parametrize("replicas", [1, 2])
def test_sharpness__gnc__are_the_losses_of_the_displaced_models(gnc, replicas):
    model = gnc
    if replicas > 1:
        model = _model(tf_gnc.GradientNoise(alpha=1.0), replicas)
    x, y = problems.images(ROWS, seed=8)
    gradients, mean = problems.memory(model)
    noise = _noise(model, gradients - mean)
    losses, displacement = _losses(model, noise, 1.0 * RATE, x, y)
    found = sharpness(model, (x, y))
    _assert_found(found, losses, displacement)
    clean, _ = _losses(model, _noise(model, 0 * gradients), 0.0, x, y)
    np.testing.assert_allclose(found["clean_loss"], clean.mean(), rtol=1e-5)
    assert found["hessian"] == []


def test_sharpness__another_rule__is_of_that_rules_noise(gnc):
    model = gnc
    x, y = problems.images(ROWS, seed=8)
    rule = tf_gnc.RandomNoise(alpha=3.0, seed=5)
    step, layout = int(model.optimizer.iterations), model.step_plan.layout
    draws = [rule.direction(problems.at(layout, step, i)) for i in range(M)]
    noise = _noise(model, np.stack(draws))
    losses, displacement = _losses(model, noise, 3.0 * RATE, x, y)
    _assert_found(sharpness(model, (x, y), noise=rule), losses, displacement)


def test_sharpness__relative_displacement__is_that_of_all_workers(gnc):
    batch = problems.images(ROWS, seed=8)
    found = sharpness(gnc, batch, relative_displacement=0.125)
    assert found["relative_displacement"] == pytest.approx(0.125, rel=1e-5)


def test_sharpness__a_loss_that_is_not_finite__is_none():
    model = _model(None, steps=0)
    x, y = problems.images(ROWS)
    x[5] = np.nan
    found = sharpness(model, (x, y), eigenvalues=1)
    assert [loss is None for loss in found["losses"]] == [False, True] + [
        False
    ] * 2
    nothing = ("mean", "std", "min", "max", "clean_loss", "noise_scale")
    assert {found[key] for key in nothing} == {None}
    assert found["hessian"] == [None]
    json.dumps(found, allow_nan=False)


def _linear(num_workers, size):
    """A loss of w times the mean of the rows: each row is its gradient."""
    inputs = keras.Input((size,))
    outputs = keras.layers.Dense(1, use_bias=False)(inputs)
    model = tf_gnc.GNCModel(inputs, outputs)
    model.compile(
        "sgd",
        lambda y, y_pred: keras.ops.mean(y_pred, axis=-1),
        num_workers=num_workers,
    )
    return model


def test_noise_scale__known_covariance_of_gradients__is_found():
    size, workers, rows = 20, 64, 64
    sigma, length = 1.0, 2.0  # of each component; of the mean
    rng = np.random.default_rng(0)
    mean = np.full(size, length / np.sqrt(size))
    x = rng.normal(mean, sigma, (workers * rows, size)).astype("float32")
    found = sharpness(_linear(workers, size), (x, np.zeros((len(x), 1))))
    # S is a sum of chi squares with (M - 1) P degrees of freedom; |G|^2 is off
    # by 2 G times the mean gradient's error, to first order.
    error = np.hypot(
        np.sqrt(2 / (size * (workers - 1))),
        2 * sigma / (length * np.sqrt(len(x))),
    )
    expected = size * sigma**2 / length**2
    assert found["noise_scale"] == pytest.approx(expected, rel=4 * error)
    # And exactly as the estimators of these very rows say.
    small = x.astype("float64").reshape(workers, rows, size).mean(axis=1)
    big = small.mean(axis=0)
    spread = np.sum((small - big) ** 2) / (workers - 1)  # tr(Sigma) / b
    exact = spread * rows / (big @ big - spread / workers)
    assert found["noise_scale"] == pytest.approx(exact, rel=1e-4)


def test_noise_scale__single_worker__is_none():
    x = np.ones((8, 3), "float32")
    found = sharpness(_linear(1, 3), (x, np.zeros((8, 1))))
    assert found["noise_scale"] is None


@pytest.mark.parametrize("value", [-1, 1.5, None])
def test_sharpness__bad_number_of_eigenvalues__is_refused(value):
    with pytest.raises(ValueError, match="`eigenvalues` must be"):
        sharpness(_model(None, steps=0), None, eigenvalues=value)


@pytest.mark.parametrize("replicas", [1, 2])
def test_sharpness__all_rows__are_each_models_loss_on_the_whole_batch(
    gnc, replicas
):
    model = gnc
    if replicas > 1:
        model = _model(tf_gnc.GradientNoise(alpha=1.0), replicas)
    x, y = problems.images(ROWS, seed=8)
    gradients, mean = problems.memory(model)
    noise = _noise(model, gradients - mean)
    losses, displacement = _losses(
        model, noise, 1.0 * RATE, x, y, rows=[slice(None)] * M
    )
    found = sharpness(model, (x, y), rows="all")
    assert found["rows"] == "all"
    _assert_found(found, losses, displacement)
    own = sharpness(model, (x, y))
    assert own["clean_loss"] == pytest.approx(found["clean_loss"], rel=1e-6)


def test_sharpness__all_rows_of_two_replicas__are_never_all_on_one(
    monkeypatch,
):
    held = []
    run = TracedWorkers.__call__

    def watched(self, kind, batch, *others):
        if kind == "all_rows":
            parts = tf.nest.flatten(batch, expand_composites=True)
            held.append({len(rows) for rows in parts})
        return run(self, kind, batch, *others)

    monkeypatch.setattr(TracedWorkers, "__call__", watched)
    model = _model(tf_gnc.GradientNoise(alpha=1.0), replicas=2)
    sharpness(model, problems.images(ROWS, seed=8), rows="all")
    assert held == [{ROWS // 2}] * 2


def test_sharpness__all_rows_without_noise__are_all_the_clean_loss():
    """Each piece has its own worker's masks, whoever's weights it meets."""
    model = problems.full_network()  # With dropout.
    model.compile("sgd", problems.cross_entropy(), num_workers=M)
    found = sharpness(model, problems.images(ROWS), rows="all")
    assert found["losses"] == pytest.approx([found["clean_loss"]] * M)
    own = sharpness(model, problems.images(ROWS), rows="own")
    assert own["std"] > 0.01


def test_sharpness__unknown_rows__are_refused(gnc):
    with pytest.raises(ValueError, match="`rows` must be .*got rows='each'"):
        sharpness(gnc, problems.images(ROWS), rows="each")
