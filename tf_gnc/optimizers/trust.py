r"""The published forms of LARS, as pure functions of one weight's tensors.

They differ in the denominator of the trust ratio, in what happens where a
norm is zero, in what the ratio is applied to and in whether the global rate
stands inside the velocity. A form knows neither variables nor optimizers, so
each is checked against a NumPy loop of its own in tests/oracles.py.

Symbols   x       one weight
          g       its gradient, averaged over all workers
          v       its velocity
          gamma   global learning rate at this step
          tau     trust coefficient
          lambda  weight decay coefficient
          m       momentum decay factor
          eps     added to the denominator
          rho     trust ratio; gamma * rho is the weight's local rate
"""

import dataclasses
from collections.abc import Callable

import tensorflow as tf

from tf_gnc.optimizers.exclusion import BIASES_AND_NORMALIZATION

_CHAINERS_THRESHOLD = 1e-2


@dataclasses.dataclass(frozen=True)
class Settings:
    """The numbers in a form, named as in `tf_gnc.optimizers.LARS`."""

    momentum: float
    weight_decay: float
    trust_coefficient: float
    epsilon: float
    clip: bool
    classic_momentum: bool


# From x, g, v and gamma to the next x, the next v and rho.
Update = tuple[tf.Tensor, tf.Tensor, tf.Tensor]
Form = Callable[[tf.Tensor, tf.Tensor, tf.Tensor, tf.Tensor, Settings], Update]


def paper(
    x: tf.Tensor, g: tf.Tensor, v: tf.Tensor, gamma: tf.Tensor, s: Settings
) -> Update:
    """Unit ratio where the formula has no value or would freeze the weight."""
    size = tf.norm(x)
    bottom = tf.norm(g) + s.weight_decay * size + s.epsilon
    ratio = _ratio(s, size, bottom, defined=(size > 0) & (bottom > 0))
    return _move(x, g + s.weight_decay * x, v, gamma, ratio, s)


def mlperf(
    x: tf.Tensor, g: tf.Tensor, v: tf.Tensor, gamma: tf.Tensor, s: Settings
) -> Update:
    """The paper's denominator plus eps; unit ratio for a zero gradient."""
    size, slope = tf.norm(x), tf.norm(g)
    bottom = slope + s.weight_decay * size + s.epsilon
    ratio = _ratio(s, size, bottom, defined=(size > 0) & (slope > 0))
    return _move(x, g + s.weight_decay * x, v, gamma, ratio, s)


def tf_models(
    x: tf.Tensor, g: tf.Tensor, v: tf.Tensor, gamma: tf.Tensor, s: Settings
) -> Update:
    """The norm of the decayed gradient, or of the velocity, below."""
    size = tf.norm(x)
    decayed = g + s.weight_decay * x
    moves = decayed if s.classic_momentum else s.momentum * v + decayed
    slope = tf.norm(moves)
    ratio = _ratio(s, size, slope + s.epsilon, defined=(size > 0) & (slope > 0))
    if s.classic_momentum:
        return _move(x, decayed, v, gamma, ratio, s)
    return x - gamma * ratio * moves, moves, ratio


def larc(
    x: tf.Tensor, g: tf.Tensor, v: tf.Tensor, gamma: tf.Tensor, s: Settings
) -> Update:
    """The local rate at most the global one; no decay where a norm is zero."""
    size, slope = tf.norm(x), tf.norm(g)
    defined = (size > 0) & (slope > 0)
    bottom = slope + s.weight_decay * size + s.epsilon
    ratio = _ratio(s, size, bottom, defined)
    if s.clip:
        # Not min(ratio / gamma, 1): a global rate may be zero.
        ratio = tf.where(defined & (ratio < gamma), ratio / gamma, 1)
    decay = tf.where(defined, tf.cast(s.weight_decay, x.dtype), 0)
    return _move(x, ratio * (g + decay * x), v, gamma, ratio, s)


def chainer(
    x: tf.Tensor, g: tf.Tensor, v: tf.Tensor, gamma: tf.Tensor, s: Settings
) -> Update:
    """No adaptation of a small weight, which moves at `gamma * tau`."""
    size = tf.norm(x)
    bottom = tf.norm(g) + s.weight_decay * size + s.epsilon
    defined = (size > _CHAINERS_THRESHOLD) & (bottom > 0)
    ratio = tf.where(defined, tf.math.divide_no_nan(size, bottom), 1)
    ratio *= s.trust_coefficient
    return _move(x, g + s.weight_decay * x, v, gamma, ratio, s)


def plain(
    x: tf.Tensor, g: tf.Tensor, v: tf.Tensor, gamma: tf.Tensor, s: Settings
) -> Update:
    """Momentum alone, for weights that are neither adapted nor decayed."""
    return _move(x, g, v, gamma, tf.ones([], x.dtype), s)


def _ratio(
    s: Settings, size: tf.Tensor, bottom: tf.Tensor, defined: tf.Tensor
) -> tf.Tensor:
    """Returns `tau * size / bottom`, or 1 where that is not defined."""
    top = s.trust_coefficient * size
    return tf.where(defined, tf.math.divide_no_nan(top, bottom), 1)


def _move(
    x: tf.Tensor,
    direction: tf.Tensor,
    v: tf.Tensor,
    gamma: tf.Tensor,
    ratio: tf.Tensor,
    s: Settings,
) -> Update:
    """Moves the weight by its velocity.

    The paper's is made at the rate of its step, and keeps it; what is still
    in PyTorch's moves at the new rate, and has the ratio in its direction.
    """
    if s.classic_momentum:
        v = s.momentum * v - gamma * ratio * direction
        return x + v, v, ratio
    v = s.momentum * v + direction
    return x - gamma * v, v, ratio


@dataclasses.dataclass(frozen=True)
class Variant:
    """A form and what its source sets by default.

    `clip` means something only to a form whose source sets it.
    """

    form: Form
    trust_coefficient: float = 0.001
    epsilon: float = 0.0
    clip: bool = False
    classic_momentum: bool = True
    exclude: tuple[str, ...] = BIASES_AND_NORMALIZATION


VARIANTS = {
    "paper": Variant(paper),
    "tf_models": Variant(tf_models),
    "mlperf": Variant(mlperf, epsilon=1e-7),
    "larc": Variant(
        larc,
        trust_coefficient=0.02,
        epsilon=1e-8,
        clip=True,
        classic_momentum=False,
    ),
    "chainer": Variant(chainer, epsilon=1e-9, exclude=()),
}
