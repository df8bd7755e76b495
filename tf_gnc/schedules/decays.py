"""Learning rates that fall: in steps, or along a polynomial."""

from collections.abc import Iterable

import keras
import tensorflow as tf

from tf_gnc import _check
from tf_gnc.schedules.base import ExactSchedule, increasing_steps


@keras.saving.register_keras_serializable(package="tf_gnc")
class StepDecay(ExactSchedule):
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
        self.initial = _check.real("initial", initial, minimum=0)
        self.boundaries = increasing_steps("boundaries", boundaries)
        self.factor = _check.real("factor", factor, above=0, maximum=1)

    def exact(self, step: tf.Tensor) -> tf.Tensor:
        """Returns the float64 rate at `step`, an int64 tensor."""
        count = len(self.boundaries)
        boundaries = tf.constant(self.boundaries, tf.int64, (count,))
        rates = tf.constant(
            [self.initial * self.factor**k for k in range(count + 1)],
            tf.float64,
        )
        passed = step[..., tf.newaxis] >= boundaries  # (*step.shape, count)
        return tf.gather(rates, tf.reduce_sum(tf.cast(passed, tf.int32), -1))


@keras.saving.register_keras_serializable(package="tf_gnc")
class PolynomialDecay(ExactSchedule):
    r"""Falls to zero along a polynomial.

    .. math:: \eta_t = \eta_0 \left(1 - \frac{t - a}{T}\right)^p
              \quad (a \le t \le a + T)

    and :math:`\eta_0` before, zero after.

    Paper: Haruki et al. (2019), arXiv:1906.10822, appendix A.5, with
    :math:`p = 2` and :math:`T = 4120`.
    Deviation from the paper: the offset :math:`a`; see `imagenet_schedule`
    for why.
    `keras.optimizers.schedules.PolynomialDecay` differs in its defaults, a
    power of 1 and an end rate of 0.0001, and in rounding more than once.

    Args:
        initial: Rate at step `after` and before, at least 0.
        steps: T, in how many steps it falls to zero, at least 1.
        power: p, above 0. 1 is a straight line.
        after: a, the step at which the decay begins, at least 0.

    Raises:
        ValueError: If an argument is out of its range or, in a call, if the
            step isn't of an integer type.

    Example:
        >>> schedule = PolynomialDecay(initial=16.0, steps=4, after=1)
        >>> [float(schedule(step)) for step in range(7)]
        [16.0, 16.0, 9.0, 4.0, 1.0, 0.0, 0.0]
    """

    def __init__(
        self, initial: float, steps: int, power: float = 2.0, after: int = 0
    ) -> None:
        self.initial = _check.real("initial", initial, minimum=0)
        self.steps = _check.integer("steps", steps, minimum=1)
        self.power = _check.real("power", power, above=0)
        self.after = _check.integer("after", after, minimum=0)

    def exact(self, step: tf.Tensor) -> tf.Tensor:
        """Returns the float64 rate at `step`, an int64 tensor."""
        left = tf.cast(self.after + self.steps - step, tf.float64)
        fraction = tf.clip_by_value(left / self.steps, 0, 1)
        return self.initial * fraction**self.power
