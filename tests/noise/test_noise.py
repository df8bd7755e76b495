"""The noise rules: arguments, formulas, random draws."""

import math
import random
import re

import keras
import numpy as np
import pytest
import tensorflow as tf

import tf_gnc
from tests import oracles, problems
from tf_gnc.noise.at import At
from tf_gnc.noise.layout import WeightLayout

# Scalar, vector, dense, Conv1D and HWIO kernels; the last filter of each
# kernel is zero.
SHAPES = [(), (3,), (4, 3), (3, 2, 2), (2, 2, 2, 3)]
STEP_SIZE = 0.25  # alpha * eta, exact in binary


def _weights(seed=0, zero_filters=True):
    rng = np.random.default_rng(seed)
    weights = [rng.normal(size=shape) for shape in SHAPES]
    for weight in weights:
        if zero_filters and weight.ndim > 1:
            weight[..., -1] = 0.0
    return [np.asarray(weight, "float32") for weight in weights]


def _displaced(rule, weights, noise, dtype="float32"):
    """The rule's displaced weights, one array per weight."""
    layout = WeightLayout([w.shape for w in weights], dtype)
    clean = layout.pack(weights)
    scale = rule.scale(clean, STEP_SIZE, layout)
    result = rule.displace(clean, scale, layout.pack(noise), layout)
    assert result.dtype == dtype
    return [part.numpy() for part in layout.unpack(result)]


# Arguments.

BAD = [
    ({"alpha": -1e-9}, "`alpha` must be a finite number, at least 0"),
    ({"alpha": math.nan}, "got alpha=nan"),
    ({"alpha": math.inf}, "got alpha=inf"),
    ({"alpha": True}, "got alpha=True"),
    ({"alpha": "0.1"}, "got alpha='0.1'"),
    ({"alpha": None}, "got neither `alpha` nor"),
    ({"scaling": "layer"}, "one of 'filter', 'none', got scaling='layer'"),
    ({"scaling": None}, "got scaling=None"),
    ({"include_vectors": 1}, "True or False, got include_vectors=1"),
    ({"include_vectors": None}, "got include_vectors=None"),
]
GNC_BAD = [
    ({"max_displacement": 0}, "above 0, got max_displacement=0"),
    ({"max_displacement": -1.0}, "got max_displacement=-1.0"),
    ({"max_displacement": math.inf}, "got max_displacement=inf"),
    ({"max_displacement": True}, "got max_displacement=True"),
    ({"noise_dtype": "int8"}, "'float64', got noise_dtype='int8'"),
    ({"noise_dtype": tf.float32}, "got noise_dtype=tf.float32"),
]
RNC_BAD = [
    ({"seed": -1}, "at least 0, at most 2147483647, got seed=-1"),
    ({"seed": 2**31}, "got seed=2147483648"),
    ({"seed": 1.0}, "got seed=1.0"),
    ({"seed": True}, "got seed=True"),
]


@pytest.mark.parametrize(
    ("rule", "arguments", "message"),
    [
        (rule, *case)
        for rule, cases in (
            (tf_gnc.GradientNoise, BAD + GNC_BAD),
            (tf_gnc.RandomNoise, BAD + RNC_BAD),
        )
        for case in cases
    ],
)
def test_rules__bad_argument__error_holds_name_and_value(
    rule, arguments, message
):
    with pytest.raises(ValueError, match=re.escape(message)):
        rule(**{"alpha": 0.1, **arguments})


@pytest.mark.parametrize(
    ("rule", "arguments"),
    [
        (tf_gnc.GradientNoise, {"alpha": 0}),
        (tf_gnc.GradientNoise, {"alpha": np.float32(0.5)}),
        (tf_gnc.GradientNoise, {"scaling": "none", "include_vectors": False}),
        (tf_gnc.GradientNoise, {"max_displacement": 5e-324}),
        (tf_gnc.GradientNoise, {"max_displacement": None}),
        *(
            (tf_gnc.GradientNoise, {"noise_dtype": dtype})
            for dtype in ("float32", "bfloat16", "float16", "float64")
        ),
        (tf_gnc.RandomNoise, {"alpha": 0}),
        (tf_gnc.RandomNoise, {"scaling": "none", "include_vectors": False}),
        (tf_gnc.RandomNoise, {"seed": 0}),
        (tf_gnc.RandomNoise, {"seed": 2**31 - 1}),
        (tf_gnc.RandomNoise, {"seed": np.int64(3)}),
    ],
)
def test_rules__good_argument__survives_serialization(rule, arguments):
    made = rule(**{"alpha": 0.1, **arguments})
    for name, value in arguments.items():
        assert getattr(made, name) == value
    serialized = keras.saving.serialize_keras_object(made)
    assert serialized["registered_name"] == f"tf_gnc>{rule.__name__}"
    restored = keras.saving.deserialize_keras_object(serialized)
    assert type(restored) is rule
    assert restored.get_config() == made.get_config()
    assert set(made.get_config()) >= set(arguments)


