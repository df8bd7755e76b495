r"""Learning-rate schedules of large-batch training, exact at every step.

A schedule is a pure function of the optimizer's step count. It knows neither
data sets nor batches per epoch, so whoever builds one converts epochs to
steps first; `cifar_schedule` does so for the paper's CIFAR recipe.

All arithmetic on tensors is float32. `StepDecay` rounds once, so its rates are
the float32 numbers nearest to the exact ones. A rising ramp of `WarmUp` is
within five roundings of the exact rate, a relative error of `5 * 2**-24`,
about 3e-7. The step itself is compared as an int64 and never rounded.

Symbols   eta  learning rate, the paper's eta_t, or gamma_t under LARS
          t    step: updates done so far, so the first update has t = 0
          T_w  length of the warm-up in steps

Floor 1: may import tf_gnc._check, nothing else of ours.
"""

from collections.abc import Iterable
from typing import Any

import keras
import tensorflow as tf

from tf_gnc import _check

__all__ = ["StepDecay", "WarmUp", "cifar_schedule", "linear_scaling"]


def _whole_step(step: Any) -> tf.Tensor:
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


@keras.saving.register_keras_serializable(package="tf_gnc")
class WarmUp(keras.optimizers.schedules.LearningRateSchedule):
    r"""Climbs in a straight line to another schedule, then follows it.

    .. math:: \eta_t = s + (\eta'(T_w) - s) \, t / T_w \quad (t < T_w), \qquad
              \eta_t = \eta'(t) \quad (t \ge T_w)

    with :math:`s` the start and :math:`\eta'` the schedule `then`, which is
    called at the absolute step: warming up delays none of its decays.

    Paper: Haruki et al. (2019), arXiv:1906.10822, appendix A.4, A.5 and
    Table 4, after the gradual warm-up of Goyal et al. (2017).
    Deviation from the paper: none. It says that the rate "gradually ramped
    up over the first GW epochs"; the ramp here is linear in steps, as in
    Goyal et al. and as drawn in Fig. 6.

    Args:
        start: Rate at step 0, at least 0.
        steps: T_w, the first step at which `then` alone decides. 0 means no
            warm-up at all.
        then: The schedule to reach and follow, or a number for a constant
            rate of at least 0.

    Raises:
        ValueError: If an argument is out of its range or, in a call, if the
            step isn't of an integer type.

    Example:
        >>> schedule = WarmUp(start=0.0, steps=4, then=1.0)
        >>> [float(schedule(step)) for step in range(6)]
        [0.0, 0.25, 0.5, 0.75, 1.0, 1.0]
    """

    def __init__(
        self,
        start: float,
        steps: int,
        then: keras.optimizers.schedules.LearningRateSchedule | float,
    ) -> None:
        """Validates and keeps the arguments; the class describes them."""
        super().__init__()
        self.start = _check.real("start", start, minimum=0)
        self.steps = _check.integer("steps", steps, minimum=0)
        if not isinstance(
            then, keras.optimizers.schedules.LearningRateSchedule
        ):
            then = _check.real("then", then, minimum=0)
        self.then = then

    def __call__(self, step: Any) -> tf.Tensor:
        """Returns the float32 rate at `step`, elementwise for several."""
        step = _whole_step(step)
        start = tf.constant(self.start, tf.float32)
        peak = self._follow(tf.constant(self.steps, tf.int64))
        # Clipped while still an integer: a float32 can't count past 2**24.
        climbed = tf.cast(tf.minimum(step, self.steps), tf.float32)
        # One division, correctly rounded. A warm-up of no steps never uses
        # the ramp, yet must not divide by zero to find that out.
        fraction = climbed / tf.constant(max(self.steps, 1), tf.float32)
        ramp = start + (peak - start) * fraction
        return tf.where(step < self.steps, ramp, self._follow(step))

    def _follow(self, step: tf.Tensor) -> tf.Tensor:
        if callable(self.then):
            return tf.cast(self.then(step), tf.float32)
        return tf.constant(self.then, tf.float32)

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments that make an equal schedule."""
        then = self.then
        if callable(then):
            then = keras.saving.serialize_keras_object(then)
        return {"start": self.start, "steps": self.steps, "then": then}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "WarmUp":
        """Makes a schedule from what `get_config` returned."""
        config = dict(config)
        if isinstance(config["then"], dict):
            config["then"] = keras.saving.deserialize_keras_object(
                config["then"]
            )
        return cls(**config)


@keras.saving.register_keras_serializable(package="tf_gnc")
class StepDecay(keras.optimizers.schedules.LearningRateSchedule):
    r"""Multiplies the rate by a factor at each of some boundary steps.

    .. math:: \eta_t = \eta_0 f^{k}, \qquad k = |\{j : b_j \le t\}|

    so the update at step :math:`t = b_j` already uses the decayed rate. With
    steps counted from 0 and :math:`n` steps per epoch, the boundary
    :math:`80 n` decays after exactly 80 epochs.

    Paper: Haruki et al. (2019), arXiv:1906.10822, appendix A.4 ("learning
    rate divided by 10 only at the 80th and 120th epochs") and Fig. 6 (a).
    Deviation from the paper: none.
    `keras.optimizers.schedules.PiecewiseConstantDecay` still uses the old
    rate at the boundary itself, one step longer than this.

    Args:
        initial: Rate before the first boundary, at least 0.
        boundaries: Steps at which to decay, at least 1, strictly
            increasing. None at all means a constant rate.
        factor: What to multiply by at each, above 0 and at most 1.

    Raises:
        ValueError: If an argument is out of its range or, in a call, if the
            step isn't of an integer type.

    Example:
        >>> schedule = StepDecay(initial=8.0, boundaries=[2, 3], factor=0.5)
        >>> [float(schedule(step)) for step in range(5)]
        [8.0, 8.0, 4.0, 2.0, 2.0]
    """

    def __init__(
        self, initial: float, boundaries: Iterable[int], factor: float = 0.1
    ) -> None:
        """Validates and keeps the arguments; the class describes them."""
        super().__init__()
        self.initial = _check.real("initial", initial, minimum=0)
        self.boundaries = _increasing_steps("boundaries", boundaries)
        self.factor = _check.real("factor", factor, above=0, maximum=1)

    def __call__(self, step: Any) -> tf.Tensor:
        """Returns the float32 rate at `step`, elementwise for several."""
        step = _whole_step(step)
        count = len(self.boundaries)
        boundaries = tf.constant(self.boundaries, tf.int64, (count,))
        # Looked up, not multiplied: Python's float64 powers are rounded to
        # float32 once, however many decays lie behind.
        rates = tf.constant(
            [self.initial * self.factor**k for k in range(count + 1)],
            tf.float32,
        )
        passed = step[..., tf.newaxis] >= boundaries  # (*step.shape, count)
        return tf.gather(rates, tf.reduce_sum(tf.cast(passed, tf.int32), -1))

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments that make an equal schedule."""
        return {
            "initial": self.initial,
            "boundaries": list(self.boundaries),
            "factor": self.factor,
        }


def _increasing_steps(name: str, steps: Iterable[int]) -> tuple[int, ...]:
    """Returns `steps` as ints; raises unless each exceeds the one before."""
    if isinstance(steps, str) or not isinstance(steps, Iterable):
        raise ValueError(
            f"`{name}` must be a list of whole numbers, got {name}={steps!r}. "
            f"For a single one write {name}=[{steps!r}]."
        )
    steps = tuple(
        _check.integer(f"{name}[{i}]", step, minimum=1)
        for i, step in enumerate(steps)
    )
    if any(b <= a for a, b in zip(steps, steps[1:], strict=False)):
        raise ValueError(
            f"`{name}` must increase strictly, got {name}={list(steps)}. "
            f"Sort them and merge equal ones: {sorted(set(steps))}."
        )
    return steps


def linear_scaling(
    base_rate: float, base_batch_size: int, batch_size: int
) -> float:
    r"""Returns the learning rate in proportion to the batch size.

    :math:`\eta = \eta_{base} \, B / B_{base}`.

    Paper: Haruki et al. (2019), arXiv:1906.10822, appendix A.4, after the
    linear scaling rule of Goyal et al. (2017), arXiv:1706.02677.
    Deviation from the paper: none.

    Args:
        base_rate: Rate that is known to work, at least 0.
        base_batch_size: Examples per update at which it does, at least 1.
        batch_size: Examples per update to find the rate for, summed over
            all workers, at least 1.

    Raises:
        ValueError: If an argument is out of its range.

    Example:
        >>> linear_scaling(0.1, base_batch_size=128, batch_size=8192)
        6.4
    """
    base_rate = _check.real("base_rate", base_rate, minimum=0)
    base_size = _check.integer("base_batch_size", base_batch_size, minimum=1)
    batch_size = _check.integer("batch_size", batch_size, minimum=1)
    return base_rate * (batch_size / base_size)


def cifar_schedule(
    batch_size: int,
    steps_per_epoch: int,
    *,
    epochs: int = 160,
    base_rate: float = 0.1,
    small_batch_size: int = 32,
) -> WarmUp:
    r"""Builds the paper's schedule for CIFAR-10 and CIFAR-100.

    Warm-up over the first 1/16 of all steps (10 epochs of 160), from the rate
    that linear scaling gives one worker's small batch to the rate that it
    gives the whole batch; division by 10 after 1/2 (epoch 80) and after 3/4
    (epoch 120) of all steps.

    Paper: Haruki et al. (2019), arXiv:1906.10822, appendix A.4, Table 4 and
    Fig. 6 (a). Its start rate of 0.025 is 0.1 scaled from 128 to 32 examples,
    and its initial rates of 3.2 and 6.4 are 0.1 scaled to 4,096 and 8,192.
    `base_rate=0.001` gives the exception it made for Fig. 3 (c): start
    0.00025 and initial rates of 0.064, 0.032 and 0.016.
    Deviation from the paper: none at 160 epochs. Other lengths keep the
    fractions, rounded up to whole steps.

    Args:
        batch_size: Examples per update, summed over all workers.
        steps_per_epoch: Updates per epoch, at least 1.
        epochs: Length of the run, at least 1. A run needs two steps or more,
            so that its two decays fall on different steps.
        base_rate: Rate at 128 examples per update.
        small_batch_size: Examples per worker and update.

    Raises:
        ValueError: If an argument is out of its range or the run too short.

    Example:
        >>> schedule = cifar_schedule(batch_size=8192, steps_per_epoch=6)
        >>> [round(float(schedule(6 * e)), 4) for e in (0, 5, 10, 80, 120)]
        [0.025, 3.2125, 6.4, 0.64, 0.064]
    """
    per_epoch = _check.integer("steps_per_epoch", steps_per_epoch, minimum=1)
    total = _check.integer("epochs", epochs, minimum=1) * per_epoch
    if total < 2:
        raise ValueError(
            "The run must have at least two steps to hold two decays, got "
            f"epochs={epochs} with steps_per_epoch={steps_per_epoch}. "
            "Train longer, or use a constant rate."
        )
    small = _check.integer("small_batch_size", small_batch_size, minimum=1)
    # -(-a // b) is a / b rounded up, exact for whole numbers of any size.
    half, three_quarters = -(-total // 2), -(-3 * total // 4)
    return WarmUp(
        start=linear_scaling(base_rate, 128, small),
        steps=-(-total // 16),
        then=StepDecay(
            linear_scaling(base_rate, 128, batch_size), (half, three_quarters)
        ),
    )
