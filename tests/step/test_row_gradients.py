"""Embeddings: gradients by rows, and steps that are stock Keras's."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import tf_gnc
from tests import problems
from tf_gnc.step.control import control_of

WORDS, TABLE = 50, (50, 4)


class Watched(keras.optimizers.SGD):
    """Notes the gradients that it is given, by the variable's name."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.seen = {}

    def update_step(self, gradient, variable, learning_rate):
        self.seen[variable.name.split("/")[-1].split(":")[0]] = gradient
        super().update_step(gradient, variable, learning_rate)


def _data(rows=16):
    rng = np.random.default_rng(0)
    # Of few words, so that workers look up the same ones.
    return rng.integers(0, 6, (rows, 5)), rng.normal(size=(rows, 1))


def _model(model_class=tf_gnc.GNCModel):
    keras.utils.set_random_seed(0)
    words = keras.Input((5,), dtype="int32")
    h = keras.layers.Embedding(*TABLE)(words)
    h = keras.layers.Dropout(0.3, seed=1)(keras.layers.Flatten()(h))
    return model_class(words, keras.layers.Dense(1)(h))


def _fit(optimizer=None, rows=16, **compiled):
    stock = "num_workers" not in compiled
    model = _model(keras.Model if stock else tf_gnc.GNCModel)
    optimizer = optimizer or Watched(0.1, momentum=0.9)
    compiled = {"jit_compile": False, **compiled}
    model.compile(optimizer, "mse", metrics=["mae"], **compiled)
    history = model.fit(*_data(rows), batch_size=8, epochs=2, verbose=0)
    return model, history.history


@pytest.mark.parametrize("eager", [False, True])
def test_fit__one_worker_and_no_noise__is_stock_keras_to_the_bit(eager):
    # 20 rows: the last batch is smaller, as Keras allows.
    stock, expected = _fit(rows=20, run_eagerly=eager)
    model, history = _fit(rows=20, run_eagerly=eager, num_workers=1)
    assert history == expected
    for ours, theirs in zip(model.variables, stock.variables, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert isinstance(model.optimizer.seen["embeddings"], tf.IndexedSlices)


def test_fit__one_worker_under_loss_scaling__is_stock_keras_to_the_bit():
    found = []
    for workers in ({}, {"num_workers": 1}):
        inner = keras.optimizers.SGD(0.1)
        scaled = keras.mixed_precision.LossScaleOptimizer(
            inner, initial_scale=2.0, dynamic_growth_steps=2
        )
        model, history = _fit(scaled, **workers)
        found.append((history, [v.numpy().tolist() for v in model.variables]))
        assert float(scaled.dynamic_scale) > 2
    assert found[0] == found[1]


@pytest.mark.parametrize("what", ["noise", "table", "update"])
def test_fit__something_to_do_for_one_worker__is_not_handed_over(
    what, monkeypatch
):
    model = _model()
    noise = tf_gnc.RandomNoise(0.1) if what == "noise" else None
    model.compile("sgd", "mse", noise=noise, num_workers=1)
    monkeypatch.setattr(keras.Model, "train_step", None)
    if what == "table":
        control_of(model).keeps_table = True
    seen = []
    if what == "update":
        control_of(model).update = lambda gradients, _: seen.append(gradients)
    model.fit(*_data(), batch_size=8, verbose=0)
    assert len(seen) == (what == "update")


@pytest.mark.parametrize("noise", [None, tf_gnc.RandomNoise(0.1, seed=1)])
@pytest.mark.parametrize("eager", [False, True])
def test_fit__rule_without_memory__same_weights_as_by_dense_gradients(
    noise, eager, monkeypatch
):
    sparse, history = _fit(noise=noise, num_workers=4, run_eagerly=eager)
    gradient = sparse.optimizer.seen["embeddings"]
    assert isinstance(gradient, tf.IndexedSlices)
    # Clipping needs the norm of the whole gradient, each row once.
    clipped, _ = _fit(
        Watched(0.1, global_clipnorm=0.1), noise=noise, num_workers=4
    )
    monkeypatch.setattr("tf_gnc.step.plan.tables_of", lambda model: [])
    dense, expected = _fit(noise=noise, num_workers=4)
    assert not isinstance(dense.optimizer.seen["embeddings"], tf.IndexedSlices)
    assert history["loss"] == pytest.approx(expected["loss"], rel=1e-6)
    assert (
        problems.largest_difference(sparse.get_weights(), dense.get_weights())
        < 1e-6
    )
    whole, _ = _fit(
        Watched(0.1, global_clipnorm=0.1), noise=noise, num_workers=4
    )
    assert (
        problems.largest_difference(clipped.get_weights(), whole.get_weights())
        < 1e-6
    )


def test_train_step__rows_that_workers_share__come_once_with_their_mean():
    model = _model()
    model.compile(
        Watched(0.1), "mse", num_workers=2, run_eagerly=True, jit_compile=False
    )
    words, y = np.array([[1, 1, 2, 3, 4]] * 2), np.ones((2, 1))
    before = model.get_weights()
    model.train_on_batch(words, y)
    gradient = model.optimizer.seen["embeddings"]
    assert sorted(gradient.indices.numpy()) == [1, 2, 3, 4]
    moved = before[0] - 0.1 * tf.convert_to_tensor(gradient)
    np.testing.assert_allclose(model.get_weights()[0], moved, atol=1e-7)


@pytest.mark.parametrize("why", ["memory", "xla", "replicas"])
def test_fit__where_rows_cannot_be_kept__gradient_is_dense(why):
    with problems.mirrored(2 if why == "replicas" else 1):
        model = _model()
        model.compile(
            Watched(0.1),
            "mse",
            noise=tf_gnc.GradientNoise(0.1) if why == "memory" else None,
            num_workers=4,
            jit_compile=why == "xla",
        )
    model.fit(*_data(), batch_size=8, verbose=0)
    assert not isinstance(model.optimizer.seen["embeddings"], tf.IndexedSlices)