def test_random_noise__no_seed__draws_one_that_the_global_seed_decides():
    first, second = (tf_gnc.RandomNoise(0.1).seed for _ in range(2))
    keras.utils.set_random_seed(1)  # as the fixture did before this test
    assert tf_gnc.RandomNoise(0.1).seed == first
    assert first != second
    random.seed(1)
    assert tf_gnc.RandomNoise(0.1).seed == first


def test_random_noise__no_seed__serializes_the_drawn_one():
    rule = tf_gnc.RandomNoise(0.1)
    assert isinstance(rule.get_config()["seed"], int)
    restored = keras.saving.deserialize_keras_object(
        keras.saving.serialize_keras_object(rule)
    )
    assert restored.seed == rule.seed


def test_rules__repr__shows_all_arguments_as_stored():
    rule = tf_gnc.GradientNoise(0.1, max_displacement=2)
    assert repr(rule) == (
        "GradientNoise(alpha=0.1, scaling='filter', include_vectors=True, "
        "max_displacement=2.0, noise_dtype='float32')"
    )
    assert repr(tf_gnc.RandomNoise(0.5, "none", False, 3)) == (
        "RandomNoise(alpha=0.5, scaling='none', include_vectors=False, seed=3)"
    )


def test_rules__what_each_needs__is_told():
    both = {"previous", "previous_mean"}
    assert tf_gnc.GradientNoise(0.1).needs == both
    assert tf_gnc.GradientNoise(0.1, center=False).needs == {"previous"}
    assert not tf_gnc.RandomNoise(0.1).needs


def test_noise_rule__own_rule__inherits_all_but_noise():
    class Ones(tf_gnc.NoiseRule):
        def direction(self, at):
            return tf.ones([at.layout.size])

    layout = WeightLayout([(2,)])
    with pytest.raises(NotImplementedError, match="NoiseRule must implement"):
        tf_gnc.NoiseRule(0.1).direction(problems.at(layout))
    rule = Ones(0.1)
    clean = tf.constant([3.0, 4.0])
    scale = rule.scale(clean, 0.5, layout)
    noise = rule.direction(problems.at(layout))
    result = rule.displace(clean, scale, noise, layout)
    assert result.numpy().tolist() == [0.5, 1.5]  # x - 0.5 * 5 * 1


# Formulas.


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("bound", [None, 0.5])
@pytest.mark.parametrize("include_vectors", [True, False])
@pytest.mark.parametrize("scaling", ["filter", "none"])
def test_displace__gradient_noise__agrees_with_loops(
    scaling, include_vectors, bound, dtype
):
    weights, noise = _weights(), _weights(seed=1, zero_filters=False)
    rule = tf_gnc.GradientNoise(1.0, scaling, include_vectors, bound)
    result = _displaced(rule, weights, noise, dtype)
    expected = oracles.displaced(
        [w.astype("float64") for w in weights],
        [w.astype("float64") for w in noise],
        STEP_SIZE,
        scaling,
        include_vectors,
        bound,
    )
    # A displacement is a product of a few factors, two of them norms of up to
    # 12 elements: 16 roundings, and it is no longer than the numbers here.
    largest = max(np.abs(w).max() for w in expected)
    for ours, theirs in zip(result, expected, strict=True):
        np.testing.assert_allclose(
            ours, theirs, rtol=0, atol=16 * np.finfo(dtype).eps * largest
        )


@pytest.mark.parametrize("rule", [tf_gnc.GradientNoise, tf_gnc.RandomNoise])
@pytest.mark.parametrize(
    ("scaling", "include_vectors", "expected"),
    [
        ("filter", True, [2.5, 1.0, 0.5, 2.5, 2.5]),
        ("filter", False, [2.5, 1.0, 0.0, 0.0, 0.0]),
        ("none", True, [0.5] * 5),
        ("none", False, [0.5, 0.5, 0.0, 0.0, 0.0]),
    ],
)
def test_scale__hand_numbers__come_out(
    rule, scaling, include_vectors, expected
):
    # A kernel's two filters of one element, norms 5 and 2; a scalar, norm 1;
    # a vector with norm 5. The step size is 0.5.
    layout = WeightLayout([(1, 2), (), (2,)])
    clean = tf.constant([-5.0, 2.0, 1.0, 3.0, 4.0])
    rule = rule(7.0, scaling, include_vectors)  # its alpha is in the step size
    for step_size in (0.5, tf.constant(0.5), tf.constant(0.5, tf.float64)):
        scale = rule.scale(clean, step_size, layout)
        assert scale.dtype == tf.float32
        assert scale.numpy().tolist() == expected


