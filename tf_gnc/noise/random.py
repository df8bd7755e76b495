"""RNC's rule: random noise, the paper's control."""

import random
from typing import Any

import keras
import tensorflow as tf

from tf_gnc import _check
from tf_gnc.noise.at import At
from tf_gnc.noise.rule import NoiseRule, Scaling


@keras.saving.register_keras_serializable(package="tf_gnc")
class RandomNoise(NoiseRule):
    r"""Random noise convolution (RNC): isotropic noise, the paper's control.

    Worker i differentiates at

    .. math:: x_i = x - \alpha\,\eta_t\,\|x_p\|\,\frac{u_i}{\|u_i\|}, \qquad
              u_i \sim U[-\tfrac12, \tfrac12]^{|p|},

    drawn anew for each step, worker and filter.

    Paper: Haruki et al. (2019), arXiv:1906.10822, section 2.3 and Eq. (5).
    Deviation from the paper: it says "uniformly distributed on the unit cube"
    and needs a mean of zero, so the cube is centred at zero. With
    `scaling="none"` the draw is used as it is, neither normalised nor scaled.

    Cost: one pass, P random numbers for each worker; nothing is remembered.

    The draw is a function of (seed, step, worker) alone, so it does not depend
    on how many replicas or processes carry the workers. A step compiled by XLA
    draws other numbers from the same seed: TensorFlow's generators differ.

    Args:
        alpha: Coefficient of the noise, 0 or more; the paper uses 0.001 to
            0.01, and 2 to 4 after a switch from GNC (Table 5).
        scaling: `"filter"` (Eq. 5) or `"none"`.
        include_vectors: Whether weights of rank 0 and 1 are displaced.
        seed: Integer from 0 to 2**31 - 1. None draws one from Python's
            `random`, which `keras.utils.set_random_seed` seeds; the drawn
            seed is kept in the configuration.
        **shared: `relative`, `include`, `every`, `start_step` and `stop_step`
            of `NoiseRule`.

    Raises:
        ValueError: If an argument is outside its range.

    Example:
        >>> from tf_gnc.noise.layout import WeightLayout
        >>> layout = WeightLayout([(2, 1)])  # one filter
        >>> rule = RandomNoise(alpha=0.5, seed=1)
        >>> at = At(tf.constant(0), tf.constant(3), None, layout, 0.1, {})
        >>> u = rule.direction(at)
        >>> round(float(tf.norm(u)), 6)  # one filter, normalised
        1.0
    """

    def __init__(
        self,
        alpha: float | None = None,
        scaling: Scaling = "filter",
        include_vectors: bool = True,
        seed: int | None = None,
        **shared: Any,
    ) -> None:
        super().__init__(alpha, scaling, include_vectors, **shared)
        if seed is None:
            seed = random.randrange(2**31)
        self.seed = _check.integer("seed", seed, minimum=0, maximum=2**31 - 1)

    def direction(self, at: At) -> tf.Tensor:
        """Returns a random vector, of norm 1 in each filter when scaled."""
        # (seed, step, worker) must be told apart in two 64-bit numbers: a
        # worker's index takes the low 32 bits beside the rule's seed.
        words = [
            tf.constant(self.seed, tf.int64) * 2**32
            + tf.cast(at.worker, tf.int64),
            tf.cast(at.step, tf.int64),
        ]
        cube = tf.random.stateless_uniform(
            [at.layout.size],
            seed=tf.stack(words),
            minval=-0.5,
            maxval=0.5,
            dtype=at.layout.dtype,
            alg="philox",  # The same numbers on a CPU and on a GPU.
        )
        if self.scaling == "none":
            return cube
        return tf.math.divide_no_nan(cube, at.layout.filter_norms(cube))

    def get_config(self) -> dict:
        """Returns the constructor's arguments, the drawn seed included."""
        return {**super().get_config(), "seed": self.seed}
