"""What rules share that displace by a length rho, one norm over all weights."""

from typing import Any

import tensorflow as tf

from tf_gnc.noise.rule import NoiseRule


class BallRule(NoiseRule):
    """A rule that displaces to the surface of a ball of radius rho around x.

    Its `direction` is of length 1 over all weights that are displaced, or
    zero; the learning rate plays no part.

    Args:
        rho: Length of the displacement, 0 or more; None takes the usual one.
        include_vectors: Whether weights of rank 0 and 1 are displaced, and
            count in the norm.
        **shared: `relative`, `include`, `every`, `start_step` and `stop_step`
            of `NoiseRule`.
    """

    follows_rate = False
    coefficient = "rho"

    def __init__(
        self,
        rho: float | None = None,
        include_vectors: bool = True,
        **shared: Any,
    ) -> None:
        scaling = "none" if shared.get("relative") is None else "filter"
        super().__init__(rho, scaling, include_vectors, **shared)

    @property
    def rho(self) -> float | None:
        """Length of the displacement; None with a relative one."""
        return self.alpha if self.relative is None else None

    def get_config(self) -> dict:
        """Returns the constructor's arguments."""
        config = super().get_config()
        del config["scaling"]
        return config


def unit(vector: tf.Tensor, length_of: tf.Tensor) -> tf.Tensor:
    """Returns a vector divided by the norm of another; zero if that is zero."""
    return tf.math.divide_no_nan(vector, tf.norm(length_of))
