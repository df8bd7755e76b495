"""Momentum-SAM's rule: workers look ahead along the optimizer's momentum."""

from typing import Any

import keras
import tensorflow as tf

from tf_gnc.noise.at import At
from tf_gnc.noise.ball import BallRule, unit


@keras.saving.register_keras_serializable(package="tf_gnc")
class MomentumNoise(BallRule):
    r"""Momentum-SAM: one displacement for all, along the last update.

    All workers differentiate at

    .. math:: x_i = x + \rho \frac{v}{\|v\|},

    with v the optimizer's update vector, the way the weights last moved, and
    one norm over all weights. Zero before the first step.

    Paper: Becker et al. (2024), arXiv:2401.12033.
    Deviation from the paper: its public code (MarlonBecker/MSAM) keeps the
    perturbed weights between steps, decays them and takes the update off them;
    here x is always clean, it is what decays, and the displacement is made of
    the velocity of the step before. v is the paper's update vector, PyTorch's
    buffer with the sign turned.

    Cost: one pass; no memory, no collective: v is the optimizer's own. It
    needs an optimizer with momentum: MomentumSGD, LARS, keras.optimizers.SGD,
    Adam and its kin (their first moment with the sign turned), Lion, RMSprop
    with momentum.

    Args:
        rho: Length of the displacement, 0 or more. 0 equals `noise=None`.
        include_vectors: As for `SharpnessAware`.
        **shared: `relative`, `include`, `every`, `start_step` and `stop_step`
            of `NoiseRule`.

    Raises:
        ValueError: If an argument is outside its range; in `fit`, if the
            optimizer has no momentum.

    Example:
        >>> at = At(0, 0, None, None, 0.1,
        ...         {"momentum": lambda: tf.constant([-3.0, 4.0])})
        >>> MomentumNoise(rho=0.3).direction(at).numpy().tolist()
        [0.6000000238418579, -0.800000011920929]
    """

    needs = frozenset({"momentum"})
    usual = 0.3

    def __init__(
        self,
        rho: float | None = usual,
        include_vectors: bool = True,
        **shared: Any,
    ) -> None:
        super().__init__(rho, include_vectors, **shared)

    def direction(self, at: At) -> tf.Tensor:
        """Returns the way back, of length 1."""
        update = self.included(at.momentum, at.layout)
        return -unit(update, update)
