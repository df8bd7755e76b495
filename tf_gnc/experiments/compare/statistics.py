r"""What a comparison's runs have come to, method by method, in numbers.

Means, standard deviations, and differences between paired runs. Knows nothing
of how numbers are shown.

Symbols   n  number of values, or of pairs
          d  differences, one for each pair
"""

import dataclasses
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from scipy import stats

from tf_gnc.experiments.compare.plan import Plan
from tf_gnc.experiments.run.task import Result

# Accuracies come as float32. What is left of equal differences after rounding
# is no spread, and a test that took it for one would be sure of anything.
_ROUNDING = 1e-6


@dataclasses.dataclass(frozen=True)
class Spread:
    """Mean and sample standard deviation of n values.

    There is no mean without a value, and no deviation, with n - 1 in the
    denominator, for fewer than two.
    """

    count: int
    mean: float | None
    std: float | None


@dataclasses.dataclass(frozen=True)
class Difference:
    """A mean difference of n pairs, with what Student's t says about it.

    Attributes:
        low: Lower end of the confidence interval; None where there is none.
        high: Upper end, likewise.
        p: Two-sided p value of the paired t-test, likewise.
        p_holm: The same after `holm`, over all methods of a comparison.
    """

    count: int
    mean: float | None
    low: float | None = None
    high: float | None = None
    p: float | None = None
    p_holm: float | None = None


def spread(values: Sequence[float | None]) -> Spread:
    """Returns the spread of the values that are there, not None.

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
    same. A value that is None is missing, and with it the pair.

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
    found = stats.ttest_rel(*zip(*pairs, strict=True))
    low, high = map(float, found.confidence_interval(confidence))
    return Difference(count, mean, low, high, float(found.pvalue))


def holm(values: Sequence[float | None]) -> list[float | None]:
    r"""Returns p values corrected for their number, by Holm's method.

    The k-th smallest of m, from k = 0, becomes :math:`(m - k) p`, at most 1
    and not smaller than the one before: what is below 0.05 is so with a chance
    of 5 % at most that any of them is by accident. None stays None and doesn't
    count.

    Source: Holm (1979), A simple sequentially rejective multiple test
    procedure.

    Example:
        >>> holm([0.04, None, 0.01, 0.03])
        [0.06, None, 0.03, 0.06]
    """
    there = [(p, place) for place, p in enumerate(values) if p is not None]
    corrected: list[float | None] = [None] * len(values)
    largest = 0.0
    for rank, (p, place) in enumerate(sorted(there)):
        largest = max(largest, min(1.0, (len(there) - rank) * p))
        corrected[place] = largest
    return corrected


@dataclasses.dataclass(frozen=True)
class Column:
    """What all runs of a method have come to, one for each seed.

    Attributes:
        accuracy: On the test data, after the last epoch.
        best: The same after each run's best epoch.
        loss: Training loss of the last epoch.
        seconds: Of a run.
        difference: Of the test accuracy to the baseline's, paired by seed;
            None for the baseline itself.
    """

    method: str
    results: Sequence[Result]
    accuracy: Spread
    best: Spread
    loss: Spread
    seconds: Spread
    difference: Difference | None


def make_columns(
    plan: Plan, results: Mapping[tuple[str, int], Result]
) -> list[Column]:
    """Returns what each method has come to, of results by method and seed."""

    def numbers(method: str, name: str) -> list[float | None]:
        return [results[method, seed].number(name) for seed in plan.seeds]

    def difference(method: str) -> Difference | None:
        if method == plan.baseline:
            return None
        pair = (numbers(m, "val_accuracy") for m in (method, plan.baseline))
        return paired_difference(*pair)

    found = {method: difference(method) for method in plan.methods}
    others = [d for d in found.values() if d is not None]
    corrected = iter(holm([d.p for d in others]))
    found = {
        method: d and dataclasses.replace(d, p_holm=next(corrected))
        for method, d in found.items()
    }
    return [
        Column(
            method,
            own := [results[method, seed] for seed in plan.seeds],
            accuracy=spread(numbers(method, "val_accuracy")),
            best=spread(numbers(method, "best_val_accuracy")),
            loss=spread(numbers(method, "train_loss")),
            seconds=spread([result.seconds for result in own]),
            difference=found[method],
        )
        for method in plan.methods
    ]


def machines(results: Sequence[Result]) -> list[dict[str, Any]]:
    """Returns the different versions and machines that runs were made with."""
    found: list[dict[str, Any]] = []
    for result in results:
        others = dict(result.environment)
        versions = others.pop("versions", {})
        about = {
            name: value
            for name, value in {**versions, **others}.items()
            if "core" not in name and "thread" not in name
        }
        if about and about not in found:
            found.append(about)
    return found
