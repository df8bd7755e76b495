"""Batch normalization's statistics against those of all rows at once."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import tf_gnc
from tests import problems
from tf_gnc import GradientNoise, recalibrate_batch_norm
from tf_gnc.callbacks import RecalibrateBatchNorm

X = np.random.default_rng(0).normal(2.0, 3.0, (60, 5)).astype("float32")


def _first_layer_normalizes(layer=None):
    """The inputs' own statistics are what must be found."""
    keras.utils.set_random_seed(1)
    inputs = keras.Input((5,))
    norm = layer or keras.layers.BatchNormalization()
    hidden = keras.layers.Dropout(0.5)(norm(inputs))
    return tf_gnc.GNCModel(inputs, keras.layers.Dense(3)(hidden)), norm


def _statistics(layer):
    return layer.moving_mean.numpy(), layer.moving_variance.numpy()


@pytest.mark.parametrize("cuts", [[60], [20, 40], [7, 30, 45]])
def test_recalibrate__batches_however_cut__are_all_rows_at_once(cuts):
    model, norm = _first_layer_normalizes()
    others = [w.numpy() for w in model.trainable_variables]
    batches = [(rows, None) for rows in np.split(X, cuts) if len(rows)]
    recalibrate_batch_norm(model, batches)
    mean, variance = _statistics(norm)
    np.testing.assert_allclose(mean, X.mean(0), rtol=1e-5)
    np.testing.assert_allclose(variance, X.var(0), rtol=1e-5)
    assert norm.momentum == 0.99
    for a, b in zip(others, model.trainable_variables, strict=True):
        assert (a == b.numpy()).all()


def test_recalibrate__statistics_that_are_not_numbers__are_mended():
    model, norm = _first_layer_normalizes()
    norm.moving_mean.assign([np.nan] * 5)
    norm.moving_variance.assign([np.inf] * 5)
    recalibrate_batch_norm(model, [X])
    np.testing.assert_allclose(_statistics(norm)[0], X.mean(0), rtol=1e-5)
    np.testing.assert_allclose(_statistics(norm)[1], X.var(0), rtol=1e-5)


def test_recalibrate__layer_that_is_not_called__keeps_what_it_has():
    class Half(keras.Model):
        def __init__(self):
            super().__init__()
            self.used = keras.layers.BatchNormalization()
            self.unused = keras.layers.BatchNormalization()
            self.unused.build((None, 5))

        def call(self, x, training=False):
            return self.used(x, training=training)

    model = Half()
    model(X)
    model.unused.moving_mean.assign([3.0] * 5)
    recalibrate_batch_norm(model, [X])
    np.testing.assert_allclose(_statistics(model.used)[0], X.mean(0), rtol=1e-5)
    np.testing.assert_allclose(_statistics(model.unused)[0], 3.0)
    np.testing.assert_allclose(_statistics(model.unused)[1], 1.0)


