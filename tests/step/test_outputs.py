"""Whatever a model may take and give, stock Keras trains it, and so do we."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import tf_gnc
from tests import problems

M = 4


# Stock Keras, one worker and M workers.
RUNS = (
    (keras.Model, {}),
    (tf_gnc.GNCModel, {"num_workers": 1}),
    (tf_gnc.GNCModel, {"num_workers": M}),
)


def _histories(make, *data, runs=RUNS, **compile_args):
    """What `fit` reports in each run."""
    results = []
    for model_class, arguments in runs:
        keras.utils.set_random_seed(1)
        model = make(model_class)
        model.compile(
            **{"optimizer": problems.sgd(), **compile_args}, **arguments
        )
        results.append(
            model.fit(*data, batch_size=16, shuffle=False, verbose=0).history
        )
    return results


def _masked(model_class):
    inputs = keras.Input((6,), dtype="int32")
    h = keras.layers.Embedding(9, 4, mask_zero=True)(inputs)
    h = keras.layers.SimpleRNN(5, return_sequences=True)(h)
    return model_class(inputs, keras.layers.Dense(3)(h))


def test_masks__of_padded_sequences__metrics_are_stock_keras():
    rng = np.random.default_rng(0)
    x = rng.integers(1, 9, (32, 6))
    x[::2, 3:] = 0  # padding; each worker's rows have the same share of it
    y = rng.integers(0, 3, (32, 6))
    stock, one, many = _histories(
        _masked,
        x,
        y,
        loss=problems.cross_entropy(),
        metrics=["accuracy"],
    )
    assert one == stock
    np.testing.assert_allclose(many["accuracy"], stock["accuracy"], rtol=1e-6)
    (unmasked,) = _histories(
        _masked,
        np.maximum(x, 1),
        y,
        runs=RUNS[:1],
        loss=problems.cross_entropy(),
        metrics=["accuracy"],
    )
    assert unmasked["accuracy"] != stock["accuracy"]


class _WithNone(keras.Model):
    def __init__(self):
        super().__init__()
        self.dense = keras.layers.Dense(1)

    def call(self, x):
        return {"a": self.dense(x), "b": None}


class _WithNoneGNC(tf_gnc.GNCTrainStep, _WithNone):
    pass


class _WithScalar(_WithNone):
    def call(self, x):
        y = self.dense(x)
        return {"a": y, "penalty": keras.ops.mean(y**2)}


class _WithScalarGNC(tf_gnc.GNCTrainStep, _WithScalar):
    pass


@pytest.mark.parametrize(
    ("stock", "ours"),
    [(_WithNone, _WithNoneGNC), (_WithScalar, _WithScalarGNC)],
)
def test_outputs__none_or_a_number__same_loss_as_stock_keras(stock, ours):
    x, y = problems.images(32)
    x = x.reshape(32, -1)
    seen = []

    class Loss:
        def compute_loss(
            self, x=None, y=None, y_pred=None, sample_weight=None, training=True
        ):
            return keras.ops.mean((y_pred["a"] - y) ** 2)

        def compute_metrics(self, x, y, y_pred, sample_weight=None):
            seen.append({k: v is None for k, v in y_pred.items()})
            return {"loss": self._loss_tracker.result()}

    losses = []
    for base, arguments in ((stock, {}), (ours, {"num_workers": M})):
        keras.utils.set_random_seed(1)
        model = type("Model", (Loss, base), {})()
        model.compile(problems.sgd(), **arguments)
        losses.append(
            model.fit(
                x,
                y[:, None].astype("float32"),
                batch_size=16,
                verbose=0,
                shuffle=False,
            ).history["loss"]
        )
    np.testing.assert_allclose(losses[0], losses[1], rtol=1e-5)
    assert len(seen) >= 2 and len(seen[0]) == 2
    assert all(outputs == seen[0] for outputs in seen)


def test_inputs__sparse__trains_as_dense():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(32, 5)) * (rng.random((32, 5)) > 0.6)
    y = rng.normal(size=(32, 1))

    def weights(features):
        keras.utils.set_random_seed(1)
        inputs = keras.Input((5,), sparse=not isinstance(features, np.ndarray))
        model = tf_gnc.GNCModel(inputs, keras.layers.Dense(1)(inputs))
        model.compile(problems.sgd(), "mse", num_workers=M)
        data = tf.data.Dataset.from_tensor_slices((features, y)).batch(16)
        model.fit(data, verbose=0)
        return model.get_weights()

    sparse = tf.sparse.from_dense(x.astype("float32"))
    difference = problems.largest_difference(
        weights(x.astype("float32")), weights(sparse)
    )
    assert difference < 1e-6


@pytest.mark.parametrize("metrics", [None, ["mae"]])
def test_fit__uneven_batch_with_metrics__error_with_the_numbers(metrics):
    inputs = keras.Input((3,))
    model = tf_gnc.GNCModel(inputs, keras.layers.Dense(1)(inputs))
    model.compile("sgd", "mse", metrics=metrics, num_workers=M)
    x = np.ones((62, 3), "float32")
    data = tf.data.Dataset.from_tensor_slices((x, x[:, :1])).batch(32)
    with pytest.raises(ValueError, match="30 rows for 4 workers"):
        model.fit(data, verbose=0)


def test_fit__uneven_batch_within_a_call_of_many_steps__stops_there():
    inputs = keras.Input((3,))
    model = tf_gnc.GNCModel(inputs, keras.layers.Dense(1)(inputs))
    model.compile("sgd", "mse", num_workers=M, steps_per_execution=4)
    x = np.ones((8, 3), "float32")
    sizes = [8, 6, 8, 8]

    def batches():
        for size in sizes:
            yield x[:size], x[:size, :1]

    data = tf.data.Dataset.from_generator(
        batches,
        output_signature=(
            tf.TensorSpec([None, 3]),
            tf.TensorSpec([None, 1]),
        ),
    )
    with pytest.raises(ValueError, match="step 1 .*6 rows for 4 workers"):
        model.fit(data, verbose=0)
    assert int(model.optimizer.iterations.numpy()) == 1


def test_fit__no_rows__as_stock_keras():
    model = problems.plain_network()
    model.compile("sgd", problems.cross_entropy(), num_workers=M)
    x, y = problems.images(4)
    model.fit(x[:0], y[:0], verbose=0)


def test_frozen_weights__in_a_backbone__stay_out_of_the_sums():
    inputs = keras.Input((4,))
    backbone = keras.layers.Dense(50, trainable=False)
    h = keras.layers.BatchNormalization()(backbone(inputs))
    model = tf_gnc.GNCModel(inputs, keras.layers.Dense(1)(h))
    model.compile("sgd", "mse", num_workers=M)
    sizes = []
    from tf_gnc.step import model_state

    class Recorded(model_state.ModelState):
        def keep(self, scope):
            super().keep(scope)
            sizes.append(self.layout.size)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tf_gnc.step.train_step.ModelState", Recorded)
        x = np.ones((8, 4), "float32")
        model.fit(x, x[:, :1], batch_size=8, verbose=0)
    assert set(sizes) == {2 * 50}  # BatchNorm's statistics alone


def test_attributes__users_own_alpha_and_noise__are_left_alone():
    class Mine(tf_gnc.GNCTrainStep, keras.Model):
        def __init__(self):
            super().__init__()
            self.alpha = 0.3
            self.noise = keras.layers.GaussianNoise(0.1)
            self.outputs = keras.layers.Dense(1)

        def call(self, x):
            return self.outputs(self.noise(x)) * self.alpha

    model = Mine()
    model.compile(
        "sgd", "mse", noise=tf_gnc.GradientNoise(alpha=0.1), num_workers=M
    )
    x = np.ones((8, 4), "float32")
    model.fit(x, x[:, :1], batch_size=8, verbose=0)
    assert model.alpha == 0.3
    assert model.noise_alpha == 0.1
    assert model.noise_rule.alpha == 0.1
