r"""Noise rules: how far each worker steps aside before it differentiates.

A rule is a pure function of tensors. It owns no variables, draws no hidden
random numbers and knows neither Keras models nor tf.distribute.

Both displace worker i's weights by x_i = x - alpha * eta_t * ||x_p|| * noise_i
and differ in the noise alone.

Symbols   x      the clean weights, one vector of P elements
          eta_t  the optimizer's learning rate at step t
          x_p    filter p of the weights (see tf_gnc.layout)
          M      number of workers

Floor 1: may import tf_gnc._check and tf_gnc.layout, nothing else of ours.
"""

import random

import keras
import tensorflow as tf

from tf_gnc import _check
from tf_gnc.layout import WeightLayout

_SCALINGS = ("filter", "none")
_NOISE_DTYPES = ("float32", "bfloat16", "float16", "float64")


class NoiseRule:
    """What `GradientNoise` and `RandomNoise` share: scale and inclusion.

    A rule of your own implements `noise` and inherits the rest.

    Args:
        alpha: Coefficient of the noise, 0 or more. 0 turns the rule off.
        scaling: `"filter"` multiplies each filter's noise by the norm of that
            filter (Eqs. 5 and 6), `"none"` leaves the noise as it is (Eq. 3).
        include_vectors: Whether weights of rank 0 and 1 (biases, the gamma
            and beta of BatchNorm) are displaced too, each as one filter.
    """

    remembers_gradients = False
    """Whether the rule needs each worker's gradient of the step before."""

    def __init__(
        self,
        alpha: float,
        scaling: str = "filter",
        include_vectors: bool = True,
    ) -> None:
        self.alpha = _check.real("alpha", alpha, minimum=0)
        self.scaling = _check.choice("scaling", scaling, _SCALINGS)
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

        Args:
            weights: The clean weights, shape `(P,)`.
            scale: The result of `scale` for this step.
            noise: The result of `noise` for this step and worker.
            layout: Where each weight lies in the vector.
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