def test_gradient_noise__any_step_and_worker__is_what_it_is_given():
    layout = WeightLayout([(2,)])
    given = tf.constant([1.0, -2.0])
    for step, worker in ((0, 0), (5, 3)):
        at = problems.at(
            layout, step, worker, previous=given + 1, previous_mean=tf.ones(2)
        )
        noise = tf_gnc.GradientNoise(0.1).direction(at)
        np.testing.assert_array_equal(noise, given)


# max_displacement.


@pytest.mark.parametrize("bound", [1e-3, 0.1, 1.0])
@pytest.mark.parametrize("scaling", ["filter", "none"])
def test_max_displacement__any_noise__bounds_each_filter_and_keeps_direction(
    scaling, bound
):
    weights = _weights()
    noise = [40 * n for n in _weights(seed=1, zero_filters=False)]
    clean64 = [w.astype("float64") for w in weights]
    bounded, free = (
        _displaced(tf_gnc.GradientNoise(1.0, scaling, True, b), weights, noise)
        for b in (bound, None)
    )
    eps = np.finfo("float32").eps
    num_bounded = 0
    for x, y, z in zip(clean64, bounded, free, strict=True):
        for p in oracles.filters_of(x):
            norm = np.linalg.norm(x[p])
            move, full = np.ravel(y[p] - x[p]), np.ravel(z[p] - x[p])
            # The sum x - move is rounded element by element; the move itself
            # is off by less than 16 roundings (norms of up to 12 elements).
            slack = eps * norm * (1 + bound) + 16 * eps * bound * norm
            assert np.linalg.norm(move) <= bound * norm + slack
            if norm == 0:
                np.testing.assert_array_equal(y[p], x[p])
            elif np.linalg.norm(full) > bound * norm:
                num_bounded += 1
                assert np.linalg.norm(move) >= bound * norm - slack
                along = full / np.linalg.norm(full)
                across = move - (move @ along) * along
                wobble = slack + bound * norm * 16 * eps
                assert np.linalg.norm(across) <= wobble
                assert move @ along > 0
    # 2 vectors and 2 + 1 + 2 filters that aren't zero: the case is not empty.
    assert num_bounded == 7


@pytest.mark.parametrize("scaling", ["filter", "none"])
def test_max_displacement__noise_below_it__changes_no_bit(scaling):
    weights = _weights()
    noise = _weights(seed=1)  # zero filters do not move: any bound will do
    free, bounded = (
        _displaced(tf_gnc.GradientNoise(1.0, scaling, True, b), weights, noise)
        for b in (None, 1e6)
    )
    for a, b, clean in zip(free, bounded, weights, strict=True):
        np.testing.assert_array_equal(a, b)
        assert np.any(a != clean)


def test_max_displacement__some_filters_beyond_it__leaves_the_others_alone():
    layout = WeightLayout([(2, 2)])
    clean = tf.constant([3.0, 0.0, 4.0, 1.0])  # filters (3, 4) and (0, 1)
    noise = tf.constant([30.0, 0.125, 40.0, 0.0])
    rule = tf_gnc.GradientNoise(1.0, "none", max_displacement=0.5)
    moved = rule.displace(clean, tf.ones(4), noise, layout)
    # (30, 40) shrinks to half of (3, 4); (0.125, 0) is short enough.
    assert moved.numpy().tolist() == [1.5, -0.125, 2.0, 1.0]


# Random draws.


def _draw(step, worker, seed=1, layout=None, **arguments):
    layout = layout or WeightLayout(SHAPES)
    rule = tf_gnc.RandomNoise(1.0, seed=seed, **arguments)
    return rule.direction(problems.at(layout, step, worker))


def _cube(step, worker):
    """The unscaled draw, one array per weight, rank 0 included."""
    draw = _draw(step, worker, scaling="none")
    parts = WeightLayout(SHAPES).unpack(draw)
    return [np.asarray(part.numpy(), "float64") for part in parts]


def test_random_noise__each_filter__has_norm_one():
    layout = WeightLayout(SHAPES)
    for part in layout.unpack(_draw(2, 3)):
        part = np.asarray(part.numpy(), "float64")
        for p in oracles.filters_of(part):
            # Norm and quotient of up to 12 elements: see test_layout.
            error = abs(np.linalg.norm(part[p]) - 1)
            assert error < 8 * np.finfo("float32").eps


