"""Private names behind a training step: building, calling, losses, seeds."""

from typing import Any

import keras
import tensorflow as tf
from keras.src.backend.common import global_state as _global_state
from keras.src.random import seed_generator as _seed_generator


def is_built(model: keras.Model) -> bool:
    """Tells whether a model and all layers in it have their variables.

    Why: `built` of a subclassed model may be true while its layers wait for
    their first call.
    """
    return all(layer.built for layer in layers_of(model))


def layers_of(model: keras.Model) -> list[keras.layers.Layer]:
    """Returns a model and all layers in it, nested ones too.

    Why: the public list has the outermost alone.
    """
    return list(model._flatten_layers())


def build(model: keras.Model, data: Any) -> None:
    """Builds model, metrics and loss from a batch, before any step is traced.

    Why: stock Keras builds them inside the traced step, but a worker's call
    runs in a stateless scope, where no variable may be made. `Model.build`
    knows neither metrics nor losses. Of the batch, as `train_step` receives
    it, only shapes and dtypes are looked at.
    """
    with tf.init_scope():
        model._symbolic_build(data_batch=data)


def call_for_training(model: keras.Model, x: Any) -> Any:
    """Calls the model as the stock training step does.

    Why: it passes `training` only to a `call` that takes it, which stands in
    a private attribute. Passed to any other, `training=True` would reach the
    layers inside, and a Dropout there would drop where stock Keras's doesn't.
    """
    if model._call_has_training_arg:
        return model(x, training=True)
    return model(x)


def compute_loss(
    model: keras.Model, x: Any, y: Any, y_pred: Any, sample_weight: Any
) -> tf.Tensor:
    """Computes the loss as the stock training step does.

    Why: an override of `compute_loss` written for an older Keras has no
    `training` argument; the wrapper that bridges this is private.
    """
    return model._compute_loss(
        x=x, y=y, y_pred=y_pred, sample_weight=sample_weight, training=True
    )


def mask_of(prediction: Any) -> tf.Tensor | None:
    """Returns the mask that layers have attached to a prediction.

    Why: Keras's metrics leave masked positions out by it, and it is lost when
    workers' predictions are put together. It has no public name.
    """
    return getattr(prediction, "_keras_mask", None)


def set_mask(prediction: tf.Tensor, mask: tf.Tensor) -> None:
    """Attaches a mask to a prediction; see `mask_of`."""
    prediction._keras_mask = mask


def update_loss_tracker(
    model: keras.Model, loss: tf.Tensor, num_examples: tf.Tensor
) -> None:
    """Adds a batch's loss to the metric that `fit` shows as `loss`.

    Why: the tracker has no public name of its own; among `metrics` a user's
    metric may be called `loss` too.
    """
    model._loss_tracker.update_state(loss, sample_weight=num_examples)


def global_seed_generator() -> keras.random.SeedGenerator:
    """Returns the generator behind random numbers drawn without a seed.

    Why: layers that call `keras.random` without a seed draw from it. Its
    state belongs to no model, so a stateless call would leave it unchanged
    and every step would draw the same numbers.
    """
    return _seed_generator.global_seed_generator()


def set_random_seed(seed: int) -> None:
    """Calls `keras.utils.set_random_seed`, and begins unseeded draws anew.

    Why: Keras 3.12 goes on with the generator that it has made once, under
    whatever strategy that was.
    """
    keras.utils.set_random_seed(seed)
    _global_state.set_global_attribute("global_seed_generator", None)


def is_seed_state(variable: keras.Variable) -> bool:
    """Tells whether a model's variable is the state of a SeedGenerator.

    Why: a model lists the states among its non-trainable variables without a
    mark of their own; the name is all that tells them apart.
    """
    return variable.name == "seed_generator_state"
