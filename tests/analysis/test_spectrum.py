"""Eigenvalues of noise whose covariance is known."""

import json
import sys

import keras
import numpy as np
import pytest

import tf_gnc
from tests import problems
from tf_gnc.analysis import spectrum
from tf_gnc.analysis.spectrum import condition_number, eigenvalues

M = 4
# Orthonormal, and but for the last one orthogonal to a mean over workers.
HELMERT = np.array(
    [
        [1, -1, 0, 0] / np.sqrt(2),
        [1, 1, -2, 0] / np.sqrt(6),
        [1, 1, 1, -3] / np.sqrt(12),
    ]
)
# Singular values of Omega; eigenvalues are their squares over M.
SINGULAR = np.array([4.0, 2.0, 1.0])
PERCENTILES = {"0": 0.0, "25": 0.1875, "50": 0.625, "75": 1.75, "100": 4.0}
KAPPA = 4.0 / 0.25


def _model(noise=None, replicas=1, num_workers=M):
    """Two weights: a kernel of 6 scalars, and a bias of 2."""
    with problems.mirrored(replicas):
        model = _dense()
        model.compile("sgd", "mse", noise=noise, num_workers=num_workers)
    return model


def _dense():
    inputs = keras.Input((3,))
    return tf_gnc.GNCModel(inputs, keras.layers.Dense(2, name="layer")(inputs))


def _known_gradients():
    """Workers' gradients, `(M, 8)`: known noise around some mean."""
    rng = np.random.default_rng(0)
    directions = np.linalg.qr(rng.normal(size=(6, 3)))[0].T  # (3, 6)
    kernel = HELMERT.T @ (SINGULAR[:, None] * directions)
    bias = np.outer(HELMERT[0], [1.0, 2.0])
    return np.concatenate([kernel, bias], axis=1) + rng.normal(size=8)


def _remember(model, gradients):
    plan, strategy = model.step_plan, model.distribute_strategy
    shares = np.split(gradients, plan.num_replicas)
    for replica, rows in enumerate(shares):
        plan.memory.restore(replica, strategy, rows)
    for mean in strategy.experimental_local_results(plan.memory.mean):
        mean.assign(gradients.mean(axis=0))


@pytest.mark.parametrize("held", [1, 12, 2**26])  # columns: 1, 3, all
@pytest.mark.parametrize("replicas", [1, 2])
def test_spectrum__known_covariance__has_its_eigenvalues(
    replicas, held, monkeypatch
):
    # By its name in the package it would be the function.
    monkeypatch.setattr(sys.modules["tf_gnc.analysis.spectrum"], "_HELD", held)
    model = _model(tf_gnc.GradientNoise(alpha=0.1), replicas)
    _remember(model, _known_gradients())
    found = spectrum(model)["layers"]
    assert list(found) == ["layer/kernel", "layer/bias"]
    kernel = found["layer/kernel"]
    np.testing.assert_allclose(kernel["condition_number"], KAPPA, rtol=1e-5)
    for key, value in PERCENTILES.items():
        np.testing.assert_allclose(
            kernel["percentiles"][key], value, rtol=1e-5, atol=1e-6
        )
    # One direction, of length sqrt(5): 5 / M.
    bias = found["layer/bias"]["percentiles"]["100"]
    np.testing.assert_allclose(bias, 1.25, rtol=1e-5)


def test_spectrum__layer_smaller_than_the_workers__has_no_condition_number():
    model = _model(tf_gnc.GradientNoise(alpha=0.1))
    _remember(model, _known_gradients())
    bias = spectrum(model)["layers"]["layer/bias"]
    assert bias["condition_number"] is None
    assert bias["percentiles"]["100"] > 1


