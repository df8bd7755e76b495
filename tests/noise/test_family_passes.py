"""The two passes of a step: random layers, statistics, embeddings."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import tf_gnc
from tests import problems
from tests.noise.members import (
    RATE,
    B,
    M,
    assert_near,
    compiled,
    doubles,
    fit,
    weights_of,
)
from tf_gnc import SharpnessAware
from tf_gnc.step.control import control_of

# Random layers.


class Sum(keras.losses.Loss):
    """Linear in the weights of a model without bias or activation."""

    def call(self, y_true, y_pred):
        return keras.ops.sum(y_pred, axis=-1)


class Unseeded(keras.layers.Layer):
    """A mask from Keras's global generator, which belongs to no model."""

    def call(self, x, training=False):
        if not training:
            return x
        draw = keras.random.uniform(keras.ops.shape(x))
        return x * keras.ops.cast(draw < 0.5, x.dtype)


def _masked_steps(layer, rho, group):
    """Each step's loss, mean gradient and workers' gradients' lengths."""
    keras.utils.set_random_seed(4)
    inputs = keras.Input((6,))
    outputs = keras.layers.Dense(1, use_bias=False)(layer()(inputs))
    model = tf_gnc.GNCModel(inputs, outputs)
    model.compile(
        keras.optimizers.SGD(0.25), Sum(), num_workers=4,
        noise=SharpnessAware(rho, group),
    )  # fmt: skip
    control_of(model).keeps_table = True
    rows, found = np.tile(np.arange(1.0, 7.0, dtype="float32"), (4, 1)), []
    for _ in range(3):
        before = weights_of(model)[0]
        history = model.fit(rows, rows[:, :1], batch_size=4, verbose=0)
        gradient = (before - weights_of(model)[0]) / 0.25
        table = model.step_plan.table.read(model.distribute_strategy)
        lengths = np.sqrt(table.gradient_squares)
        found.append((history.history["loss"][0], gradient, lengths))
    return found


@pytest.mark.parametrize("group", [1, "all"])
@pytest.mark.parametrize(
    "layer", [lambda: keras.layers.Dropout(0.5), Unseeded],
    ids=["seeded", "unseeded"],
)  # fmt: skip
def test_masks__of_both_passes__are_those_of_no_displacement(layer, group):
    """A loss w . m, m the masked row, is w . m + rho |m| with the same mask."""
    plain, moved = (_masked_steps(layer, rho, group) for rho in (0.0, 2.0))
    masks = {tuple(gradient.ravel().round(3)) for _, gradient, _ in plain}
    assert len(masks) == 3  # They go on from step to step.
    for (loss, gradient, lengths), (higher, again, _) in zip(
        plain, moved, strict=True
    ):
        # Wherever it is taken, a linear loss has the same gradient.
        assert_near([again], [gradient], 1e-5)
        assert len(set(lengths.round(3))) > 1  # Workers have their own masks.
        own = np.linalg.norm(gradient) if group == "all" else lengths.mean()
        assert higher - loss == pytest.approx(2.0 * own, rel=1e-4)


# Batch normalization.


def _gradients(model, x, y):
    """A stock model's, in training mode, in its own dtype."""
    loss_of = keras.losses.SparseCategoricalCrossentropy(
        from_logits=True, dtype=model.dtype
    )
    with tf.GradientTape() as tape:
        loss = loss_of(y, model(x, training=True))
    found = tape.gradient(loss, model.trainable_variables)
    return [tf.convert_to_tensor(g).numpy() for g in found]


def _moved(weights, gradient, rho):
    norm = np.sqrt(sum(np.sum(g**2) for g in gradient))
    return [w + rho * g / norm for w, g in zip(weights, gradient, strict=True)]


