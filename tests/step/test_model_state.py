"""What workers do to moving statistics, seeds, metrics and other state."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import tf_gnc
from tests import problems
from tf_gnc import _keras_compat
from tf_gnc.step.control import control_of

M = 4


def _fit_one_step(model, x, y, **compile_args):
    return problems.trained(
        model, x, y, epochs=1, batch_size=len(x), num_workers=M, **compile_args
    )


def _normalised(model_class=tf_gnc.GNCModel, **arguments):
    inputs = keras.Input((2,))
    norm = keras.layers.BatchNormalization(momentum=0.9, **arguments)
    return model_class(inputs, norm(inputs)), norm


@pytest.mark.parametrize("replicas", [1, 2])
def test_moving_statistics__one_step__are_the_mean_of_the_workers_updates(
    replicas,
):
    rng = np.random.default_rng(0)
    x = rng.normal(3, 2, size=(16, 2)).astype("float32")
    with problems.mirrored(replicas):
        model, norm = _normalised()
        _fit_one_step(model, x, x, loss="mse")
    rows = x.astype("float64").reshape(M, 4, 2)
    mean = 0.1 * rows.mean(axis=1).mean(axis=0)
    variance = 0.9 + 0.1 * rows.var(axis=1).mean(axis=0)
    # Far from what one worker with all rows would have made of the variance.
    assert np.abs(rows.var(axis=1).mean(axis=0) - x.var(axis=0)).max() > 0.1
    for value, expected in (
        (norm.moving_mean, mean),
        (norm.moving_variance, variance),
    ):
        strategy = model.distribute_strategy
        for held in strategy.experimental_local_results(value.value):
            np.testing.assert_allclose(held.numpy(), expected, rtol=1e-5)


def test_moving_statistics__frozen_layer__stay():
    x, _ = problems.images(16)
    x = x.reshape(16, -1)[:, :2]
    model, norm = _normalised()
    norm.trainable = False
    inputs = model.inputs[0]
    model = tf_gnc.GNCModel(inputs, keras.layers.Dense(1)(model.outputs[0]))
    _fit_one_step(model, x, x[:, :1], loss="mse")
    np.testing.assert_array_equal(norm.moving_mean.numpy(), [0, 0])
    np.testing.assert_array_equal(norm.moving_variance.numpy(), [1, 1])


class _Masks(keras.layers.Layer):
    """Adds a random number to each row, and so shows what it drew."""

    def __init__(self, seed=None):
        super().__init__()
        self.generator = None
        if seed is not None:
            self.generator = keras.random.SeedGenerator(seed)
        self.gain = self.add_weight(shape=(), initializer="ones")

    def call(self, x):
        draw = keras.random.uniform(keras.ops.shape(x), seed=self.generator)
        return self.gain * x + draw


class _Recorder(keras.metrics.Metric):
    """Keeps all predictions of the last step."""

    def __init__(self, size):
        super().__init__(name="recorder")
        self.seen = self.add_variable((size, 1), "zeros", name="seen")

    def update_state(self, y_true, y_pred, sample_weight=None):
        self.seen.assign(tf.reshape(y_pred, self.seen.shape))

    def result(self):
        return tf.reduce_sum(self.seen)


def _draws(layer, steps, num_workers, replicas=1, rows=8):
    """What each row was given in each step: (steps, rows)."""
    x = np.zeros((rows, 1), "float32")
    with problems.mirrored(replicas):
        inputs = keras.Input((1,))
        model = tf_gnc.GNCModel(inputs, layer()(inputs))
        recorder = _Recorder(rows // replicas)
        model.compile("sgd", "mse", metrics=[recorder], num_workers=num_workers)
    result = []
    strategy = model.distribute_strategy
    for _ in range(steps):
        data = tf.data.Dataset.from_tensors((x, x))
        model.fit(data, verbose=0)
        seen = strategy.experimental_local_results(recorder.seen.value)
        result.append(np.concatenate([s.numpy()[:, 0] for s in seen]))
    return np.stack(result)


def test_seeds__every_worker__draws_its_own_and_anew_in_each_step():
    draws = _draws(lambda: _Masks(seed=5), steps=3, num_workers=M)
    assert len(np.unique(draws)) == draws.size


def test_seeds__worker_0__draws_what_stock_keras_draws():
    draws = _draws(lambda: _Masks(seed=5), steps=2, num_workers=M)
    generator = keras.random.SeedGenerator(5)
    for step in draws:
        expected = keras.random.uniform((2, 1), seed=generator)
        np.testing.assert_array_equal(step[:2], expected.numpy()[:, 0])


def test_seeds__on_two_replicas__are_those_of_one():
    one = _draws(lambda: _Masks(seed=5), steps=2, num_workers=M)
    two = _draws(lambda: _Masks(seed=5), steps=2, num_workers=M, replicas=2)
    np.testing.assert_array_equal(one, two)


def test_seeds__layer_without_seed__still_draws_anew():
    keras.utils.set_random_seed(3)
    draws = _draws(_Masks, steps=3, num_workers=M)
    assert len(np.unique(draws)) == draws.size


def test_seeds__layer_without_seed_one_worker__is_stock_keras():
    def states(model_class, **arguments):
        _keras_compat.set_random_seed(3)
        inputs = keras.Input((1,))
        h = _Masks()(_Masks()(inputs))  # two draws a step
        model = model_class(inputs, keras.layers.Dense(1)(h))
        model.compile("sgd", "mse", **arguments)
        # Else the step would be handed to Keras.
        if arguments:
            control_of(model).keeps_table = True
        x = np.ones((8, 1), "float32")
        model.fit(x, x, batch_size=8, epochs=3, verbose=0)
        return model.get_weights()

    stock = states(keras.Model)
    ours = states(tf_gnc.GNCModel, num_workers=1)
    for a, b in zip(stock, ours, strict=True):
        np.testing.assert_array_equal(a, b)


def test_dropout__state__advances_once_a_step():
    def counter(num_workers):
        x, y = problems.images(32)
        model, _ = problems.trained(
            problems.full_network(), x, y, epochs=3, num_workers=num_workers
        )
        return [
            v.numpy() for v in model.variables if "seed_generator" in v.path
        ]

    np.testing.assert_array_equal(counter(1), counter(8))


class _Counting(keras.layers.Layer):
    """Counts its calls in an integer variable."""

    def __init__(self):
        super().__init__()
        self.calls = self.add_weight(
            shape=(), dtype="int32", initializer="zeros", trainable=False
        )
        self.gain = self.add_weight(shape=(), initializer="ones")

    def call(self, x):
        self.calls.assign_add(1)
        return self.gain * x


def test_other_state__integer_counter__advances_once_a_step():
    inputs = keras.Input((1,))
    layer = _Counting()
    model = tf_gnc.GNCModel(inputs, layer(inputs))
    before = int(layer.calls.numpy())
    x = np.ones((8, 1), "float32")
    model.compile("sgd", "mse", num_workers=M)
    model.fit(x, x, batch_size=8, epochs=3, verbose=0)
    assert int(layer.calls.numpy()) - before == 3


class OwnLoss(tf_gnc.GNCModel):
    """A user's own loss, with a metric of its own that it updates."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.mine = keras.metrics.Mean(name="mine")
        self.largest = _Largest()

    def compute_loss(
        self, x=None, y=None, y_pred=None, sample_weight=None, training=True
    ):
        loss = keras.ops.mean(keras.ops.abs(y - y_pred))
        self.mine.update_state(loss)
        self.largest.update_state(y, y_pred)
        return loss


