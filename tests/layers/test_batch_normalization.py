"""The fused layer against Keras's own."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import tf_gnc
from tests import problems
from tf_gnc.layers import BatchNormalization

SETTINGS = {"momentum": 0.8, "epsilon": 1e-3}


def _pictures(shape=(8, 5, 4, 3), dtype="float32"):
    x = np.random.default_rng(0).normal(2, 3, shape)
    return tf.constant(x.astype("float32"), dtype)


def _train(layer, x, y, **call):
    """What a step sees of a layer: outputs, gradients, moving statistics."""
    outputs = layer(x, training=True)  # builds it
    for weight, value in zip(layer.trainable_weights, (1.5, 0.5), strict=False):
        weight.assign(tf.fill(weight.shape, value))
    with tf.GradientTape() as tape:
        tape.watch(x)
        outputs = layer(x, training=True, **call)
        loss = tf.reduce_sum(tf.cast(outputs, y.dtype) * y)
    gradients = tape.gradient(loss, [x, *layer.trainable_variables])
    return outputs, gradients, layer.non_trainable_variables


def _largest(ours, oracle):
    """The largest difference, against the oracle's largest value."""
    return max(
        np.max(np.abs(np.float64(a) - np.float64(b))) / np.max(np.abs(b))
        for a, b in zip(ours, oracle, strict=True)
    )


def _is_fused(layer, *args, **kwargs):
    call = tf.function(lambda x: layer(x, training=True, **kwargs))
    graph = call.get_concrete_function(*args).graph
    return "FusedBatchNormV3" in {op.type for op in graph.get_operations()}


@pytest.mark.parametrize(
    "dtype", ["float32", "mixed_bfloat16", "mixed_float16"]
)
@pytest.mark.parametrize("arguments", [{}, {"scale": False, "center": False}])
def test_call__types_of_activations__is_kerass_layer_in_float64(
    dtype, arguments
):
    policy = keras.DTypePolicy(dtype)
    x = _pictures(dtype=policy.compute_dtype)
    y = tf.random.stateless_normal(x.shape, (1, 2), dtype="float32")
    ours = BatchNormalization(**SETTINGS, **arguments, dtype=policy)
    stock = keras.layers.BatchNormalization(
        **SETTINGS, **arguments, dtype="float64"
    )
    assert _is_fused(ours, x)
    ours = BatchNormalization(**SETTINGS, **arguments, dtype=policy)
    outputs, gradients, moving = _train(ours, x, y)
    oracle = _train(stock, tf.cast(x, "float64"), tf.cast(y, "float64"))
    # Activations carry 8 or 11 bits; sums over them are in float32.
    rounding = {"bfloat16": 2**-8, "float16": 2**-11, "float32": 1e-5}
    allowed = rounding[policy.compute_dtype]
    assert outputs.dtype == policy.compute_dtype
    assert _largest([outputs], [oracle[0]]) < allowed
    several_roundings = 1 if policy.compute_dtype == "float32" else 4
    assert _largest(gradients, oracle[1]) < several_roundings * allowed
    assert _largest(moving, oracle[2]) < 1e-6
    assert all(v.dtype == "float32" for v in moving)


