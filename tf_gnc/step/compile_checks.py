"""Checks of what a model is compiled with: rule, optimizer, layers."""

from typing import Any

import keras
import tensorflow as tf

from tf_gnc import _keras_compat
from tf_gnc.noise.layout import WeightLayout
from tf_gnc.noise.rule import NoiseRule


def check_rule(noise: Any) -> None:
    """Raises a ValueError if `noise` is neither a noise rule nor None."""
    if noise is not None and not isinstance(noise, NoiseRule):
        raise ValueError(
            "`noise` must be a noise rule such as "
            "tf_gnc.GradientNoise(alpha=0.1), or None, got "
            f"noise={noise!r}."
        )


def check_layers(model: keras.Model) -> None:
    """Raises a ValueError if a layer of the model averages over replicas."""
    for layer in _keras_compat.layers_of(model):
        is_norm = isinstance(layer, keras.layers.BatchNormalization)
        if is_norm and layer.synchronized and layer.trainable:
            raise ValueError(
                "A batch normalization must not be synchronized in a model "
                "that trains with several workers, got synchronized=True for "
                f"the layer {layer.name!r}. Each worker normalizes with its "
                "own examples, as in the paper, and replicas meet once a step. "
                "Leave `synchronized` out; the moving statistics become the "
                "mean over all workers."
            )


def check_accumulation(
    optimizer: keras.optimizers.Optimizer, num_workers: int
) -> None:
    """Raises a ValueError if the optimizer accumulates gradients itself."""
    parts = _keras_compat.parts_of(optimizer)
    steps = max(part.gradient_accumulation_steps or 0 for part in parts)
    if steps:
        raise ValueError(
            "Workers take the place of gradient accumulation, which Keras "
            "can't run under a distribution strategy, got "
            f"gradient_accumulation_steps={steps}. Leave it out, make the "
            f"batch {steps} times as large and pass "
            f"num_workers={steps * num_workers}: each worker's rows then "
            "pass through the model by themselves, as an accumulated batch's "
            "would."
        )


def check_fit(
    rule: NoiseRule, num_workers: int, model: keras.Model, layout: WeightLayout
) -> None:
    """Raises a ValueError if a rule doesn't fit workers, weights, optimizer."""
    check_group(rule, num_workers)
    if rule.include is not None:
        with tf.init_scope():
            ones = tf.ones([layout.size], layout.dtype)
            found = tf.reduce_sum(rule.included(ones, layout))
        if not float(found):
            raise ValueError(
                f"`include={rule.include!r}` with include_vectors=False leaves "
                "no weight to displace. Leave out one of them."
            )
    if rule.follows_rate and not _has_rate(model.optimizer):
        raise ValueError(
            f"{type(rule).__name__} displaces by a multiple of the learning "
            f"rate, got {type(model.optimizer).__name__}, which has no rate of "
            "its own. Use an optimizer with one, a `relative` length, or "
            "tf_gnc.SharpnessAware. In a class of your own the method "
            "`noise_rates(variables)` may return a rate for each variable."
        )
    if "momentum" in rule.needs:
        _keras_compat.update_vectors(
            model.optimizer, list(model.trainable_variables)
        )


def _has_rate(optimizer: keras.optimizers.Optimizer) -> bool:
    """Tells whether the noise can be a multiple of the optimizer's rate."""
    inner = getattr(optimizer, "inner_optimizer", optimizer)
    return hasattr(inner, "noise_rates") or hasattr(inner, "learning_rate")


def check_group(rule: NoiseRule, num_workers: int) -> None:
    """Raises a ValueError if a rule's groups don't divide the workers."""
    group = rule.group
    if "current_mean" not in rule.needs or group == "all":
        return
    if num_workers % group:
        divisors = [
            k for k in range(1, num_workers + 1) if num_workers % k == 0
        ]
        raise ValueError(
            "`group` must divide the number of workers, got "
            f"group={group} with num_workers={num_workers}. Use one of "
            f"{', '.join(map(str, divisors))}, or 'all'."
        )