class _Largest(keras.metrics.Metric):
    """The largest label: a state that isn't a sum."""

    def __init__(self):
        super().__init__(name="largest")
        self.value = self.add_variable((), "zeros", name="value")

    def update_state(self, y_true, y_pred, sample_weight=None):
        self.value.assign(tf.maximum(self.value, tf.reduce_max(y_true)))

    def result(self):
        return self.value


def test_metrics__updated_by_the_users_own_loss__see_every_worker():
    inputs = keras.Input((1,))
    model = OwnLoss(inputs, keras.layers.Dense(1)(inputs))
    x = np.arange(8, dtype="float32")[:, None]
    y = np.array([[1], [2], [9], [4], [5], [6], [7], [8]], "float32")
    expected = np.abs(y - model.predict(x, verbose=0)).mean()
    model.compile("sgd", num_workers=M)
    history = model.fit(x, y, batch_size=8, verbose=0).history
    np.testing.assert_allclose(history["mine"], [expected], rtol=1e-6)
    np.testing.assert_allclose(history["loss"], [expected], rtol=1e-6)
    assert history["largest"] == [9]


def test_metrics__several_outputs__per_output_losses_are_stock_keras():
    x, y = problems.images(32)
    targets = {"a": y, "b": x[:, 0, 0]}

    def history(model_class, **arguments):
        keras.utils.set_random_seed(1)
        inputs = {"image": keras.Input(problems.SHAPE), "n": keras.Input((1,))}
        h = keras.layers.Flatten()(inputs["image"])
        h = keras.layers.Concatenate()([h, inputs["n"]])
        outputs = {
            "a": keras.layers.Dense(3, name="a")(h),
            "b": keras.layers.Dense(1, name="b")(h),
        }
        model = model_class(inputs, outputs)
        model.compile(
            "sgd",
            {"a": problems.cross_entropy(), "b": "mse"},
            loss_weights={"a": 1.0, "b": 0.5},
            metrics={"a": "accuracy", "b": "mae"},
            **arguments,
        )
        n = np.arange(32, dtype="float32")[:, None] / 32
        return model.fit(
            {"image": x, "n": n},
            targets,
            batch_size=16,
            epochs=2,
            shuffle=False,
            verbose=0,
        ).history

    stock = history(keras.Model)
    ours = history(tf_gnc.GNCModel, num_workers=M)
    assert stock.keys() == ours.keys()
    assert len(stock) == 5  # loss, a_loss, b_loss, accuracy, mae
    for name, values in stock.items():
        np.testing.assert_allclose(ours[name], values, rtol=1e-5, err_msg=name)