def _statistics(stock, batch, rho, group):
    """Moving mean and variance after a step: the mean over the workers.

    The layer's inputs are tanh(x W), W the first weight.
    """
    x, y = (np.split(part, M) for part in batch)
    before = stock.get_weights()
    old = [v.numpy() for v in stock.variables if "moving" in v.path]
    clean, found = weights_of(stock), []
    own = []
    for rows in zip(x, y, strict=True):
        own.append(_gradients(stock, *rows))
        stock.set_weights(before)
    for worker in range(M):
        first = worker // group * group
        pairs = zip(*own[first : first + group], strict=True)
        mean = [np.mean(parts, axis=0) for parts in pairs]
        h = np.tanh(x[worker] @ _moved(clean, mean, rho)[0])
        new = h.mean(axis=0), h.var(axis=0)
        found.append([0.8 * o + 0.2 * n for o, n in zip(old, new, strict=True)])
    return [np.mean(parts, axis=0) for parts in zip(*found, strict=True)]


@pytest.mark.parametrize("replicas", [1, 2])
@pytest.mark.parametrize("group", [1, M])
@pytest.mark.parametrize("statistics", ["clean", "displaced"])
def test_statistics__every_second_step__are_those_of_the_pass(
    statistics, group, replicas
):
    """In the steps between there is the clean pass alone."""
    size = 4 * M
    x, y = problems.vectors(size * 3, seed=6)
    rule = SharpnessAware(1.0, group, every=2, statistics=statistics)
    model = compiled(
        rule, replicas, network=problems.dense_network, **doubles()
    )
    stock = problems.dense_network(keras.Model)
    for step in range(3):
        batch = [part[size * step : size * (step + 1)] for part in (x, y)]
        stock.set_weights(model.get_weights())
        clean = _statistics(stock, batch, 0.0, group)
        there = _statistics(stock, batch, 1.0, group)
        assert problems.largest_difference(clean, there) > 1e-3
        fit(model, batches=batch, size=size)
        found = [v.numpy() for v in model.variables if "moving" in v.path]
        expected = there if statistics == "displaced" else clean
        assert_near(found, clean if step % 2 else expected, 1e-9)


# Embeddings and optimizers that share the weights out, against the textbook.


def _words(model_class=tf_gnc.GNCModel):
    keras.utils.set_random_seed(1)
    inputs = keras.Input((4,), dtype="int32")
    h = keras.layers.Embedding(50, 6)(inputs)
    h = keras.layers.GlobalAveragePooling1D()(h)
    return model_class(inputs, keras.layers.Dense(3)(h))


def _by_rank():
    """One rate for the embedding and the kernel, another for the bias."""
    rates = {2: keras.optimizers.SGD(RATE), 1: keras.optimizers.SGD(4 * RATE)}
    return keras.optimizers.MultiOptimizer(lambda v: rates[len(v.shape)])


@pytest.mark.parametrize("replicas", [1, 2])
@pytest.mark.parametrize("optimizer", [lambda: None, _by_rank])
def test_sam__words_that_repeat__is_the_textbooks(optimizer, replicas):
    rng = np.random.default_rng(0)
    x = rng.integers(0, 12, (3 * B, 4))
    y = rng.integers(0, 3, 3 * B)
    with problems.mirrored(replicas):
        model = _words()
        model.compile(
            optimizer() or keras.optimizers.SGD(RATE),
            problems.cross_entropy(), num_workers=4,
            noise=SharpnessAware(0.5, "all"),
        )  # fmt: skip
    fit(model, batches=(x, y))
    rates = [RATE, RATE, 4 * RATE if optimizer() else RATE]
    stock = _words(keras.Model)
    for rows in zip(np.split(x, 3), np.split(y, 3), strict=True):
        clean = stock.get_weights()
        stock.set_weights(_moved(clean, _gradients(stock, *rows), 0.5))
        second = _gradients(stock, *rows)
        stock.set_weights(
            [w - r * g for w, r, g in zip(clean, rates, second, strict=True)]
        )
    assert_near(weights_of(model), weights_of(stock), 1e-5)
    # Where it can be, the embedding's gradient goes row by row.
    assert bool(model.step_plan.tables) == (replicas == 1)
    assert tf_gnc.doctor.check(model, x[:B], y[:B]).ok
