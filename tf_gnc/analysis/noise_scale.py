r"""How much the examples' gradients differ: the gradient noise scale."""

import math

import numpy as np

from tf_gnc import _check


def estimates(
    small_square: float | np.ndarray,
    big_square: float,
    small_batch: float,
    big_batch: float,
) -> tuple[float, float]:
    r"""Returns unbiased estimates of the gradient and of its noise.

    .. math:: |G|^2 = \frac{B |G_B|^2 - b |G_b|^2}{B - b}, \qquad
              S = \frac{|G_b|^2 - |G_B|^2}{1/b - 1/B}

    Paper: McCandlish et al. (2018), arXiv:1812.06162, A.1.
    Deviation from the paper: none.

    Both are linear in the squared norms, so that means over steps are means
    of the estimates too.

    `small_square` is the squared norm of the mean gradient of b examples, or
    an array of such, of which the mean is taken; `big_square` that of B, more
    than b. The result is the squared norm of the true gradient, which may come
    out negative; and S, the trace of the covariance of one example's gradient.

    Example:
        >>> estimates([5.0, 3.0], 2.5, small_batch=2, big_batch=4)
        (1.0, 6.0)
    """
    b = _check.real("small_batch", small_batch, above=0)
    big = _check.real("big_batch", big_batch, above=0)
    if big <= b:
        raise ValueError(
            "`big_batch` must be more than `small_batch`, got "
            f"big_batch={big_batch!r} with small_batch={small_batch!r}. "
            "Compare the gradients of single workers with their mean, over "
            "two workers or more."
        )
    small = float(np.mean(small_square, dtype=np.float64))
    gradient = (big * float(big_square) - b * small) / (big - b)
    noise = (small - float(big_square)) / (1 / b - 1 / big)
    return gradient, noise


def noise_scale(
    small_square: float | np.ndarray,
    big_square: float,
    small_batch: float,
    big_batch: float,
) -> float | None:
    r"""Returns the simple noise scale, :math:`S / |G|^2`, in examples.

    The batch size at which noise and gradient are of one size: with far fewer
    examples a step is mostly noise, with far more it gains little.

    Paper: McCandlish et al. (2018), arXiv:1812.06162, Eq. 2.9 and A.1.
    Deviation from the paper: the gradients of one step may have been taken at
    the workers' displaced weights; then the displacements' own spread counts
    as noise. One step's ratio is itself noisy, and biased: average the
    squared norms over steps first.

    Arguments are those of `estimates`. The result is None where the estimate
    of :math:`|G|^2` isn't above 0, because noise drowns the gradient at these
    batch sizes, or where a norm isn't finite.

    Example:
        >>> noise_scale([5.0, 3.0], 2.5, small_batch=2, big_batch=4)
        6.0
        >>> noise_scale([5.0, 3.0], 1.0, small_batch=2, big_batch=4) is None
        True
    """
    gradient, noise = estimates(
        small_square, big_square, small_batch, big_batch
    )
    if not (math.isfinite(noise) and math.isfinite(gradient) and gradient > 0):
        return None
    return noise / gradient
