"""The mean gradient against the full one."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import tf_gnc
from tests import problems
from tf_gnc.analysis import similarity
from tf_gnc.analysis.similarity import cosine

M, ROWS, RATE = 4, 16, 0.5


def _cosine(a, b):
    return a @ b / np.sqrt((a @ a) * (b @ b))


def _compiled(replicas=1):
    """A network with BatchNorm under much noise."""
    with problems.mirrored(replicas):
        model = problems.dense_network()
        model.compile(
            keras.optimizers.SGD(RATE),
            problems.cross_entropy(),
            noise=tf_gnc.GradientNoise(alpha=2.0),
            num_workers=M,
        )
    return model


def _full_gradients(weights, x, y):
    """In stock Keras, of pieces of as many rows as a worker has."""
    model = problems.dense_network(keras.Model)
    model.set_weights(weights)
    values = [v.value for v in model.trainable_variables]
    total = [0.0] * len(values)
    for begin in range(0, len(x), ROWS // M):
        rows = slice(begin, begin + ROWS // M)
        with tf.GradientTape() as tape:
            y_pred = model(x[rows], training=True)
            loss = problems.cross_entropy()(y[rows], y_pred)
        gradients = tape.gradient(loss, values)
        total = [t + g.numpy() for t, g in zip(total, gradients, strict=True)]
    return [t.ravel() for t in total]


@pytest.mark.parametrize("replicas", [1, 2])
def test_similarity__gnc__is_of_the_next_step_with_the_clean_full_gradient(
    replicas,
):
    model = _compiled(replicas)
    model.fit(
        *problems.vectors(2 * ROWS, seed=3),
        batch_size=ROWS,
        shuffle=False,
        verbose=0,
    )
    x, y = problems.vectors(40, seed=4)
    batch = problems.vectors(ROWS, seed=5)
    data = tf.data.Dataset.from_tensor_slices((x, y)).batch(9)
    found = similarity(model, batch, data)
    full = _full_gradients(model.get_weights(), x, y)
    before = [v.numpy() for v in model.trainable_variables]
    model.fit(*batch, batch_size=ROWS, shuffle=False, verbose=0)
    step = [
        (b - v.numpy()).ravel()
        for b, v in zip(before, model.trainable_variables, strict=True)
    ]
    expected = [_cosine(a, b) for a, b in zip(step, full, strict=True)]
    assert list(found["layers"]) == [v.path for v in model.trainable_variables]
    # The weights' rounding, over the steps' length.
    np.testing.assert_allclose(
        list(found["layers"].values()), expected, atol=1e-4
    )
    total = _cosine(np.concatenate(step), np.concatenate(full))
    np.testing.assert_allclose(found["total"], total, atol=1e-5)


def test_similarity__zero_gradient__is_none():
    inputs = keras.Input((2,))
    layer = keras.layers.Dense(1, use_bias=False)
    model = tf_gnc.GNCModel(inputs, layer(inputs))
    model.compile("sgd", "mse", num_workers=2)
    x, y = np.zeros((4, 2), "float32"), np.ones((4, 1), "float32")
    data = tf.data.Dataset.from_tensor_slices((x, y)).batch(4)
    found = similarity(model, (x, y), data)
    assert found == {"total": None, "layers": {layer.kernel.path: None}}


def test_similarity__empty_data_set__is_refused():
    x, y = problems.vectors(ROWS)
    data = tf.data.Dataset.from_tensor_slices((x, y)).batch(4).take(0)
    with pytest.raises(ValueError, match="`dataset` must have rows"):
        similarity(_compiled(), (x, y), data)


def test_cosine__right_angle_opposite_and_tiny_vectors__are_exact():
    assert cosine([1.0, 0.0], [0.0, 2.0]) == 0
    assert cosine([1.0, 2.0], [-2.0, -4.0]) == pytest.approx(-1, abs=1e-15)
    assert cosine([3e-200, 4e-200], [1e200, 0.0]) == pytest.approx(0.6)
    assert cosine([np.inf, 1.0], [1.0, 1.0]) is None
    assert cosine([np.nan, 1.0], [1.0, 1.0]) is None
