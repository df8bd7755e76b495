"""Schedules around another one, ours or Keras's: warm-up and collapse.

They call it at the absolute step: neither delays any of its decays.
"""

import keras
import tensorflow as tf

from tf_gnc import _check
from tf_gnc.schedules.base import (
    ExactSchedule,
    LearningRateSchedule,
    rate_at,
    schedule_or_rate,
)


@keras.saving.register_keras_serializable(package="tf_gnc")
class WarmUp(ExactSchedule):
    r"""Rises in a straight line to another schedule, then follows it.

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
        then: LearningRateSchedule | float,
    ) -> None:
        self.start = _check.real("start", start, minimum=0)
        self.steps = _check.integer("steps", steps, minimum=0)
        self.then = schedule_or_rate("then", then)

    def exact(self, step: tf.Tensor) -> tf.Tensor:
        """Returns the float64 rate at `step`, an int64 tensor."""
        peak = rate_at(self.then, tf.constant(self.steps, tf.int64))
        # A warm-up of no steps never uses the ramp, yet must not divide by
        # zero to find that out.
        fraction = tf.cast(step, tf.float64) / max(self.steps, 1)
        ramp = self.start + (peak - self.start) * fraction
        return tf.where(step < self.steps, ramp, rate_at(self.then, step))


@keras.saving.register_keras_serializable(package="tf_gnc")
class FinalCollapse(ExactSchedule):
    r"""Divides another schedule's rate from a step on.

    .. math:: \eta_t = \eta'(t) \quad (t < b), \qquad
              \eta_t = \eta'(t) / d \quad (t \ge b)

    with :math:`\eta'` the schedule, which goes on with its own decay
    meanwhile.

    Paper: Haruki et al. (2019), arXiv:1906.10822, appendix A.5 and Fig. 6
    (b), after the final collapse of Codreanu et al. (2017), arXiv:1711.04291:
    "divided by 5 after the 80th epochs".
    Deviation from the paper: none.

    Args:
        schedule: The schedule to divide, or a number for a constant rate of
            at least 0.
        boundary: b, the first step with the divided rate, at least 1. With
            steps counted from 0 and n steps per epoch, `80 * n` collapses
            after exactly 80 epochs.
        divisor: d, at least 1.

    Raises:
        ValueError: If an argument is out of its range or, in a call, if the
            step isn't of an integer type.

    Example:
        >>> schedule = FinalCollapse(10.0, boundary=2)
        >>> [float(schedule(step)) for step in range(4)]
        [10.0, 10.0, 2.0, 2.0]
    """

    def __init__(
        self,
        schedule: LearningRateSchedule | float,
        boundary: int,
        divisor: float = 5.0,
    ) -> None:
        self.schedule = schedule_or_rate("schedule", schedule)
        self.boundary = _check.integer("boundary", boundary, minimum=1)
        self.divisor = _check.real("divisor", divisor, minimum=1)

    def exact(self, step: tf.Tensor) -> tf.Tensor:
        """Returns the float64 rate at `step`, an int64 tensor."""
        rate = rate_at(self.schedule, step)
        return tf.where(step < self.boundary, rate, rate / self.divisor)
