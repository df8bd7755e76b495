r"""Means, standard deviations, and differences between paired runs.

Knows numbers alone: what they measure and how they are shown is up to others.

Symbols   n  number of values, or of pairs
          d  differences, one for each pair
"""

import dataclasses
import math
import statistics
from collections.abc import Sequence

from scipy import special

# Accuracies come as float32. What is left of equal differences after rounding
# is no spread, and a test that took it for one would be sure of anything.
_ROUNDING = 1e-6


@dataclasses.dataclass(frozen=True)
class Spread:
    """Mean and sample standard deviation.

    Attributes:
        count: n.
        mean: None without a value.
        std: With n - 1 in the denominator; None for fewer than two values.
    """

    count: int
    mean: float | None
    std: float | None


@dataclasses.dataclass(frozen=True)
class Difference:
    """A mean difference of pairs, with what Student's t says about it.

    Attributes:
        count: n, the number of pairs.
        mean: None without a pair.
        low: Lower end of the confidence interval; None where there is none.
        high: Upper end, likewise.
        p: Two-sided p value of the paired t-test, likewise.
    """

    count: int
    mean: float | None
    low: float | None = None
    high: float | None = None
    p: float | None = None


def spread(values: Sequence[float | None]) -> Spread:
    """Returns the spread of the values that are there.

    Args:
        values: None stands for a value that is missing.

    Example:
        >>> spread([1.0, 3.0, None])
        Spread(count=2, mean=2.0, std=1.4142135623730951)
    """
    there = [value for value in values if value is not None]
    return Spread(
        count=len(there),
        mean=statistics.fmean(there) if there else None,
        std=statistics.stdev(there) if len(there) > 1 else None,
    )


def paired_difference(
    values: Sequence[float | None],
    baseline: Sequence[float | None],
    confidence: float = 0.95,
) -> Difference:
    r"""Returns the mean of `values - baseline` and its interval.

    With :math:`s` the sample standard deviation of the differences, the
    interval is :math:`\bar d \pm t_{n-1} s / \sqrt n`, and the p value that of
    :math:`\bar d \sqrt n / s` under Student's t with n - 1 degrees of freedom.
    There is neither with fewer than two pairs, nor if all differences are the
    same.

    Args:
        values: One for each pair; None if it is missing, and with it the pair.
        baseline: What to subtract, in the same order.
        confidence: Between 0 and 1.

    Example:
        >>> found = paired_difference([3.0, 5.0, 7.0], [2.0, 3.0, 4.0])
        >>> found.mean, round(found.low, 3), round(found.high, 3)
        (2.0, -0.484, 4.484)
    """
    pairs = [
        (value, base)
        for value, base in zip(values, baseline, strict=True)
        if value is not None and base is not None
    ]
    differences = spread([value - base for value, base in pairs])
    count, mean, std = dataclasses.astuple(differences)
    scale = max((abs(number) for pair in pairs for number in pair), default=0)
    if std is None or std <= _ROUNDING * scale:
        return Difference(count, mean)
    error = std / math.sqrt(count)
    reach = error * float(special.stdtrit(count - 1, (1 + confidence) / 2))
    p = 2 * special.stdtr(count - 1, -abs(mean) / error)
    return Difference(count, mean, mean - reach, mean + reach, float(p))