def test_random_noise__scaled__is_the_unscaled_draw_over_its_norms():
    layout = WeightLayout(SHAPES)
    expected = oracles.unit_filters(_cube(2, 3))
    for ours, theirs in zip(layout.unpack(_draw(2, 3)), expected, strict=True):
        # Quotients of at most 1 by a norm of up to 12 elements.
        atol = 8 * np.finfo("float32").eps
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=atol)


@pytest.mark.parametrize("scaling", ["filter", "none"])
def test_random_noise__step_worker_or_seed_differ__so_do_the_draws(scaling):
    keys = [
        (1, 2, 3),
        (2, 1, 3),  # step and worker are not confused
        (1, 3, 2),  # nor worker and seed
        (3, 2, 1),
        (0, 0, 0),
        (0, 0, 1),
        (0, 1, 0),
        (1, 0, 0),
        (2**31 - 1, 2**31 - 1, 2**31 - 1),
    ]
    draws = [
        _draw(step, worker, seed, scaling=scaling).numpy()
        for step, worker, seed in keys
    ]
    for i, first in enumerate(draws):
        for j, second in enumerate(draws):
            # A scalar's direction is 1 or -1 and may agree by chance; the
            # other elements agree with a probability of about 2**-23 each.
            equal = np.mean(first == second)
            assert equal == 1 if i == j else equal < 0.1, (keys[i], keys[j])


@pytest.mark.parametrize("dtype", [tf.int32, tf.int64])
def test_random_noise__same_key__same_draw_in_a_graph_too(dtype):
    rule = tf_gnc.RandomNoise(1.0, seed=1)
    layout = WeightLayout(SHAPES)

    @tf.function
    def call(step, worker):
        return rule.direction(At(step, worker, None, layout, 0.1, {}))

    graph = call(tf.constant(5, dtype), tf.constant(6, dtype))
    np.testing.assert_array_equal(_draw(5, 6), _draw(5, 6))
    np.testing.assert_array_equal(_draw(5, 6), graph)
    assert tf.reduce_any(call(tf.constant(6, dtype), 5) != graph)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_random_noise__unscaled__is_uniform_with_mean_0_and_variance_1_12(
    dtype,
):
    n = 100_000
    layout = WeightLayout([(n,)], dtype)
    draw = _draw(0, 0, layout=layout, scaling="none")
    assert draw.dtype == dtype
    u = draw.numpy().astype("float64")
    assert -0.5 <= u.min() < -0.499
    assert 0.499 < u.max() <= 0.5
    # A uniform draw's standard deviation, and that of its square: the fourth
    # moment of U[-1/2, 1/2] is 1/80.
    assert abs(u.mean()) < 4 * math.sqrt(1 / 12 / n)
    error = 4 * math.sqrt((1 / 80 - 1 / 144) / n)
    assert abs(np.mean(u**2) - 1 / 12) < error


def test_random_noise__neighbouring_keys__are_uncorrelated():
    n = 100_000
    layout = WeightLayout([(n,)])
    keys = [(0, 0, 1), (0, 1, 1), (1, 0, 1), (0, 0, 2)]
    draws = [
        _draw(*key, layout=layout, scaling="none").numpy().astype("float64")
        for key in keys
    ]
    for i, first in enumerate(draws):
        for second in draws[:i]:
            # The product's standard deviation is the variance, 1/12.
            error = 4 / 12 / math.sqrt(n)
            assert abs(np.mean(first * second)) < error


def test_random_noise__displaced_weights__agree_with_eq_5():
    weights = _weights()
    layout = WeightLayout(SHAPES)
    rule = tf_gnc.RandomNoise(1.0, seed=1)
    noise = rule.direction(problems.at(layout))
    result = _displaced(rule, weights, layout.unpack(noise))
    expected = oracles.displaced(
        [w.astype("float64") for w in weights],
        oracles.unit_filters(_cube(0, 0)),
        STEP_SIZE,
        "filter",
        True,
        None,
    )
    largest = max(np.abs(w).max() for w in expected)
    for ours, theirs in zip(result, expected, strict=True):
        atol = 16 * np.finfo("float32").eps * largest
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=atol)


def test_equality__same_class_and_arguments__is_all_that_counts():
    rule = tf_gnc.GradientNoise(0.1, max_displacement=0.5)
    same = tf_gnc.GradientNoise(0.1, max_displacement=0.5)
    assert rule == same and hash(rule) == hash(same)
    for other in (
        tf_gnc.GradientNoise(0.1),
        tf_gnc.GradientNoise(0.1, max_displacement=0.6),
        tf_gnc.RandomNoise(0.1, seed=1),
        None,
    ):
        assert rule != other
    assert tf_gnc.RandomNoise(0.1, seed=1) != tf_gnc.RandomNoise(0.1, seed=2)