@keras.saving.register_keras_serializable(package="tf_gnc")
class GradientNoise(NoiseRule):
    r"""Gradient noise convolution (GNC): noise that the gradients bring along.

    Worker i differentiates at

    .. math:: x_i = x - \alpha\,\eta_t\,\|x_p\|\,\omega^i_t, \qquad
              \omega^i_t = g^i_{t-1} - \tilde g_{t-1},

    the mean of the workers' gradients updates the clean weights.

    Paper: Haruki et al. (2019), arXiv:1906.10822, Algorithm 1, Eqs. (3), (4)
    and (6).
    Deviation from the paper: none with the defaults. Where it is silent:
    biases and the vectors of BatchNorm are displaced too, each counting as one
    filter (Algorithm 1 perturbs "weights x", all of them; the sources that the
    paper cites for filter-wise scaling leave them out); under LARS, eta is the
    global learning rate unless told otherwise.

    The noise sums to zero over the workers and is zero at the first step, with
    a single worker, and where all workers see the same examples.

    Args:
        alpha: Coefficient of the noise, 0 or more; the paper uses 0.1 for
            CIFAR and 0.0001 for ImageNet (Table 5). 0 equals `noise=None`.
        scaling: `"filter"` (Eq. 6, the paper's experiments) or `"none"`
            (Eq. 3).
        include_vectors: Whether weights of rank 0 and 1 are displaced.
        max_displacement: If set, bounds each filter's displacement to this
            multiple of the filter's norm. Not in the paper (None): noise
            feeds the gradient that feeds the next noise, so a diverging run
            can blow up sooner with noise than without.
        noise_dtype: Dtype in which the workers' gradients are remembered.
            The memory holds V x P numbers a replica, where V is the number of
            workers per replica; `"bfloat16"` halves it.

    Raises:
        ValueError: If an argument is outside its range.

    Example:
        >>> layout = WeightLayout([(2, 1)])
        >>> rule = GradientNoise(alpha=0.5)
        >>> x = tf.constant([3.0, 4.0])  # one filter with norm 5
        >>> scale = rule.scale(x, 0.5 * 0.1, layout)  # alpha * eta = 0.05
        >>> rule.displace(x, scale, tf.constant([2.0, -2.0]), layout).numpy()
        array([2.5, 4.5], dtype=float32)
    """

    remembers_gradients = True

    def __init__(
        self,
        alpha: float,
        scaling: str = "filter",
        include_vectors: bool = True,
        max_displacement: float | None = None,
        noise_dtype: str = "float32",
    ) -> None:
        super().__init__(alpha, scaling, include_vectors)
        if max_displacement is not None:
            max_displacement = _check.real(
                "max_displacement", max_displacement, above=0
            )
        self.max_displacement = max_displacement
        self.noise_dtype = _check.choice(
            "noise_dtype", noise_dtype, _NOISE_DTYPES
        )

    def noise(
        self,
        step: tf.Tensor,
        worker: tf.Tensor,
        gradient_noise: tf.Tensor | None,
        layout: WeightLayout,
    ) -> tf.Tensor:
        """Returns the gradient noise itself (Eq. 4); see the base class."""
        return gradient_noise

    def displace(
        self,
        weights: tf.Tensor,
        scale: tf.Tensor,
        noise: tf.Tensor,
        layout: WeightLayout,
    ) -> tf.Tensor:
        """Returns `x - scale * noise`, bounded by `max_displacement`.

        A filter that would move further goes in the same direction by just the
        bound. (Not at all where the length overflows: 1.8e19 in float32.)
        """
        if self.max_displacement is None:
            return super().displace(weights, scale, noise, layout)
        displacement = scale * noise
        bound = tf.cast(self.max_displacement, layout.dtype)
        bound *= layout.filter_norms(weights)
        length = layout.filter_norms(displacement)
        shrink = tf.minimum(tf.math.divide_no_nan(bound, length), 1)
        return weights - shrink * displacement

    def get_config(self) -> dict:
        """Returns the constructor's arguments."""
        return {
            **super().get_config(),
            "max_displacement": self.max_displacement,
            "noise_dtype": self.noise_dtype,
        }


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

    Raises:
        ValueError: If an argument is outside its range.

    Example:
        >>> layout = WeightLayout([(2, 1)])
        >>> rule = RandomNoise(alpha=0.5, seed=1)
        >>> u = rule.noise(tf.constant(0), tf.constant(3), None, layout)
        >>> round(float(tf.norm(u)), 6)  # one filter, normalised
        1.0
    """

    def __init__(
        self,
        alpha: float,
        scaling: str = "filter",
        include_vectors: bool = True,
        seed: int | None = None,
    ) -> None:
        super().__init__(alpha, scaling, include_vectors)
        if seed is None:
            seed = random.randrange(2**31)
        self.seed = _check.integer("seed", seed, minimum=0, maximum=2**31 - 1)

    def noise(
        self,
        step: tf.Tensor,
        worker: tf.Tensor,
        gradient_noise: tf.Tensor | None,
        layout: WeightLayout,
    ) -> tf.Tensor:
        """Returns a random vector, of norm 1 in each filter when scaled."""
        # (seed, step, worker) must be told apart in two 64-bit numbers: a
        # worker's index takes the low 32 bits beside the rule's seed.
        words = [
            tf.constant(self.seed, tf.int64) * 2**32
            + tf.cast(worker, tf.int64),
            tf.cast(step, tf.int64),
        ]
        cube = tf.random.stateless_uniform(
            [layout.size],
            seed=tf.stack(words),
            minval=-0.5,
            maxval=0.5,
            dtype=layout.dtype,
            alg="philox",  # The same numbers on a CPU and on a GPU.
        )
        if self.scaling == "none":
            return cube
        return tf.math.divide_no_nan(cube, layout.filter_norms(cube))

    def get_config(self) -> dict:
        """Returns the constructor's arguments, the drawn seed included."""
        return {**super().get_config(), "seed": self.seed}
