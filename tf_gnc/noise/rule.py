r"""What a noise rule is: how far a worker steps aside to differentiate.

A rule is a pure function of tensors. It owns no variables, draws no hidden
random numbers and knows neither Keras models nor tf.distribute.

Both displace worker i's weights by x_i = x - alpha * eta_t * ||x_p|| * noise_i
and differ in the noise alone.

Symbols   x      the clean weights, one vector of P elements
          eta_t  the optimizer's learning rate at step t
          x_p    filter p of the weights (see tf_gnc.noise.layout)
          M      number of workers
"""

from typing import Literal, get_args

import tensorflow as tf

from tf_gnc import _check
from tf_gnc.noise.layout import WeightLayout

Scaling = Literal["filter", "none"]


class NoiseRule:
    """What `GradientNoise` and `RandomNoise` share: scale and inclusion.

    A rule of your own implements `noise` and inherits the rest; one that uses
    `gradient_noise` there sets `remembers_gradients = True`.

    Args:
        alpha: Coefficient of the noise, 0 or more. 0 turns the rule off.
        scaling: `"filter"` multiplies each filter's noise by the norm of that
            filter (Eqs. 5 and 6), `"none"` leaves the noise as it is (Eq. 3).
        include_vectors: Whether weights of rank 0 and 1, and biases of any
            rank, are displaced too (the gamma and beta of BatchNorm among
            them), each as one filter.
    """

    remembers_gradients = False
    """Whether the rule needs each worker's gradient of the step before."""

    noise_dtype = "float32"
    """Dtype in which the step keeps those gradients, if the rule needs them."""

    def __init__(
        self,
        alpha: float,
        scaling: Scaling = "filter",
        include_vectors: bool = True,
    ) -> None:
        self.alpha = _check.real("alpha", alpha, minimum=0)
        self.scaling = _check.choice("scaling", scaling, get_args(Scaling))
        self.include_vectors = _check.boolean(
            "include_vectors", include_vectors
        )

    def scale(
        self, weights: tf.Tensor, step_size: tf.Tensor, layout: WeightLayout
    ) -> tf.Tensor:
        """Returns what all workers' noise is multiplied by in this step.

        Args:
            weights: The clean weights, shape `(P,)`.
            step_size: alpha * eta_t, a scalar.
            layout: Where each weight lies in the vector.

        Returns:
            A vector of shape `(P,)`: alpha * eta_t * ||x_p|| with filter-wise
            scaling (Eqs. 5 and 6), alpha * eta_t without (Eq. 3).
        """
        scale = tf.cast(step_size, layout.dtype)
        if self.scaling == "filter":
            scale *= layout.filter_norms(weights)
        if not self.include_vectors:
            scale *= layout.kernel_mask()
        return tf.broadcast_to(scale, [layout.size])

    def noise(
        self,
        step: tf.Tensor,
        worker: tf.Tensor,
        gradient_noise: tf.Tensor | None,
        layout: WeightLayout,
    ) -> tf.Tensor:
        """Returns one worker's noise of this step, shape `(P,)`.

        Args:
            step: Number of steps taken so far, an integer scalar.
            worker: The worker's index in the whole cluster, 0 to M - 1.
            gradient_noise: The worker's gradient of the step before minus the
                mean over workers (Eq. 4), shape `(P,)`; None for a rule that
                remembers no gradients.
            layout: Where each weight lies in the vector.
        """
        raise NotImplementedError(
            f"{type(self).__name__} must implement `noise`."
        )

    def displace(
        self,
        weights: tf.Tensor,
        scale: tf.Tensor,
        noise: tf.Tensor,
        layout: WeightLayout,
    ) -> tf.Tensor:
        """Returns one worker's weights `x - scale * noise`, shape `(P,)`.

        It takes the clean weights, and what `scale` and `noise` returned for
        this step and worker.
        """
        return weights - scale * noise

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and repr(other) == repr(self)

    def __hash__(self) -> int:
        return hash(repr(self))

    def get_config(self) -> dict:
        """Returns the constructor's arguments."""
        return {
            "alpha": self.alpha,
            "scaling": self.scaling,
            "include_vectors": self.include_vectors,
        }

    @classmethod
    def from_config(cls, config: dict) -> "NoiseRule":
        """Makes the rule from what `get_config` returned."""
        return cls(**config)

    def __repr__(self) -> str:
        pairs = self.get_config().items()
        arguments = ", ".join(f"{k}={v!r}" for k, v in pairs)
        return f"{type(self).__name__}({arguments})"
