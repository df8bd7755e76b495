"""The paper's momentum SGD: rate in the velocity, decay in the gradient.

Symbols   x       weights
          g       gradient of the loss, averaged over all workers
          v       velocity, one per weight and of its shape
          eta     learning rate at this step
          m       momentum decay factor
          lambda  weight decay coefficient
"""

from collections.abc import Callable, Sequence
from typing import Any

import keras
import tensorflow as tf
from keras import ops

from tf_gnc import _check, _keras_compat

LearningRate = (
    float | keras.optimizers.schedules.LearningRateSchedule | Callable[[], Any]
)


@keras.saving.register_keras_serializable(package="tf_gnc")
class MomentumSGD(keras.optimizers.Optimizer):
    r"""SGD with momentum and with weight decay inside the gradient.

    .. math:: v \leftarrow m v - \eta (g + \lambda x), \qquad
              x \leftarrow x + v

    Paper: Haruki et al. (2019), arXiv:1906.10822, appendix A.3; its weight
    decay of 0.0001 is in appendix A.4.
    Deviation from the paper: none in the velocity. The paper prints no
    formula for weight decay; here it is the gradient of the L2 penalty
    :math:`\frac{\lambda}{2} \|x\|^2`, as in He et al. (2016), whom it
    follows. Clipping, if asked for, bounds :math:`g` before
    :math:`\lambda x` is added.

    Not to be confused with two neighbours. In `keras.optimizers.SGD` the
    decay is decoupled, :math:`x \leftarrow (1 - \eta\lambda) x` beside the
    velocity, so that its pull isn't multiplied by :math:`1/(1 - m)`. In
    PyTorch's SGD the rate stands outside, :math:`x \leftarrow x - \eta v`, so
    that a drop of the rate also shrinks the updates still in the velocity;
    here they were made at the old rate and keep it.

    Sparse gradients (`tf.IndexedSlices`) obey the same formula: momentum and
    decay move the rows that the gradient doesn't mention, too.

    Args:
        learning_rate: A number of at least 0, a
            `keras.optimizers.schedules.LearningRateSchedule` or a function
            without arguments that returns the rate.
        momentum: m, from 0 to 1. 0 is plain gradient descent and allocates
            no velocities.
        weight_decay: lambda, at least 0. Variables that were named in
            `exclude_from_weight_decay` before the first step go without.
        name: Name of the optimizer.
        **kwargs: What `keras.optimizers.Optimizer` takes besides: `clipnorm`,
            `clipvalue`, `global_clipnorm`, `use_ema`, `ema_momentum`,
            `ema_overwrite_frequency`, `loss_scale_factor`,
            `gradient_accumulation_steps`.

    Raises:
        ValueError: If an argument is out of its range or unknown.

    Example:
        >>> x = keras.Variable([1.0])
        >>> optimizer = MomentumSGD(0.5, momentum=0.5, weight_decay=0.5)
        >>> optimizer.apply([tf.constant([0.0])], [x])  # v = -0.5 * 0.5 * 1
        >>> x.numpy().tolist()
        [0.75]
        >>> optimizer.apply([tf.constant([0.0])], [x])  # v = v/2 - 0.25 * 0.75
        >>> x.numpy().tolist()
        [0.4375]
    """

    def __init__(
        self,
        learning_rate: LearningRate = 0.01,
        momentum: float = 0.9,
        weight_decay: float = 0.0,
        name: str | None = None,
        **kwargs: Any,
    ) -> None:
        if not callable(learning_rate):
            # Keras insists on a Python float and turns down 1 or np.float32.
            learning_rate = _check.real(
                "learning_rate", learning_rate, minimum=0
            )
        momentum = _check.real("momentum", momentum, minimum=0, maximum=1)
        decay = _check.real("weight_decay", weight_decay, minimum=0)
        super().__init__(learning_rate=learning_rate, name=name, **kwargs)
        self.momentum = momentum
        self.l2_weight_decay = decay

    @property
    def weight_decay(self) -> None:
        """Keras's decoupled decay: always None. See `l2_weight_decay`.

        The base class applies whatever stands here beside the update, so
        lambda is kept elsewhere and this name is closed.
        """
        return None

    @weight_decay.setter
    def weight_decay(self, value: float | None) -> None:
        if value is not None:
            kind = type(self).__name__
            raise ValueError(
                f"`weight_decay` of a {kind} must stay None, since Keras "
                "would apply it decoupled from the gradient, got "
                f"weight_decay={value!r}. Set `l2_weight_decay` instead, or "
                f"pass {kind}(weight_decay={value!r})."
            )

    def build(self, variables: Sequence[keras.Variable]) -> None:
        """Creates one velocity per variable, none if the momentum is 0."""
        if self.built:
            return
        super().build(variables)
        self.velocities = (
            self.add_optimizer_variables(variables, "velocity")
            if self.momentum
            else []
        )

    def update_step(
        self,
        gradient: tf.Tensor | tf.IndexedSlices,
        variable: tf.Variable | keras.Variable,
        learning_rate: tf.Tensor,
    ) -> None:
        """Updates one variable, on one replica; see the class for how.

        The gradient is already clipped, unscaled and summed over replicas.
        """
        # The roundings are those of keras.optimizers.SGD, in its order, so
        # that without decay the two agree to the last bit.
        rate = ops.cast(learning_rate, variable.dtype)
        gradient = ops.cast(gradient, variable.dtype)
        if self.l2_weight_decay and _keras_compat.uses_weight_decay(
            self, variable
        ):
            decay = ops.cast(self.l2_weight_decay, variable.dtype)
            gradient = ops.add(gradient, ops.multiply(variable, decay))
        step = ops.multiply(gradient, rate)
        if not self.momentum:
            self.assign_sub(variable, step)
            return
        index = _keras_compat.variable_index(self, variable)
        velocity = self.velocities[index]
        momentum = ops.cast(self.momentum, variable.dtype)
        self.assign(
            velocity, ops.subtract(ops.multiply(velocity, momentum), step)
        )
        self.assign_add(variable, velocity)

    def update_vectors(self) -> tuple[list[keras.Variable], int]:
        """Returns the velocities; and 1: weights move along them."""
        return self.velocities, 1

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments that make an equal optimizer."""
        return {
            **super().get_config(),
            "momentum": self.momentum,
            "weight_decay": self.l2_weight_decay,
        }
