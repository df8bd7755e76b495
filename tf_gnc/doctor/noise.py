"""Checks that a model's noise is on, and is what the paper says it is."""

from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tf_gnc import _batch
from tf_gnc.analysis import checks
from tf_gnc.doctor.dry_step import Measurement, dry_steps, measuring
from tf_gnc.doctor.report import Check, Report
from tf_gnc.doctor.setup import setup_of
from tf_gnc.step import workers
from tf_gnc.step.filters import unknown_filters
from tf_gnc.step.first_pass import Groups
from tf_gnc.step.train_step import GNCTrainStep

# Half a unit in the last place, relative.
_ROUNDING = {
    "bfloat16": 2**-8,
    "float16": 2**-11,
    "float32": 2**-24,
    "float64": 2**-53,
}

# Devices that add in any order don't repeat a step to the bit.
_REPEATABLE = 1e-3


def check(
    model: GNCTrainStep, x: Any, y: Any = None, sample_weight: Any = None
) -> Report:
    """Checks on a batch that a compiled model's noise is on and is right.

    Takes two steps with the noise and two without, all from the weights as
    they are and none with an update, so that the learning rate is the
    schedule's at this moment.

    The model is left as it was, to the last bit: weights, statistics, metrics,
    optimizer, seeds and the remembered gradients. (If it wasn't built, it is
    built, as `fit` would have done.) Meanwhile the noise takes its memory
    once more. With several processes call it in all of them, with the same
    global batch, given as to `fit`.

    Returns:
        What was found; printed, it is a line per check.

    Raises:
        TypeError: If the model has no `GNCTrainStep`.
        ValueError: If the model isn't compiled or the batch is empty.

    Example:
        >>> inputs = keras.Input((4,))
        >>> model = GNCModel(inputs, keras.layers.Dense(1)(inputs))
        >>> model.compile("sgd", "mse", noise=GradientNoise(alpha=0.0),
        ...               num_workers=2)
        >>> print(check(model, np.eye(4), np.ones((4, 1))).checks[1])
        FAIL noise: off, since alpha=0. Choose a larger one.
    """
    if not isinstance(model, GNCTrainStep):
        raise TypeError(
            "`model` must be a tf_gnc.GNCModel or have tf_gnc.GNCTrainStep "
            f"mixed in, got a {type(model).__name__}."
        )
    checks.model(model)
    data = keras.tree.map_structure(
        _tensor, keras.utils.pack_x_y_sample_weight(x, y, sample_weight)
    )
    rows, num_workers = int(_batch.num_rows(data)), model.num_workers
    if not rows:
        raise ValueError("`x` must have at least one row, got none.")
    try:
        workers.check_batch(rows, num_workers, "a batch")
    except ValueError as error:
        return Report((Check("batch", False, str(error)),))
    words = f"{num_workers} workers x {rows // num_workers} examples."
    batch = Check("batch", True, words)
    try:
        return Report((batch, *_examine(model, data)))
    except FloatingPointError as error:
        return Report((batch, Check("step", False, str(error))))


def _tensor(leaf: Any) -> Any:
    """Returns an array as `fit` would hand it to the model."""
    if leaf is None or isinstance(leaf, tf.RaggedTensor | tf.SparseTensor):
        return leaf
    tensor = tf.convert_to_tensor(leaf)
    if tensor.dtype.is_floating:
        tensor = tf.cast(tensor, keras.config.floatx())
    return tensor


def _examine(model: GNCTrainStep, data: Any) -> list[Check]:
    """Takes the steps, and says what they gave."""
    rule = model.noise_rule
    with dry_steps(model, data) as steps:
        first, second = steps.gradient(), steps.gradient()
        seen = measuring(model)()
    if np.isnan(second).any():
        raise FloatingPointError(
            "the optimizer got no finite gradient from the step. If the model "
            "has a `train_step` of its own, let it call that of "
            "tf_gnc.GNCTrainStep; with mixed_float16, lower the initial scale "
            "of the loss; else look for NaN in the batch."
        )
    if rule is None:
        found = [_asked_off(_difference(second, first))]
    elif later := _on_later(model, seen):
        found = [later]
    else:
        with dry_steps(model, data, noise=False) as plain:
            clean, again = plain.gradient(), plain.gradient()
        found = [
            _is_on(model, seen),
            _changes(_difference(second, clean), _difference(again, clean)),
        ]
        if {"previous", "previous_mean"} <= rule.needs:
            found.append(_sums_to_zero(rule.noise_dtype, seen))
    if rule is not None and (unknown := unknown_filters(model)):
        words = (
            "of no known kind of layer, so that the last axis counts: "
            f"{', '.join(unknown)}."
        )
        found.append(Check("filters", True, words))
    return [*found, _untouched(steps.moved)]


