"""Momentum-SAM's rule: workers look ahead along the optimizer's momentum."""

import keras
import tensorflow as tf

from tf_gnc.noise.at import At
from tf_gnc.noise.rule import NoiseRule


@keras.saving.register_keras_serializable(package="tf_gnc")
class MomentumNoise(NoiseRule):
    r"""Momentum-SAM: one displacement for all, along the last update.

    All workers differentiate at

    .. math:: x_i = x + \rho \frac{v}{\|v\|},

    with v the optimizer's update vector, the way the weights last moved, and
    one norm over all weights. Zero before the first step.

    Paper: Becker et al. (2024), arXiv:2401.12033.
    Deviation from the paper: its public code (MarlonBecker/MSAM) keeps the
    perturbed weights between steps and takes the update off them; here x is
    always clean and the displacement is made of the velocity of the step
    before. v is the paper's update vector, PyTorch's buffer with the sign
    turned.

    Cost: one pass; no memory, no collective: v is the optimizer's own. It
    needs an optimizer with momentum: MomentumSGD, LARS, keras.optimizers.SGD,
    Adam and its kin (their first moment with the sign turned), Lion, RMSprop
    with momentum.

    Args:
        rho: Length of the displacement, 0 or more. 0 equals `noise=None`.
        include_vectors: Whether weights of rank 0 and 1 are displaced, and
            count in the norm.
        every: See `NoiseRule`; so are the others.
        start_step: The first step with a displacement.
        stop_step: The first step without one again.

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
    follows_rate = False
    coefficient = "rho"

    def __init__(
        self,
        rho: float = 0.3,
        include_vectors: bool = True,
        every: int = 1,
        start_step: int = 0,
        stop_step: int | None = None,
    ) -> None:
        super().__init__(
            rho, "none", include_vectors, every, start_step, stop_step
        )

    @property
    def rho(self) -> float:
        """Length of the displacement."""
        return self.alpha

    def direction(self, at: At) -> tf.Tensor:
        """Returns the way back, of length 1."""
        update = at.momentum
        if not self.include_vectors:
            update *= at.layout.kernel_mask()
        return -tf.math.divide_no_nan(update, tf.norm(update))

    def get_config(self) -> dict:
        """Returns the constructor's arguments."""
        config = super().get_config()
        del config["scaling"]
        return config
