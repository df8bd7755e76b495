"""Checks of the models, batches, data sets and rules given to the measures."""

import copy
from collections.abc import Iterator
from typing import Any

import keras
import tensorflow as tf

from tf_gnc.noise.rule import NoiseRule
from tf_gnc.step.compile_checks import check_fit, check_rule
from tf_gnc.step.plan import StepPlan
from tf_gnc.step.train_step import GNCTrainStep


def model(model: Any) -> None:
    """Checks that a model has `GNCTrainStep` and is compiled."""
    if not isinstance(model, GNCTrainStep):
        raise ValueError(
            "`model` must be a model with tf_gnc.GNCTrainStep, such as "
            f"tf_gnc.GNCModel, got model={model!r}."
        )
    if not model.compiled:
        raise ValueError(
            "`model` must be compiled, got one that isn't. Call "
            "`model.compile(optimizer, loss, noise=..., num_workers=...)`."
        )


def plan_with(model: GNCTrainStep, noise: NoiseRule | str | None) -> StepPlan:
    """Returns a plan that shares all but its rule with a built model's.

    With `noise="model"` it is the plan in force itself.
    """
    plan = model.step_plan
    if not plan.variables:
        raise ValueError(
            "`model` must have trainable weights, got one with none. Set "
            "`trainable` on the layers to be trained and compile again."
        )
    if isinstance(noise, str) and noise == "model":
        return plan
    check_rule(noise)
    remembers = noise is not None and noise.remembers_gradients
    if noise is not None:
        check_fit(noise, model.num_workers, model, model.step_plan.layout)
    has_rows = plan.memory is not None and plan.memory.workers_per_replica
    if remembers and not (plan.memory and has_rows):
        raise ValueError(
            f"{noise!r} needs the gradients of the step before, which the "
            f"model doesn't keep under its own rule, {plan.rule!r}. Measure "
            "it while a rule that remembers gradients is in force."
        )
    other = copy.copy(plan)
    other.rule = noise
    other.memory = plan.memory if remembers else None
    other.alpha = tf.constant(noise.alpha if noise else 0.0, plan.alpha.dtype)
    return other


def batch(batch: Any, what: str = "`batch`") -> tuple[Any, ...]:
    """Returns a batch's parts as tensors, without a None at the end.

    It must be `(x,)`, `(x, y)` or `(x, y, sample_weight)`, each nested as the
    model needs it. `what` names it in errors.
    """
    parts = tuple(batch) if isinstance(batch, tuple | list) else ()
    while parts and parts[-1] is None:
        parts = parts[:-1]
    if not 1 <= len(parts) <= 3:
        kind = f"a {type(batch).__name__}"
        if isinstance(batch, tuple | list):
            kind += f" of {len(parts)} parts"
        raise ValueError(
            f"{what} must be a tuple (x, y) or (x, y, sample_weight), got "
            f"{kind}."
        )
    try:
        parts = keras.tree.map_structure(_tensor, parts)
        sizes = {num_rows(leaf) for leaf in keras.tree.flatten(parts)}
    except (TypeError, ValueError, IndexError) as error:
        raise ValueError(
            f"{what} must be made of arrays or tensors with rows: {error}"
        ) from error
    if len(sizes) != 1 or 0 in sizes:
        raise ValueError(
            f"All parts of {what} must have the same number of rows, 1 or "
            f"more, got {sorted(sizes)}."
        )
    return parts


def batches(dataset: Any, size: int) -> Iterator[tuple[Any, ...]]:
    """Yields batches of `size` rows of a data set, and one of what is left."""
    if not isinstance(dataset, tf.data.Dataset):
        raise ValueError(
            "`dataset` must be a tf.data.Dataset of batches, got a "
            f"{type(dataset).__name__}. Make one with "
            "`tf.data.Dataset.from_tensor_slices((x, y)).batch(256)`."
        )
    if dataset.cardinality() == tf.data.INFINITE_CARDINALITY:
        raise ValueError(
            "`dataset` must be finite, got an endless one. Leave out "
            "`repeat`, or cut it with `take`."
        )
    for one in dataset.rebatch(size):
        yield batch(one, "a batch of `dataset`")


def num_rows(batch: Any) -> int:
    """Returns a batch's rows, known where it is traced too, and 0 too."""
    return keras.tree.flatten(batch)[0].shape[0]


def _tensor(leaf: Any) -> Any:
    if isinstance(leaf, tf.RaggedTensor | tf.SparseTensor):
        return leaf
    return tf.convert_to_tensor(leaf)
