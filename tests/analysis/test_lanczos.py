"""Lanczos against whole spectra, and against a network's whole Hessian."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests import problems
from tf_gnc.analysis import sharpness
from tf_gnc.analysis.lanczos import lanczos
from tf_gnc.analysis.worker_runs import WorkerRuns

M, ROWS = 4, 16


def _matrix(values, seed=0):
    size = len(values)
    random = np.random.default_rng(seed).normal(size=(size, size))
    turn = np.linalg.qr(random)[0]
    return (turn * values) @ turn.T


def test_lanczos__spread_spectrum__finds_the_largest_in_order():
    values = np.concatenate([np.linspace(-3, 1, 195), [2.0, 4, 7, 11, 16]])
    products = []

    def product(vector):
        products.append(vector)
        return _matrix(values) @ vector

    found = lanczos(product, 200, count=3, seed=0)
    np.testing.assert_allclose(found, [16, 11, 7], rtol=1e-3)
    assert len(products) < 60
    basis = np.array(products)
    np.testing.assert_allclose(basis @ basis.T, np.eye(len(basis)), atol=1e-12)


def test_lanczos__whole_space__finds_all_eigenvalues():
    values = np.array([-2.0, -1, 0, 1, 3, 8])
    found = lanczos(_matrix(values).dot, 6, count=10, seed=1)
    np.testing.assert_allclose(found, values[::-1], atol=1e-10)


def test_lanczos__many_times_the_same_eigenvalue__goes_on_in_another_space():
    found = lanczos(lambda vector: 3 * vector, 50, count=4, seed=0)
    np.testing.assert_allclose(found, [3] * 4, rtol=1e-6)


def test_lanczos__zero_matrix__has_eigenvalues_of_zero():
    assert lanczos(lambda vector: 0 * vector, 5, count=2, seed=0) == [0, 0]


def test_lanczos__few_products__gives_lower_bounds():
    values = np.linspace(0, 1, 100)
    products = []

    def product(vector):
        products.append(1)
        return _matrix(values) @ vector

    found = lanczos(product, 100, count=2, seed=0, max_products=5)
    assert len(products) == 5
    assert 0.7 < found[0] <= 1 and found[1] < found[0]


def test_lanczos__product_not_finite__is_nan():
    found = lanczos(lambda vector: vector * np.nan, 3, count=2, seed=0)
    assert np.isnan(found).tolist() == [True, True]


def test_lanczos__no_eigenvalue_asked_for__takes_no_product():
    assert lanczos(None, 3, count=0, seed=0) == []


@pytest.fixture(scope="module")
def hessian():
    """The network's, by TensorFlow's jacobian of stock Keras's gradient."""
    keras.utils.set_random_seed(1)
    model = problems.dense_network(keras.Model)
    x, y = problems.vectors(ROWS)
    values = [v.value for v in model.trainable_variables]
    with tf.GradientTape() as outer:
        with tf.GradientTape() as inner:
            losses = [
                problems.cross_entropy()(
                    y[i : i + 4], model(x[i : i + 4], training=True)
                )
                for i in range(0, ROWS, 4)
            ]
            loss = tf.reduce_mean(losses)
        gradients = inner.gradient(loss, values)
        gradient = tf.concat([tf.reshape(g, [-1]) for g in gradients], 0)
    rows = outer.jacobian(gradient, values)
    size = gradient.shape[0]
    return np.concatenate([np.reshape(r, [size, -1]) for r in rows], axis=1)


@pytest.mark.parametrize("replicas", [1, 2])
def test_hessian_product__network_with_batch_norm__is_the_whole_hessians(
    hessian, replicas
):
    with problems.mirrored(replicas):
        model = problems.dense_network()
        model.compile("sgd", problems.cross_entropy(), num_workers=M)
    runs = WorkerRuns(model, problems.vectors(ROWS))
    vector = np.random.default_rng(0).normal(size=len(hessian))
    np.testing.assert_allclose(
        runs.hessian_product(vector), hessian @ vector, rtol=0, atol=1e-5
    )


def test_sharpness__network_with_batch_norm__has_the_top_eigenvalues(hessian):
    model = problems.dense_network()
    model.compile("sgd", problems.cross_entropy(), num_workers=M)
    found = sharpness(model, problems.vectors(ROWS), eigenvalues=3)["hessian"]
    top = np.linalg.eigvalsh(hessian)[::-1][:3]
    np.testing.assert_allclose(found, top, rtol=2e-3)
