"""The family of GNC as methods: rules with some arguments chosen."""

from tf_gnc.noise import GradientNoise, SharpnessAware
from tf_gnc.noise.gradient import NoiseDtype
from tf_gnc.noise.rule import Scaling, Statistics


def sam(
    rho: float = 0.05,
    every: int = 1,
    include_vectors: bool = True,
    statistics: Statistics = "displaced",
) -> SharpnessAware:
    """SAM of the whole batch; two passes.

    Args:
        rho: Length of the displacement, 0 or more.
        every: A second pass in every so many steps alone.
        include_vectors: Whether weights of rank 0 and 1 are displaced.
        statistics: Which pass batch normalization's statistics are of.
    """
    return SharpnessAware(
        rho, "all", every=every, include_vectors=include_vectors,
        statistics=statistics,
    )  # fmt: skip


def worker_sam(
    rho: float = 0.05,
    group: int = 1,
    every: int = 1,
    include_vectors: bool = True,
    statistics: Statistics = "displaced",
) -> SharpnessAware:
    """SAM of each worker or group by itself (m-SAM); two passes.

    Args:
        rho: As for SAM.
        group: Workers whose mean gradient is taken, a divisor of --workers.
        every: As for SAM.
        include_vectors: As for SAM.
        statistics: As for SAM.
    """
    return SharpnessAware(
        rho, group, every=every, include_vectors=include_vectors,
        statistics=statistics,
    )  # fmt: skip


def asam(
    rho: float = 0.5,
    every: int = 1,
    include_vectors: bool = True,
    statistics: Statistics = "displaced",
) -> SharpnessAware:
    """Adaptive SAM of the whole batch; two passes.

    Args:
        rho: As for SAM, some ten times as large.
        every: As for SAM.
        include_vectors: As for SAM.
        statistics: As for SAM.
    """
    return SharpnessAware(rho, "all", True, every, include_vectors, statistics)


def extrapolation(
    alpha: float,
    scaling: Scaling = "filter",
    include_vectors: bool = True,
    max_displacement: float | None = None,
    noise_dtype: NoiseDtype = "float32",
) -> GradientNoise:
    """Extrapolation (Lin et al. 2020): GNC with the mean left in.

    Args:
        alpha: As for GNC.
        scaling: As for GNC.
        include_vectors: As for GNC.
        max_displacement: As for GNC.
        noise_dtype: As for GNC.
    """
    return GradientNoise(
        alpha, scaling, include_vectors, max_displacement, noise_dtype,
        center=False,
    )  # fmt: skip


def gnc_current(
    alpha: float,
    scaling: Scaling = "filter",
    include_vectors: bool = True,
    max_displacement: float | None = None,
) -> GradientNoise:
    """GNC of this step's gradients instead of the last one's; two passes.

    Args:
        alpha: As for GNC.
        scaling: As for GNC.
        include_vectors: As for GNC.
        max_displacement: As for GNC.
    """
    return GradientNoise(
        alpha, scaling, include_vectors, max_displacement, current=True
    )


def gnc_uphill(
    alpha: float,
    scaling: Scaling = "filter",
    include_vectors: bool = True,
    max_displacement: float | None = None,
    noise_dtype: NoiseDtype = "float32",
) -> GradientNoise:
    """GNC with the sign turned, as SAM has it.

    Args:
        alpha: As for GNC.
        scaling: As for GNC.
        include_vectors: As for GNC.
        max_displacement: As for GNC.
        noise_dtype: As for GNC.
    """
    return GradientNoise(
        alpha, scaling, include_vectors, max_displacement, noise_dtype,
        uphill=True,
    )  # fmt: skip