def test_recalibrate__second_layer__has_what_it_is_given_in_training():
    """One batch: the statistics of what the layers before make of it."""
    inputs = keras.Input((5,))
    h = keras.layers.BatchNormalization()(inputs)
    h = keras.layers.Dense(4, "tanh")(h)
    last = keras.layers.BatchNormalization()
    model = keras.Model(inputs, last(h))
    recalibrate_batch_norm(model, [X])
    first, dense = model.layers[1], model.layers[2]
    epsilon = first.epsilon
    normal = (X - X.mean(0)) / np.sqrt(X.var(0) + epsilon)
    given = np.tanh(normal @ dense.kernel.numpy() + dense.bias.numpy())
    mean, variance = _statistics(last)
    np.testing.assert_allclose(mean, given.mean(0), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(variance, given.var(0), rtol=1e-4)


def test_recalibrate__steps_of_an_endless_data_set__are_its_first_batches():
    model, norm = _first_layer_normalizes()
    endless = tf.data.Dataset.from_tensor_slices(X).batch(10).repeat()
    recalibrate_batch_norm(model, endless, steps=2)
    np.testing.assert_allclose(_statistics(norm)[0], X[:20].mean(0), rtol=1e-5)
    with pytest.raises(ValueError, match="`steps` must be given"):
        recalibrate_batch_norm(model, endless)


def test_recalibrate__pictures_on_the_fused_layer_on_two_replicas__the_same():
    pictures, _ = problems.images(24)
    with problems.mirrored(2):
        inputs = keras.Input(pictures.shape[1:])
        norm = tf_gnc.layers.BatchNormalization()
        model = tf_gnc.GNCModel(inputs, norm(inputs))
    recalibrate_batch_norm(model, [pictures[:8], pictures[8:]])
    rows = pictures.reshape(-1, pictures.shape[-1])
    for value in (norm.moving_mean, norm.moving_variance):
        copies = model.distribute_strategy.experimental_local_results(
            value.value
        )
        assert len({c.numpy().tobytes() for c in copies}) == 1
    mean, variance = _statistics(norm)
    np.testing.assert_allclose(mean, rows.mean(0), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(variance, rows.var(0), rtol=1e-5)


def test_recalibrate__frozen_layer_or_none__is_refused_or_left_alone():
    model, norm = _first_layer_normalizes()
    norm.trainable = False
    with pytest.raises(ValueError, match="no keras.layers.BatchNormalization"):
        recalibrate_batch_norm(model, [X])
    assert (_statistics(norm)[0] == 0).all()
    norm.trainable = True
    with pytest.raises(ValueError, match="at least, got none"):
        recalibrate_batch_norm(model, [])
    unbuilt = keras.Sequential([keras.layers.BatchNormalization()])
    with pytest.raises(ValueError, match="need a built model"):
        recalibrate_batch_norm(unbuilt, [X])


@pytest.mark.parametrize(
    ("dataset", "steps", "message"),
    [
        (X, None, "must yield batches, got ndarray"),
        ((X, X), None, "must yield batches, got tuple"),
        ({"x": X}, None, "must yield batches, got dict"),
        ([X, X], 3, "got steps=3 with 2 batches"),
    ],
)
def test_recalibrate__no_batches_or_too_few__are_refused(
    dataset, steps, message
):
    model, norm = _first_layer_normalizes()
    with pytest.raises(ValueError, match=message):
        recalibrate_batch_norm(model, dataset, steps)
    assert (_statistics(norm)[0] == 0).all()


def test_recalibrate__call_that_fails__leaves_momentum_and_statistics():
    model, norm = _first_layer_normalizes()
    with pytest.raises(Exception, match="shape|rank|compatible"):
        recalibrate_batch_norm(model, [X, X[:, :3]])
    assert norm.momentum == 0.99
    assert (_statistics(norm)[0] == 0).all()


def test_callback__fit_with_validation__sees_those_statistics_and_trains_on():
    """Weights are those of a run without it; validation is another."""

    def run(callbacks):
        model, norm = _first_layer_normalizes()
        model.compile(
            problems.sgd(), problems.cross_entropy(),
            noise=GradientNoise(0.1), num_workers=4,
        )  # fmt: skip
        y = np.arange(60) % 3
        history = model.fit(
            X, y, batch_size=20, epochs=2, shuffle=False, verbose=0,
            validation_data=(X, y), callbacks=callbacks,
        )  # fmt: skip
        return model, norm, history.history, y

    batches = tf.data.Dataset.from_tensor_slices(X).batch(30)
    ours, norm, seen, y = run([RecalibrateBatchNorm(batches)])
    plain, _, unseen, _ = run([])
    for a, b in zip(
        ours.trainable_variables, plain.trainable_variables, strict=True
    ):
        assert (a.numpy() == b.numpy()).all()
    np.testing.assert_allclose(_statistics(norm)[0], X.mean(0), rtol=1e-5)
    assert seen["loss"] == unseen["loss"]
    assert seen["val_loss"] != unseen["val_loss"]
    assert seen["val_loss"][-1] == pytest.approx(
        ours.evaluate(X, y, verbose=0), rel=1e-5
    )
