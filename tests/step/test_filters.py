"""Filters by the kind of layer, against loops that know the kinds."""

import keras
import numpy as np
import pytest
from keras import layers

import tf_gnc
from tf_gnc.step.filters import filters_of, unknown_filters


def _columns(w):
    """One filter for each place on the last axis."""
    return np.stack(
        [np.full(w.shape[:-1], _norm(w[..., k])) for k in range(w.shape[-1])],
        axis=-1,
    )


def _channels_and_multipliers(w):
    norms = np.zeros_like(w)
    for c in range(w.shape[-2]):
        for m in range(w.shape[-1]):
            norms[..., c, m] = _norm(w[..., c, m])
    return norms


def _outputs_before_inputs(w):
    norms = np.zeros_like(w)
    for k in range(w.shape[-2]):
        norms[..., k, :] = _norm(w[..., k, :])
    return norms


def _heads_and_features(w):
    norms = np.zeros_like(w)
    for h in range(w.shape[1]):
        for d in range(w.shape[2]):
            norms[:, h, d] = _norm(w[:, h, d])
    return norms


def _rows(w):
    return np.stack([np.full(w.shape[1:], _norm(row)) for row in w])


def _whole(w):
    return np.full(w.shape, _norm(w))


def _norm(w):
    return np.sqrt(np.sum(np.square(w)))


PICTURE, SERIES = keras.Input((6, 6, 3)), keras.Input((5, 3))
KINDS = {
    "dense": (layers.Dense(2), SERIES, [_columns, _whole]),
    "conv1d": (layers.Conv1D(2, 3), SERIES, [_columns, _whole]),
    "conv2d": (layers.Conv2D(2, 3), PICTURE, [_columns, _whole]),
    "depthwise": (
        layers.DepthwiseConv2D(3, depth_multiplier=2),
        PICTURE,
        [_channels_and_multipliers, _whole],
    ),
    "depthwise1d": (
        layers.DepthwiseConv1D(3),
        SERIES,
        [_channels_and_multipliers, _whole],
    ),
    "separable": (
        layers.SeparableConv2D(4, 3, depth_multiplier=2),
        PICTURE,
        [_channels_and_multipliers, _columns, _whole],
    ),
    "transpose": (
        layers.Conv2DTranspose(2, 3),
        PICTURE,
        [_outputs_before_inputs, _whole],
    ),
    "separable1d": (
        layers.SeparableConv1D(4, 3),
        SERIES,
        [_channels_and_multipliers, _columns, _whole],
    ),
    "transpose1d": (
        layers.Conv1DTranspose(2, 3),
        SERIES,
        [_outputs_before_inputs, _whole],
    ),
    "einsum": (
        layers.EinsumDense("abc,dc->abd", (None, 4), bias_axes="d"),
        SERIES,
        [_rows, _whole],
    ),
    "embedding": (
        layers.Embedding(4, 3),
        keras.Input((5,), dtype="int32"),
        [_rows],
    ),
    "lstm": (layers.LSTM(2), SERIES, [_columns, _columns, _whole]),
    "gru": (layers.GRU(2), SERIES, [_columns, _columns, _whole]),
    "simple_rnn": (layers.SimpleRNN(2), SERIES, [_columns, _columns, _whole]),
    "both ways": (
        layers.Bidirectional(layers.LSTM(2)),
        SERIES,
        [_columns, _columns, _whole] * 2,
    ),
    "layer_norm": (
        layers.LayerNormalization(axis=[1, 2]),
        SERIES,
        [_whole, _whole],
    ),
    "attention": (
        lambda x: layers.MultiHeadAttention(2, 3)(x, x),
        SERIES,
        # query, key, value, output, each with its bias
        [_heads_and_features, _whole] * 3 + [_columns, _whole],
    ),
}


@pytest.mark.parametrize("kind", KINDS)
def test_filter_norms__each_kind_of_layer__are_those_counted_by_hand(kind):
    layer, inputs, expected = KINDS[kind]
    model = tf_gnc.GNCModel(inputs, layer(inputs))
    model.compile("sgd", "mse")
    rng = np.random.default_rng(0)
    weights = [
        rng.normal(size=v.shape).astype("float32")
        for v in model.trainable_variables
    ]
    layout = model.step_plan.layout
    norms = layout.unpack(layout.filter_norms(layout.pack(weights)))
    assert len(expected) == len(weights)
    for by_hand, weight, found in zip(expected, weights, norms, strict=True):
        np.testing.assert_allclose(found, by_hand(weight), rtol=1e-5)
    assert unknown_filters(model) == []
    # What has no filters of its own counts as a vector.
    kernels = [by_hand is not _whole for by_hand in expected]
    masks = layout.unpack(layout.kernel_mask())
    assert [bool(np.all(mask)) for mask in masks] == kernels


class Table(layers.Layer):
    def build(self, shape):
        self.table = self.add_weight(shape=(3, 2), name="table")

    def call(self, x):
        return x @ self.table


def test_filters_of__a_layer_of_the_users_own__is_listed_as_unknown():
    model = keras.Sequential([SERIES, Table(name="mine"), layers.Dense(1)])
    assert filters_of(model) == [None, (-1,), ()]
    (path,) = unknown_filters(model)
    assert path.endswith("mine/table")
