"""SAM and its kin: workers that differentiate uphill of their gradients."""

from typing import Any, Literal

import keras
import tensorflow as tf

from tf_gnc import _check
from tf_gnc.noise.at import At
from tf_gnc.noise.ball import BallRule, unit
from tf_gnc.noise.rule import Statistics

_ETA = 0.01


@keras.saving.register_keras_serializable(package="tf_gnc")
class SharpnessAware(BallRule):
    r"""Sharpness-aware minimization: SAM, m-SAM and ASAM, per worker.

    Worker i differentiates at

    .. math:: x_i = x + \rho \frac{g_G}{\|g_G\|}, \qquad
              g_G = \frac{1}{|G|} \sum_{j \in G} \nabla f(d^j; x),

    with one norm over all weights and the mean gradient at the clean weights
    over its group G of workers; with `adaptive`, elementwise,

    .. math:: x_i = x + \rho \frac{T^2 g_G}{\|T g_G\|}, \qquad T = |x| + 0.01.

    Paper: Foret et al. (2020), arXiv:2010.01412, Eq. (2), p = 2. Each worker
    its own (`group=1`) is its section 4.1's m-sharpness and what its authors'
    code does by default, one device a worker; Behdin et al. (2023),
    arXiv:2302.09693, call it mSAM. ASAM: Kwon et al. (2021), arXiv:2102.11600,
    with eta = 0.01.
    Deviation from the paper: ASAM's authors leave biases as they are in T
    (T = 1) in their code; here T is |x| + 0.01 for all. Loss, metrics and
    predictions are those at the displaced weights.

    Batch normalization's moving statistics are those of the pass at the
    displaced weights (`statistics="displaced"`, as tf-keras has them) or of
    the clean pass (`"clean"`, as google-research/sam keeps them).

    Dropout and other random layers draw the same masks in both passes, each
    worker its own, those of the step without a rule: both gradients are of
    one function. So does google-research/sam, by one key for both passes;
    davda54/sam's second call draws anew.

    Cost: a second forward and backward pass in the steps that displace; on
    several replicas, if a group spans them, a second collective of M / group
    vectors in every step. A group within a replica keeps V / group vectors
    while the step lasts, a group of one none.

    Args:
        rho: Length of the displacement, 0 or more. 0 equals `noise=None` and
            costs a pass.
        group: Workers whose mean gradient is taken: a divisor of M, of
            consecutive workers, or `"all"` of the batch.
        adaptive: ASAM; wants a rho some ten times as large.
        every: A second pass in every so many steps alone.
        include_vectors: Whether weights of rank 0 and 1 are displaced, and
            count in the norm.
        statistics: Which pass batch normalization's moving statistics are of,
            `"displaced"` or `"clean"`.
        **shared: `relative`, `include`, `start_step` and `stop_step` of
            `NoiseRule`. SAM-ON (Mueller et al. (2023), arXiv:2306.04226)
            displaces norm layers alone, `include="gamma|beta"`.

    Raises:
        ValueError: If an argument is outside its range; in `fit`, if `group`
            doesn't divide the workers.

    Example:
        >>> x = tf.constant([1.0, 1.0])
        >>> at = At(0, 0, x, None, 0.1,
        ...         {"current_mean": lambda: tf.constant([3.0, 4.0])})
        >>> moved = x - 0.5 * SharpnessAware(rho=0.5).direction(at)
        >>> [round(float(value), 2) for value in moved]
        [1.3, 1.4]
    """

    needs = frozenset({"current_mean"})
    usual = 0.05

    def __init__(
        self,
        rho: float | None = usual,
        group: int | Literal["all"] = 1,
        adaptive: bool = False,
        every: int = 1,
        include_vectors: bool = True,
        statistics: Statistics = "displaced",
        **shared: Any,
    ) -> None:
        self.group, self.statistics = group, statistics
        self.adaptive = _check.boolean("adaptive", adaptive)
        super().__init__(rho, include_vectors, every=every, **shared)

    def direction(self, at: At) -> tf.Tensor:
        """Returns downhill, of length 1; zero for a zero gradient."""
        gradient = self.included(at.current_mean, at.layout)
        if not self.adaptive:
            return -unit(gradient, gradient)
        size = tf.abs(at.weights) + _ETA
        scaled = size * gradient
        return -unit(size * scaled, scaled)

    def get_config(self) -> dict:
        """Returns the constructor's arguments."""
        return {
            **super().get_config(),
            "group": self.group,
            "adaptive": self.adaptive,
            "statistics": self.statistics,
        }