@pytest.mark.parametrize("replicas", [1, 2])
def test_spectrum__rnc__is_that_of_the_rules_draws(replicas):
    rule = tf_gnc.RandomNoise(alpha=0.1, seed=5, scaling="none")
    model = _model(rule, replicas)
    model.optimizer.iterations.assign(7)
    layout = model.step_plan.layout
    draws = np.stack(
        [rule.direction(problems.at(layout, 7, i)) for i in range(M)]
    ).astype("float64")[:, :6]
    covariance = np.cov(draws, rowvar=False, bias=True)  # 6 x 6
    top = np.linalg.eigvalsh(covariance)[-3:]
    found = spectrum(model)["layers"]["layer/kernel"]
    np.testing.assert_allclose(
        found["condition_number"], top[-1] / top[0], rtol=1e-5
    )
    np.testing.assert_allclose(found["percentiles"]["100"], top[-1], rtol=1e-5)


@pytest.mark.parametrize(
    "noise", [None, tf_gnc.GradientNoise(alpha=0.1)], ids=["no rule", "step 0"]
)
def test_spectrum__no_noise__has_no_condition_number(noise):
    for layer in spectrum(_model(noise))["layers"].values():
        assert layer["condition_number"] is None
        assert set(layer["percentiles"].values()) == {0.0}


def test_spectrum__every_second_step__is_there_in_these_alone():
    model = _model(tf_gnc.RandomNoise(0.1, seed=1, every=2))
    model.build((None, 3))
    found = []
    for step in range(3):
        model.optimizer.iterations.assign(step)
        (numbers, _) = spectrum(model)["layers"].values()
        found.append((numbers["condition_number"], numbers["percentiles"]))
    (first, _), (between, zeros), (third, _) = found
    assert first > 1 and third > 1 and first != third
    assert between is None and set(zeros.values()) == {0.0}


def test_spectrum__noise_that_is_not_finite__is_none():
    model = _model(tf_gnc.GradientNoise(alpha=0.1))
    gradients = _known_gradients()
    gradients[1, 0] = np.nan
    _remember(model, gradients)
    found = spectrum(model)["layers"]
    assert found["layer/kernel"]["condition_number"] is None
    assert set(found["layer/kernel"]["percentiles"].values()) == {None}
    assert found["layer/bias"]["percentiles"]["100"] > 1
    json.dumps(found, allow_nan=False)


def test_spectrum__two_workers__says_how_many_are_needed():
    model = _model(tf_gnc.GradientNoise(alpha=0.1), num_workers=2)
    with pytest.raises(ValueError, match="3 workers or more.*num_workers=2"):
        spectrum(model)


class Subclassed(tf_gnc.GNCTrainStep, keras.Model):
    def __init__(self):
        super().__init__()
        self.dense = keras.layers.Dense(2)

    def call(self, x):
        return self.dense(x)


def test_spectrum__model_not_built__needs_a_batch():
    model = Subclassed()
    rule = tf_gnc.RandomNoise(alpha=0.1, seed=1)
    model.compile("sgd", "mse", noise=rule, num_workers=M)
    with pytest.raises(ValueError, match="must be built.*`batch`"):
        spectrum(model)
    found = spectrum(model, (np.ones((8, 3)), np.ones((8, 2))))["layers"]
    assert len(found) == 2


def test_spectrum__model_not_compiled__is_refused():
    with pytest.raises(ValueError, match="must be compiled"):
        spectrum(_dense())


def test_condition_number__second_smallest_within_rounding__is_none():
    assert condition_number(np.array([0.0, 1e-15, 1.0])) is None
    assert condition_number(np.array([0.0, 1e-10, 1.0])) == 1e10


def test_eigenvalues__rotated_matrix__keep_and_none_is_below_zero():
    turn = np.linalg.qr(np.random.default_rng(1).normal(size=(4, 4)))[0]
    values = np.array([0.0, 1.0, 2.0, 5.0])
    found = eigenvalues((turn * values) @ turn.T)
    np.testing.assert_allclose(found, values, atol=1e-12)
    assert (found >= 0).all()
    assert eigenvalues(np.full((2, 2), np.nan)) is None