def _asked_off(difference: float) -> Check:
    ok = difference < _REPEATABLE
    words = (
        "off, as asked (noise=None): a second step at the same weights gives "
        f"{'the same' if ok else 'another'} gradient (relative difference "
        f"{difference:.1e})."
    )
    if not ok:
        words += " Look for a layer that keeps state from one call to the next."
    return Check("noise", ok, words)


def _on_later(model: GNCTrainStep, seen: Measurement) -> Check | None:
    """Returns what there is to say of a rule with nothing to do as yet."""
    rule, step = model.noise_rule, int(model.optimizer.iterations.numpy())
    active = rule.is_active(tf.constant(step))
    if active is not None and not bool(active):
        words = (
            f"off in step {step}, as asked (every={rule.every}, start_step="
            f"{rule.start_step}, stop_step={rule.stop_step}). Check again in a "
            "step that has noise."
        )
    elif "momentum" in rule.needs and not seen.displacements.any():
        if model.noise_alpha == 0:
            return None
        words = (
            "on from the second step: the optimizer's momentum is still zero. "
            "Check again after a step to see how far it displaces."
        )
    else:
        return None
    return Check("noise", True, words)


def _is_on(model: GNCTrainStep, seen: Measurement) -> Check:
    rule, reason = model.noise_rule, None
    if model.noise_alpha == 0:
        reason = f"since {rule.coefficient}=0. Choose a larger one."
    elif seen.rate == 0 and rule.follows_rate:
        reason = (
            "since the learning rate is 0, and noise is a multiple of it. "
            "If a schedule starts there, check again after its first step."
        )
    elif rule.subtracts_mean and model.num_workers == 1:
        reason = (
            "since with num_workers=1 the only gradient is the mean. Pass "
            "`num_workers` to `compile`."
        )
    elif not seen.displacements.any():
        reason = (
            "since no worker's weights are displaced. Do all workers see the "
            "same examples, or has the rule nothing to displace?"
        )
    if reason:
        return Check("noise", False, f"off, {reason}")
    name, value = rule.coefficient, model.noise_alpha
    if rule.takes_two_passes:
        words = f"on, with {name}={value:g}. {_cost(model)}"
        return Check("noise", True, words)
    rate = f" and a learning rate of {seen.rate:g}" * rule.follows_rate
    return Check(
        "noise",
        True,
        f"on: with {name}={value:g}{rate} the workers' weights are displaced "
        f"by {_percent(seen.displacements.mean())} of their norm, "
        f"{_percent(seen.displacements.max())} at most.",
    )


def _cost(model: GNCTrainStep) -> str:
    """Returns what a rule with two passes costs, in words."""
    rule, here = model.noise_rule, setup_of(model)
    when = "A step" if rule.every == 1 else f"One step in {rule.every}"
    words = (
        f"{when} has two passes forward and backward: the first, at the clean "
        "weights, gives the gradients that a displacement is made of"
    )
    if here.num_replicas > 1:
        groups = Groups.of(rule, here.num_workers, here.workers_per_replica)
        count = "two collectives" if groups.span_replicas else "one collective"
        words += f"; each step has {count} over the replicas"
    return f"{words}."


def _changes(difference: float, floor: float) -> Check:
    ok = difference > 2 * floor
    words = (
        f"the mean gradient differs by {difference:.1e} (relative) from that "
        f"of a step without noise, which repeats to {floor:.1e}"
    )
    if not ok:
        words += (
            ": the noise makes no difference. Is it off, or too small for the "
            "weights' dtype? Raise its coefficient"
        )
    return Check("gradient", ok, f"{words}.")


def _sums_to_zero(dtype: str, seen: Measurement) -> Check:
    noise, mean = seen.largest_noise, seen.largest_mean
    relative = seen.noise_sum / noise if noise else 0.0
    # Errors that are as often up as down: each gradient is rounded as it is
    # stored, and two sums of M numbers are rounded M times on their way.
    count = len(seen.displacements)
    stored = _ROUNDING[dtype] * count**0.5 * (noise + mean)
    added = _ROUNDING["float32"] * (count * noise + count**1.5 * mean)
    ok = seen.noise_sum <= 8 * (stored + added)
    words = (
        f"sums to zero over the {count} workers up to {relative:.1e} of "
        "its largest entry"
    )
    if not ok:
        words += (
            ", which is more than rounding explains: the remembered gradients "
            "and their mean are not of one step"
        )
    return Check("sum of noise", ok, f"{words}.")


def _untouched(moved: bool) -> Check:
    words = "come back bit for bit from a step whose update is left out."
    if moved:
        words = (
            "are changed by a step even with the update left out. Look for a "
            "layer or a `train_step` that assigns to them."
        )
    return Check("weights", not moved, words)


def _difference(first: np.ndarray, second: np.ndarray) -> float:
    """Returns ||first - second|| / ||second||."""
    norm = np.linalg.norm(second)
    return float(np.linalg.norm(first - second) / norm) if norm else 0.0


def _percent(share: float) -> str:
    return f"{100 * share:.2g} %"
