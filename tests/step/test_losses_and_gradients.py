"""Losses, weights of examples, clipping and mixed precision in the step."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import tf_gnc
from tests import problems

M = 4


def _linear(model_class=tf_gnc.GNCModel, **dense):
    inputs = keras.Input((2,))
    layer = keras.layers.Dense(
        1, use_bias=False, kernel_initializer="ones", **dense
    )
    return model_class(inputs, layer(inputs))


def _numbers(num_examples=16):
    rng = np.random.default_rng(2)
    x = rng.normal(size=(num_examples, 2)).astype("float32")
    return x, x @ np.array([[0.5], [-1.0]], "float32")


def _one_step(model, x, y, fit=None, **compile_args):
    """The kernel after one step of plain gradient descent with rate 1."""
    arguments = {"optimizer": keras.optimizers.SGD(1.0), "loss": "mse"}
    problems.trained(
        model,
        x,
        y,
        epochs=1,
        batch_size=len(x),
        num_workers=M,
        fit=fit,
        **{**arguments, **compile_args},
    )
    return model.get_weights()[0].astype("float64")


def _mse_gradient(x, y, weight=1.0):
    """Sum of weighted squared errors over the number of rows, at ones."""
    x, y = x.astype("float64"), y.astype("float64")
    error = x @ np.ones((2, 1)) - y
    return 2 * x.T @ (weight * error) / len(x)


@pytest.mark.parametrize("replicas", [1, 2])
def test_loss__regularization__enters_once(replicas):
    x, y = _numbers()
    with problems.mirrored(replicas):
        model = _linear(kernel_regularizer=keras.regularizers.L2(0.1))
        kernel = _one_step(model, x, y)
    expected = 1 - _mse_gradient(x, y) - 2 * 0.1  # of 0.1 * sum(w**2), w = 1
    np.testing.assert_allclose(kernel, expected, rtol=1e-5)


def test_loss__regularization__is_taken_at_the_displaced_weights():
    # Loss 0 * (...) + w**2 at x_i: with scaling "none" and two workers of
    # opposite noise the mean gradient is that at w, but each remembered
    # gradient is 2 * x_i, so the memory shows where it was taken.
    x = np.array([[1.0], [-1.0]], "float32")
    inputs = keras.Input((1,))
    layer = keras.layers.Dense(
        1,
        use_bias=False,
        kernel_initializer="ones",
        kernel_regularizer=keras.regularizers.L2(1.0),
    )
    model = tf_gnc.GNCModel(inputs, layer(inputs))
    model.compile(
        keras.optimizers.SGD(0.1),
        lambda y, y_pred: keras.ops.mean(y_pred * y, axis=-1),
        noise=tf_gnc.GradientNoise(alpha=1.0, scaling="none"),
        num_workers=2,
    )
    y = np.array([[3.0], [1.0]], "float32")  # slopes x*y: 3 and -1
    model.fit(x, y, batch_size=2, epochs=1, shuffle=False, verbose=0)
    # g = (3 + 2, -1 + 2) at w = 1, mean 3, noise (2, -2), w = 1 - 0.3 = 0.7
    rows, mean = problems.memory(model)
    np.testing.assert_allclose(rows[:, 0], [5, 1], rtol=1e-6)
    np.testing.assert_allclose(mean, [3], rtol=1e-6)
    model.fit(x, y, batch_size=2, epochs=1, shuffle=False, verbose=0)
    # x_i = 0.7 -+ 0.1 * 2 = 0.5, 0.9; g = (3 + 1.0, -1 + 1.8)
    rows, _ = problems.memory(model)
    np.testing.assert_allclose(rows[:, 0], [4.0, 0.8], rtol=1e-6)


def test_loss__sample_weight__weighs_rows_as_stock_keras():
    x, y = _numbers()
    weight = np.linspace(0, 3, len(x)).astype("float32")
    kernel = _one_step(_linear(), x, y, fit={"sample_weight": weight})
    expected = 1 - _mse_gradient(x, y, weight[:, None])
    np.testing.assert_allclose(kernel, expected, rtol=1e-5)


def test_loss__class_weight__weighs_rows_as_stock_keras():
    x, y = problems.images()

    def weights(model_class, **arguments):
        model, _ = problems.trained(
            problems.plain_network(model_class),
            x,
            y,
            fit={"class_weight": {0: 0.2, 1: 1.0, 2: 3.0}},
            **arguments,
        )
        return model.get_weights()

    stock = weights(keras.Model)
    ours = weights(tf_gnc.GNCModel, num_workers=M)
    assert problems.largest_difference(stock, ours) < 1e-5


def test_loss__weight_without_influence__is_left_alone():
    inputs = keras.Input((2,))
    used = keras.layers.Dense(1, kernel_initializer="ones")
    unused = keras.layers.Dense(1, kernel_initializer="ones")
    model = tf_gnc.GNCModel(inputs, [used(inputs), unused(inputs)])
    x, y = _numbers()
    model.compile(
        keras.optimizers.SGD(1.0, weight_decay=0.5),
        ["mse", None],
        noise=tf_gnc.GradientNoise(alpha=0.1),
        num_workers=M,
    )
    with pytest.warns(UserWarning, match="Gradients do not exist"):
        model.fit(x, [y, y], batch_size=16, verbose=0)
    np.testing.assert_array_equal(unused.kernel.numpy(), np.ones((2, 1)))
    assert np.abs(used.kernel.numpy() - 1).max() > 0.1


@pytest.mark.parametrize(
    ("clip", "replicas"),
    [
        ({"clipnorm": 0.1}, 1),
        ({"clipnorm": 0.1}, 2),
        ({"global_clipnorm": 0.1}, 2),
        ({"clipvalue": 0.05}, 2),
    ],
)
def test_clipping__workers_that_disagree__clips_the_mean(clip, replicas):
    # Two workers' gradients are far above the bound and nearly cancel.
    # Clipped one by one they would cancel to another mean.
    slopes = np.array([[10.0], [10.0], [-9.9], [-9.9]], "float32")
    x = np.ones((4, 1), "float32")
    with problems.mirrored(replicas):
        inputs = keras.Input((1,))
        layer = keras.layers.Dense(1, use_bias=False, kernel_initializer="ones")
        model = tf_gnc.GNCModel(inputs, layer(inputs))
        model.compile(
            keras.optimizers.SGD(1.0, **clip),
            lambda y, y_pred: keras.ops.mean(y * y_pred, axis=-1),
            num_workers=2,
        )
        model.fit(x, slopes, batch_size=4, shuffle=False, verbose=0)
    mean = 0.05
    bound = next(iter(clip.values()))
    expected = 1 - min(mean, bound)
    np.testing.assert_allclose(layer.kernel.numpy(), expected, rtol=1e-5)


def _embedding_model(model_class):
    keras.utils.set_random_seed(1)
    inputs = keras.Input((3,), dtype="int32")
    h = keras.layers.Flatten()(keras.layers.Embedding(10, 4)(inputs))
    return model_class(inputs, keras.layers.Dense(1)(h))


def test_gradient__sparse_rows_of_an_embedding__as_stock_keras():
    rng = np.random.default_rng(0)
    x, y = rng.integers(0, 10, (16, 3)), rng.normal(size=(16, 1))
    runs = [
        problems.trained(
            _embedding_model(model_class), x, y, loss="mse", **arguments
        )[0].get_weights()
        for model_class, arguments in (
            (keras.Model, {}),
            (tf_gnc.GNCModel, {"num_workers": M}),
        )
    ]
    assert problems.largest_difference(*runs) < 1e-5


# Mixed precision.


def test_mixed_bfloat16__noise__is_kept_in_float32():
    keras.config.set_dtype_policy("mixed_bfloat16")
    x, y = problems.images()
    model, history = problems.trained(
        problems.full_network(),
        x,
        y,
        noise=tf_gnc.GradientNoise(alpha=1.0),
        num_workers=M,
    )
    assert model.step_plan.memory.gradients.dtype == tf.float32
    assert np.isfinite(history["loss"]).all()


def test_noise_dtype__bfloat16__rounds_what_is_remembered_and_no_more():
    x, y = problems.images(16)
    rows = {}
    for dtype in ("float32", "bfloat16"):
        model, _ = problems.trained(
            problems.plain_network(),
            x,
            y,
            epochs=1,
            noise=tf_gnc.GradientNoise(alpha=1.0, noise_dtype=dtype),
            num_workers=M,
        )
        rows[dtype], mean = problems.memory(model)
    assert rows["bfloat16"].dtype == tf.bfloat16.as_numpy_dtype
    np.testing.assert_array_equal(
        rows["bfloat16"],
        tf.cast(rows["float32"], "bfloat16").numpy(),
    )


def _float16_model(initial_scale):
    keras.config.set_dtype_policy("mixed_float16")
    x, y = problems.images()
    model = problems.plain_network()
    optimizer = keras.optimizers.LossScaleOptimizer(
        keras.optimizers.SGD(0.1), initial_scale=initial_scale
    )
    model.compile(
        optimizer,
        problems.cross_entropy(),
        noise=tf_gnc.GradientNoise(alpha=1.0),
        num_workers=M,
    )
    return model, x, y


def test_mixed_float16__compile__scales_the_loss_by_itself():
    keras.config.set_dtype_policy("mixed_float16")
    model = problems.plain_network()
    model.compile(
        problems.sgd(),
        problems.cross_entropy(),
        noise=tf_gnc.GradientNoise(alpha=1.0),
        num_workers=M,
    )
    assert isinstance(model.optimizer, keras.optimizers.LossScaleOptimizer)


def test_mixed_float16__any_loss_scale__same_noise():
    rows = []
    for scale in (2.0**4, 2.0**8):
        model, x, y = _float16_model(scale)
        model.fit(x, y, batch_size=16, shuffle=False, verbose=0)
        memory = model.step_plan.memory
        half = int(memory.half.numpy())
        rows.append(memory.gradients.numpy()[half * M : half * M + M])
    assert np.abs(rows[0]).max() > 1e-3
    # float16 carries 11 bits; scaling by powers of two changes none of them
    # but in subnormal numbers, below 6e-5 before unscaling.
    np.testing.assert_allclose(rows[0], rows[1], rtol=2**-10, atol=6e-5 / 16)


@pytest.mark.parametrize("replicas", [1, 2])
def test_mixed_float16__overflow__changes_neither_weights_nor_noise(replicas):
    with problems.mirrored(replicas):
        model, x, y = _float16_model(2.0**6)
        model.fit(x, y, batch_size=16, shuffle=False, verbose=0)
        memory, optimizer = model.step_plan.memory, model.optimizer
        strategy = model.distribute_strategy

        def remembered():
            halves = strategy.experimental_local_results(memory.half)
            gradients = strategy.experimental_local_results(memory.gradients)
            size = model.step_plan.per_replica
            return [
                g.numpy()[int(h) * size : (int(h) + 1) * size]
                for h, g in zip(halves, gradients, strict=True)
            ]

        before, noise = model.get_weights(), remembered()
        scale = float(optimizer.dynamic_scale.numpy())
        bad = x.copy()
        bad[5] = 1e4  # one row of one worker: its gradient overflows
        optimizer.dynamic_scale.assign(2.0**20)
        model.fit(bad[:16], y[:16], batch_size=16, shuffle=False, verbose=0)
        assert float(optimizer.dynamic_scale.numpy()) == 2.0**19
        for a, b in zip(before, model.get_weights(), strict=True):
            np.testing.assert_array_equal(a, b)
        for a, b in zip(noise, remembered(), strict=True):
            np.testing.assert_array_equal(a, b)
        # Twin: without an overflow the same step changes both.
        optimizer.dynamic_scale.assign(scale)
        model.fit(x[:16], y[:16], batch_size=16, shuffle=False, verbose=0)
        assert problems.largest_difference(before, model.get_weights()) > 1e-4
        assert np.abs(noise[0] - remembered()[0]).max() > 1e-4


# Gradients that aren't finite.


def test_train_step__worker_with_nan__error_names_it_and_nothing_is_lost():
    x, y = problems.images(48)
    bad = x.copy()
    bad[16 + 9] = np.nan  # second step, rows 8 to 11: worker 2
    model, _ = problems.trained(
        problems.full_network(),
        x[:16],
        y[:16],
        epochs=1,
        noise=tf_gnc.GradientNoise(alpha=1.0),
        num_workers=M,
    )
    kept = problems.float_weights(model)
    with pytest.raises(FloatingPointError, match="worker 2 .of 4.*step 1"):
        model.fit(bad[16:32], y[:16], batch_size=16, shuffle=False, verbose=0)
    for a, b in zip(kept, problems.float_weights(model), strict=True):
        np.testing.assert_array_equal(a, b)
    rows, mean = problems.memory(model)
    assert not rows.any() and not mean.any()
    model.fit(x, y, batch_size=16, shuffle=False, verbose=0)  # goes on
    assert all(np.isfinite(w).all() for w in model.get_weights())


@pytest.mark.parametrize("arguments", [{"steps_per_execution": 2}, {}])
def test_train_step__nan_on_one_of_two_replicas__stops_both(arguments):
    x, y = problems.images(32)
    x[13] = np.nan  # first step, rows 12 to 15: worker 3
    with problems.mirrored(2):
        model = problems.full_network()
        kept = problems.float_weights(model)
        with pytest.raises(FloatingPointError, match="worker 3 .of 4.*step 0"):
            problems.trained(
                model,
                x,
                y,
                epochs=1,
                noise=tf_gnc.GradientNoise(alpha=1.0),
                num_workers=M,
                **arguments,
            )
    if not arguments:
        for a, b in zip(kept, problems.float_weights(model), strict=True):
            np.testing.assert_array_equal(a, b)


def test_train_step__nan_without_memory__goes_on_as_stock_keras():
    x, y = problems.images(16)
    x[3] = np.nan
    _, history = problems.trained(
        problems.full_network(), x, y, epochs=1, num_workers=M
    )
    assert np.isnan(history["loss"]).all()
