"""The vector of all weights, its filters and their norms."""

import numpy as np
import pytest
import tensorflow as tf

from tests import oracles
from tf_gnc.noise.layout import WeightLayout

# One weight of every kind, rank 0 to 4: scalar, bias, dense kernel, Conv1D
# kernel, HWIO kernel; and one output channel, one element, no element.
SHAPES = [(), (3,), (4, 2), (3, 2, 2), (3, 2, 2, 5), (4, 1), (1,), (0, 3)]
SIZE = 1 + 3 + 8 + 12 + 60 + 4 + 1


def _weights(shapes=SHAPES, dtype="float32"):
    rng = np.random.default_rng(0)
    return [np.asarray(rng.normal(size=shape), dtype) for shape in shapes]


def _flat(tensors):
    """The oracle's order: one weight after another, each row by row."""
    return np.concatenate([np.ravel(tensor) for tensor in tensors])


def test_layout__shapes__are_kept_and_counted():
    layout = WeightLayout([tf.TensorShape([2, 3]), [np.int64(4)], ()])
    assert layout.shapes == [(2, 3), (4,), ()]
    assert layout.sizes == [6, 4, 1]
    assert layout.size == 11
    assert layout.dtype == tf.float32
    assert WeightLayout([]).size == 0


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_pack__ranks_0_to_4__lies_row_by_row_and_unpack_inverts_it(dtype):
    weights = _weights(dtype=dtype)
    layout = WeightLayout(SHAPES, dtype)
    vector = layout.pack([tf.constant(w) for w in weights])
    assert vector.dtype == dtype
    assert vector.shape == (layout.size,) == (SIZE,)
    np.testing.assert_array_equal(vector, _flat(weights))
    for part, weight in zip(layout.unpack(vector), weights, strict=True):
        assert part.shape == weight.shape
        assert part.dtype == dtype
        np.testing.assert_array_equal(part, weight)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float64"])
def test_pack__weights_of_other_dtypes__are_cast_to_the_layouts(dtype):
    weights = [tf.constant([0.5, -2.0], dtype), tf.constant([[3.0]])]
    vector = WeightLayout([(2,), (1, 1)]).pack(weights)
    assert vector.dtype == tf.float32
    assert vector.numpy().tolist() == [0.5, -2.0, 3.0]


@pytest.mark.parametrize("number", [1, 3])
def test_pack__other_number_of_tensors__is_refused(number):
    layout = WeightLayout([(2,), (2,)])
    assert layout.pack([tf.zeros(2)] * 2).shape == (4,)
    with pytest.raises(ValueError, match="argument 2 is"):
        layout.pack([tf.zeros(2)] * number)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_filter_norms__all_kinds_of_weights__agree_with_loops(dtype):
    weights = _weights(dtype=dtype)
    layout = WeightLayout(SHAPES, dtype)
    expected = []
    for weight in weights:
        norms = np.zeros(weight.shape)
        for p in oracles.filters_of(weight):
            total = 0.0
            for element in np.ravel(weight[p]):
                total += float(element) ** 2
            norms[p] = np.sqrt(total)
        expected.append(norms)
    result = layout.filter_norms(layout.pack(weights))
    assert result.dtype == dtype
    # A sum of n squares is off by n roundings of eps / 2 at the most, which
    # the root halves before it adds its own; n is 12 in the largest filter.
    np.testing.assert_allclose(
        result, _flat(expected), rtol=(12 / 4 + 1) * np.finfo(dtype).eps
    )


@pytest.mark.parametrize(
    ("weight", "expected"),
    [
        (-2.0, [2.0]),  # a scalar
        ([3.0, -4.0], [5.0, 5.0]),  # a vector is one filter
        ([[3.0, 1.0], [4.0, 0.0]], [5.0, 1.0, 5.0, 1.0]),  # dense: columns
        ([[[[3.0, 0.0]]], [[[4.0, 0.0]]]], [5.0, 0.0, 5.0, 0.0]),  # HWIO
    ],
)
def test_filter_norms__hand_numbers__come_out(weight, expected):
    layout = WeightLayout([np.shape(weight)])
    vector = layout.pack([tf.constant(weight)])
    assert layout.filter_norms(vector).numpy().tolist() == expected


def test_kernel_mask__ranks_0_to_4__is_one_from_rank_2_on():
    mask = WeightLayout(SHAPES, "float64").kernel_mask()
    expected = [np.full(shape, float(len(shape) > 1)) for shape in SHAPES]
    assert mask.dtype == tf.float64
    np.testing.assert_array_equal(mask, _flat(expected))


def test_layout__inside_a_graph__shapes_are_static():
    layout = WeightLayout(SHAPES)

    @tf.function(input_signature=[tf.TensorSpec([None], tf.float32)])
    def call(vector):
        parts = layout.unpack(vector)
        assert [tuple(part.shape) for part in parts] == SHAPES
        assert layout.pack(parts).shape == (SIZE,)
        assert layout.filter_norms(vector).shape == (SIZE,)
        return layout.pack(parts)

    vector = np.arange(SIZE, dtype="float32")
    np.testing.assert_array_equal(call(vector), vector)
