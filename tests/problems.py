"""Small models and data that the tests share."""

import contextlib

import keras
import numpy as np
import tensorflow as tf

import tf_gnc
from tf_gnc import _keras_compat
from tf_gnc.noise.at import At

SHAPE, CLASSES = (6, 6, 1), 3


def images(num_examples=32, seed=0):
    """Random images (n, 6, 6, 1) and labels (n,)."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(num_examples, *SHAPE)).astype("float32")
    y = rng.integers(0, CLASSES, num_examples)
    return x, y


def plain_network(model_class=tf_gnc.GNCModel):
    """The network of tests/oracles.py: convolution, tanh, dense."""
    _keras_compat.set_random_seed(1)
    inputs = keras.Input(SHAPE)
    x = keras.layers.Conv2D(
        2,
        3,
        activation="tanh",
        bias_initializer=keras.initializers.RandomNormal(0, 0.3, seed=4),
    )(inputs)
    x = keras.layers.Flatten()(x)
    outputs = keras.layers.Dense(
        CLASSES,
        bias_initializer=keras.initializers.RandomNormal(0, 0.3, seed=5),
    )(x)
    return model_class(inputs, outputs)


def full_network(model_class=tf_gnc.GNCModel, dropout=0.3):
    """Convolution, BatchNorm, Dropout and a regularised dense layer."""
    _keras_compat.set_random_seed(1)
    inputs = keras.Input(SHAPE)
    # No bias before BatchNorm: its gradient is zero but for rounding, so two
    # equal runs need not agree on it.
    x = keras.layers.Conv2D(4, 3, use_bias=False)(inputs)
    x = keras.layers.BatchNormalization(momentum=0.8)(x)
    x = keras.layers.ReLU()(x)
    x = keras.layers.Flatten()(x)
    x = keras.layers.Dropout(dropout)(x)
    outputs = keras.layers.Dense(
        CLASSES, kernel_regularizer=keras.regularizers.L2(0.01)
    )(x)
    return model_class(inputs, outputs)


def updates(config, steps):
    """Those of a run whose epochs have so many steps."""
    return tf_gnc.data.Updates(steps * config.batch_size, config.batch_size)


def vectors(num_examples=32, seed=0):
    """Random vectors (n, 5) and labels (n,)."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(num_examples, 5)).astype("float32")
    y = rng.integers(0, CLASSES, num_examples)
    return x, y


def dense_network(
    model_class=tf_gnc.GNCModel, dropout=0.0, inputs=None, penalty=None
):
    """For `vectors`: dense, BatchNorm, dense; quickly traced."""
    _keras_compat.set_random_seed(1)
    inputs = keras.Input((5,)) if inputs is None else inputs
    h = keras.layers.Dense(8, activation="tanh", use_bias=False)(inputs)
    h = keras.layers.BatchNormalization(momentum=0.8)(h)
    h = keras.layers.Dropout(dropout)(h)
    last = keras.layers.Dense(CLASSES, kernel_regularizer=penalty)
    return model_class(inputs, last(h))


def quick_network(model_class=tf_gnc.GNCModel):
    """For `vectors`: `full_network` without its convolution."""
    return dense_network(
        model_class, dropout=0.3, penalty=keras.regularizers.L2(0.01)
    )


def digits_network():
    """For the pictures of the digits; quickly traced."""
    inputs = keras.Input((8, 8, 1))
    h = keras.layers.Conv2D(4, 3, strides=2, use_bias=False)(inputs)
    h = keras.layers.BatchNormalization()(h)
    h = keras.layers.Flatten()(keras.layers.ReLU()(h))
    h = keras.layers.Dense(16, "relu")(h)
    return keras.Model(inputs, keras.layers.Dense(10)(h))


# The same on a command line, for what doesn't depend on the network.
DIGITS_NETWORK = "--model_fn=tests.problems:digits_network"


def cross_entropy():
    return keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def sgd():
    return keras.optimizers.SGD(0.1, momentum=0.9)


def trained(model, x, y, *, epochs=3, batch_size=16, fit=None, **compile_args):
    """Compiles and fits a model in order, and returns it with its history."""
    arguments = {"optimizer": sgd(), "loss": cross_entropy(), **compile_args}
    model.compile(**arguments)
    history = model.fit(
        x,
        y,
        batch_size=batch_size,
        epochs=epochs,
        shuffle=False,
        verbose=0,
        **(fit or {}),
    )
    return model, history.history


def mirrored(num_replicas):
    """A strategy over logical CPUs; one replica stands for no strategy."""
    if num_replicas == 1:
        return contextlib.nullcontext()
    strategy = tf.distribute.MirroredStrategy(
        [f"CPU:{n}" for n in range(num_replicas)],
        # TensorFlow's own choice can't have groups of two sizes in a process.
        cross_device_ops=tf.distribute.ReductionToOneDevice(),
    )
    return strategy.scope()


def largest_difference(first, second):
    """Largest difference of two weight lists over the largest weight."""
    largest = max(np.abs(w).max() for w in first if w.size)
    return max(
        np.abs(a.astype("float64") - b.astype("float64")).max() / largest
        for a, b in zip(first, second, strict=True)
        if a.size
    )


def float_weights(model):
    """Weights and moving statistics, without the states of seeds."""
    return [
        v.numpy() for v in model.variables if "seed_generator" not in v.path
    ]


def memory(model):
    """The remembered gradients of all workers (M, P), and their mean (P,)."""
    memory = model.step_plan.memory
    strategy = model.distribute_strategy
    rows = [
        component.numpy()[: model.step_plan.per_replica]
        for component in strategy.experimental_local_results(memory.gradients)
    ]
    mean = strategy.experimental_local_results(memory.mean)[0].numpy()
    return np.concatenate(rows), mean


def at(layout, step=0, worker=0, **vectors):
    """What a rule is given, its vectors by the names of needs."""
    makers = {name: lambda v=v: v for name, v in vectors.items()}
    return At(tf.constant(step), tf.constant(worker), None, layout, 0.1, makers)


def sums_over_replicas(graph):
    """Elements of each sum over replicas in a graph and its functions."""
    for op in graph.get_operations():
        if op.type == "AddN":
            yield op.outputs[0].shape.num_elements()
    for function in graph._functions.values():
        yield from sums_over_replicas(function.graph)