@pytest.mark.parametrize("shape", [(1, 1, 1, 3), (2, 1, 1, 3), (1, 1, 2, 3)])
def test_call__one_or_two_values_a_channel__moving_statistics_are_kerass(shape):
    # n - 1 is 0 or 1: the kernel's unbiased variance is then special.
    x = _pictures(shape)
    layers = [
        layer(**SETTINGS)
        for layer in (BatchNormalization, keras.layers.BatchNormalization)
    ]
    ours, stock = (layer(x, training=True) for layer in layers)
    np.testing.assert_allclose(ours, stock, atol=1e-5)
    for a, b in zip(layers[0].variables, layers[1].variables, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize(
    ("shape", "dtype", "arguments"),
    [
        ((4, 3), "float32", {}),
        ((4, 6, 3), "float32", {}),
        ((2, 4, 4, 4, 3), "float32", {}),
        ((4, 5, 4, 3), "float64", {}),
        ((4, 5, 4, 3), "float32", {"axis": 1}),
        pytest.param(
            (4, 5, 4, 3),
            "float32",
            {"renorm": True},
            marks=pytest.mark.skipif(
                not hasattr(keras.layers.BatchNormalization(), "renorm"),
                reason="Keras 3.12 and 3.13 have no batch renormalization",
            ),
        ),
        ((4, 5, 4, 3), "float32", {"trainable": False}),
        ((4, 5, 4, 3), "float32", {"synchronized": True}),
    ],
)
def test_call__what_the_kernel_does_not_do__is_kerass_to_the_bit(
    shape, dtype, arguments
):
    x = _pictures(shape, dtype)
    found = []
    for layer_class in (BatchNormalization, keras.layers.BatchNormalization):
        layer = layer_class(**SETTINGS, dtype=dtype, **arguments)
        found.append([layer(x, training=True), *layer.variables])
        assert not _is_fused(layer, x)
    for ours, stock in zip(*found, strict=True):
        np.testing.assert_array_equal(ours, stock)


def test_call__mask__is_kerass_to_the_bit():
    x = _pictures()
    mask = tf.constant(np.arange(160).reshape(8, 5, 4) % 3 > 0)
    found = []
    for layer_class in (BatchNormalization, keras.layers.BatchNormalization):
        layer = layer_class(**SETTINGS)
        found.append([layer(x, training=True, mask=mask), *layer.variables])
        assert not _is_fused(layer, x, mask=mask)
    for ours, stock in zip(*found, strict=True):
        np.testing.assert_array_equal(ours, stock)


def test_call__inference__is_kerass_to_the_bit():
    x = _pictures()
    ours, stock = BatchNormalization(), keras.layers.BatchNormalization()
    np.testing.assert_array_equal(ours(x), stock(x))


def test_layer__configuration_and_weights__are_kerass():
    stock = keras.layers.BatchNormalization(name="bn", **SETTINGS)
    ours = BatchNormalization.from_config(stock.get_config())
    assert ours.get_config() == stock.get_config()
    for layer in (ours, stock):
        layer.build((None, 4, 4, 3))
    assert [v.path for v in ours.variables] == [v.path for v in stock.variables]


def test_call__under_xla__same_step():
    x = _pictures()
    y = tf.random.stateless_normal(x.shape, (1, 2), dtype="float32")

    def gradient(layer, x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            loss = tf.reduce_sum(layer(x, training=True) * y)
        return tape.gradient(loss, x)

    found = []
    for jit_compile in (False, True):
        layer = BatchNormalization(**SETTINGS)
        layer.build(x.shape)
        call = tf.function(gradient, jit_compile=jit_compile)
        found.append([call(layer, x), *layer.variables])
    for plain, compiled in zip(*found, strict=True):
        np.testing.assert_allclose(plain, compiled, rtol=1e-5, atol=1e-6)


def test_hessian_vector_product__of_the_kernel__is_a_finite_difference():
    x, direction = _pictures(), _pictures()[::-1]
    y = tf.random.stateless_normal(x.shape, (1, 2), dtype="float32")

    def gradient(layer, x, y):
        with tf.GradientTape() as tape:
            tape.watch(x)
            loss = tf.reduce_sum(tf.sin(layer(x, training=True)) * y)
        return tape.gradient(loss, x)

    with tf.GradientTape() as tape:
        tape.watch(x)
        slope = gradient(BatchNormalization(**SETTINGS), x, y)
        along = tf.reduce_sum(slope * direction)
    product = tape.gradient(along, x)

    stock = keras.layers.BatchNormalization(**SETTINGS, dtype="float64")
    x, direction, y = (tf.cast(t, "float64") for t in (x, direction, y))
    step = 1e-5
    ahead = gradient(stock, x + step * direction, y)
    behind = gradient(stock, x - step * direction, y)
    assert _largest([product], [(ahead - behind) / (2 * step)]) < 1e-4


def _network(layer_class):
    keras.utils.set_random_seed(1)
    inputs = keras.Input(problems.SHAPE)
    h = keras.layers.Conv2D(4, 3, use_bias=False)(inputs)
    h = layer_class(**SETTINGS)(h)
    h = keras.layers.Flatten()(keras.layers.ReLU()(h))
    outputs = keras.layers.Dense(problems.CLASSES)(h)
    return tf_gnc.GNCModel(inputs, outputs)


@pytest.mark.parametrize("how", ["traced", "eager", "xla", "replicas"])
def test_fit__in_workers__trains_as_on_kerass_layer(how):
    x, y = problems.images(32)
    found = []
    for layer_class in (BatchNormalization, keras.layers.BatchNormalization):
        with problems.mirrored(2 if how == "replicas" else 1):
            model = _network(layer_class)
            model.compile(
                problems.sgd(),
                problems.cross_entropy(),
                noise=tf_gnc.GradientNoise(alpha=0.1),
                num_workers=4,
                run_eagerly=how == "eager",
                jit_compile=how == "xla",
            )
        model.fit(x, y, batch_size=16, shuffle=False, verbose=0)
        found.append(model.get_weights())
    assert problems.largest_difference(*found) < 1e-5
