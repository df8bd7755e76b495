"""GNC's rule: noise that the workers' own gradients bring along."""

from typing import Any, Literal, get_args

import keras
import tensorflow as tf

from tf_gnc import _check
from tf_gnc.noise.at import At
from tf_gnc.noise.layout import WeightLayout
from tf_gnc.noise.rule import NoiseRule, Scaling, rounding_of

NoiseDtype = Literal["float32", "bfloat16", "float16", "float64"]


@keras.saving.register_keras_serializable(package="tf_gnc")
class GradientNoise(NoiseRule):
    r"""Gradient noise convolution (GNC): noise that the gradients bring along.

    Worker i differentiates at

    .. math:: x_i = x - \alpha\,\eta_t\,\|x_p\|\,\omega^i_t, \qquad
              \omega^i_t = g^i_{t-1} - \tilde g_{t-1},

    the mean of the workers' gradients updates the clean weights.

    Paper: Haruki et al. (2019), arXiv:1906.10822, Algorithm 1, Eqs. (3), (4)
    and (6).
    Deviation from the paper: under LARS, eta is the global learning rate
    where its letters mean the local one, which `LARS(noise_rate="layer")`
    takes, that of the step before; else none with the defaults. Where it is
    silent: biases and the vectors of BatchNorm are displaced too, each
    counting as one filter (Algorithm 1 perturbs "weights x", all of them; the
    sources that the paper cites for filter-wise scaling leave them out).

    The noise sums to zero over the workers and is zero at the first step, with
    a single worker, and where all workers see the same examples.

    Cost: one pass. A replica holds the gradients of its V workers and their
    mean, (V + 1) x P numbers; the mean crosses the replicas anyway.

    Three switches, not in the paper, ask which part of it matters:
    `center=False` leaves the mean in, so that all workers look further along
    the last gradient too (extrapolation, Lin et al. (2020), arXiv:2006.05720,
    the stale half of GNC); `current=True` takes the gradients of this step, at
    the cost of a second pass and, on several replicas, a second collective;
    `uphill=True` turns the sign, as sharpness-aware minimization has it.

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
        center: Whether the workers' mean is subtracted.
        current: Whether the gradients are those at x_t, not of step t - 1.
        uphill: Whether workers move along their gradients, not against them.
        **shared: `relative`, `include`, `every`, `start_step` and `stop_step`
            of `NoiseRule`.

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

    def __init__(
        self,
        alpha: float | None = None,
        scaling: Scaling = "filter",
        include_vectors: bool = True,
        max_displacement: float | None = None,
        noise_dtype: NoiseDtype = "float32",
        center: bool = True,
        current: bool = False,
        uphill: bool = False,
        **shared: Any,
    ) -> None:
        self.center = _check.boolean("center", center)
        self.current = _check.boolean("current", current)
        self.uphill = _check.boolean("uphill", uphill)
        self._own = "current" if current else "previous"
        self._mean = f"{self._own}_mean"
        self.needs = {self._own, self._mean} if center else {self._own}
        super().__init__(alpha, scaling, include_vectors, **shared)
        if max_displacement is not None:
            max_displacement = _check.real(
                "max_displacement", max_displacement, above=0
            )
            if self.relative is not None:
                raise ValueError(
                    "`max_displacement` bounds a length that `relative` sets, "
                    f"got max_displacement={max_displacement} and "
                    f"relative={self.relative}. Leave one of them out."
                )
        self.max_displacement = max_displacement
        self.noise_dtype = _check.choice(
            "noise_dtype", noise_dtype, get_args(NoiseDtype)
        )

    def direction(self, at: At) -> tf.Tensor:
        """Returns the gradient noise (Eq. 4), perhaps by its switches."""
        noise = own = getattr(at, self._own)
        if self.center:
            noise -= getattr(at, self._mean)
        if self.center and self.relative is not None:
            noise = self._above_rounding(noise, own, at.layout)
        return -noise if self.uphill else noise

    def _above_rounding(
        self, noise: tf.Tensor, own: tf.Tensor, layout: WeightLayout
    ) -> tf.Tensor:
        """Returns zeros for filters whose noise a difference's rounding makes.

        A relative length would blow it up, where all workers are alike.
        """
        dtype = layout.dtype if self.current else self.noise_dtype
        least = rounding_of(dtype) * layout.filter_norms(own)
        heard = layout.filter_norms(noise) > least
        return tf.where(heard, noise, tf.zeros_like(noise))

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
            **self._chosen(center=True, current=False, uphill=False),
        }
