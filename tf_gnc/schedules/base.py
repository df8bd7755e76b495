"""What the schedules share: one rounding, and schedules inside schedules."""

import inspect
from collections.abc import Iterable
from typing import Any

import keras
import tensorflow as tf

from tf_gnc import _check

LearningRateSchedule = keras.optimizers.schedules.LearningRateSchedule


class ExactSchedule(LearningRateSchedule):
    """A schedule that is rounded to float32 once, when it is called.

    One inside another hands on its float64 rate, however deep it lies. A
    subclass keeps each argument of its constructor under the same name.
    """

    def __call__(self, step: Any, rate: float | None = None) -> Any:
        """Returns the float32 rate at `step`, elementwise for several.

        Keras's `LearningRateScheduler`, whose steps are epochs, hands over
        the rate in force as well, and gets a Python float.
        """
        found = tf.cast(self.exact(whole_step(step)), tf.float32)
        return found if rate is None else float(found)

    def exact(self, step: tf.Tensor) -> tf.Tensor:
        """Returns the float64 rate at `step`, an int64 tensor."""
        raise NotImplementedError(
            f"{type(self).__name__} must implement `exact`."
        )

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments that make an equal schedule."""
        return {
            name: _to_config(getattr(self, name))
            for name in inspect.signature(type(self)).parameters
            if hasattr(self, name)  # A subclass may add others by itself.
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "ExactSchedule":
        """Makes a schedule from what `get_config` returned."""
        return cls(**{k: _from_config(value) for k, value in config.items()})


def whole_step(step: Any) -> tf.Tensor:
    """Returns `step` as an int64 tensor; raises on anything fractional."""
    if isinstance(step, int):
        # TensorFlow would make it an int32 and overflow at 2**31.
        return tf.constant(step, tf.int64)
    step = tf.convert_to_tensor(step)
    if not step.dtype.is_integer:
        raise ValueError(
            "`step` must be a whole number of optimizer steps, got a "
            f"{step.dtype.name} with step={step!r}. Convert it first, for "
            "example with int(step) or tf.cast(step, tf.int64)."
        )
    return tf.cast(step, tf.int64)


def increasing_steps(name: str, steps: Iterable[int]) -> tuple[int, ...]:
    """Returns `steps` as ints; raises unless each exceeds the one before."""
    if isinstance(steps, str) or not isinstance(steps, Iterable):
        raise ValueError(
            f"`{name}` must be a list of whole numbers, got {name}={steps!r}. "
            f"For a single one write {name}=[{steps!r}]."
        )
    steps = _check.integers(name, steps)
    if any(b <= a for a, b in zip(steps, steps[1:], strict=False)):
        raise ValueError(
            f"`{name}` must increase strictly, got {name}={list(steps)}. "
            f"Sort them and merge equal ones: {sorted(set(steps))}."
        )
    return steps


def schedule_or_rate(
    name: str, value: LearningRateSchedule | float
) -> LearningRateSchedule | float:
    """Returns `value`: a schedule as it is, a rate of at least 0 as a float."""
    if isinstance(value, LearningRateSchedule):
        return value
    return _check.real(name, value, minimum=0)


def rate_at(
    schedule: LearningRateSchedule | float, step: tf.Tensor
) -> tf.Tensor:
    """Returns the float64 rate of a schedule, or the constant that it is."""
    if isinstance(schedule, ExactSchedule):
        return schedule.exact(step)
    if callable(schedule):
        return tf.cast(schedule(step), tf.float64)
    return tf.constant(schedule, tf.float64)


def _to_config(value: Any) -> Any:
    """Returns an argument, perhaps a schedule, as a configuration holds it."""
    if callable(value):
        return keras.saving.serialize_keras_object(value)
    return list(value) if isinstance(value, tuple) else value


def _from_config(value: Any) -> Any:
    """Makes the argument from what `_to_config` returned."""
    if isinstance(value, dict):
        return keras.saving.deserialize_keras_object(value)
    return value
