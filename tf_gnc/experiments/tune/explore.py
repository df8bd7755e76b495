r"""Which values a search tries, one after another or side by side.

A search is a function of its settings and of what its runs come to, so one
that was cut short goes on by being done again: runs that are there cost
nothing. Knows nothing of runs and files.

Symbols   phi  the golden ratio's inverse, (sqrt(5) - 1) / 2
"""

import itertools
import math
from collections.abc import Callable, Sequence

import optuna

from tf_gnc.experiments.tune.search import Point, Search, three_digits

_PHI = (math.sqrt(5) - 1) / 2


def explore(
    search: Search,
    study: optuna.Study,
    evaluate: Callable[[Sequence[Point]], Sequence[float | None]],
) -> None:
    """Searches, and keeps in an Optuna study what was found.

    The study is new and has the objective's direction. `evaluate` returns the
    objective of each point, None for one that diverged; it may try several
    points side by side.
    """

    def ask_and_tell(count: int) -> list[float]:
        trials = [study.ask() for _ in range(count)]
        points = [_suggest(trial, search) for trial in trials]
        values = evaluate(points)
        for trial, point, value in zip(trials, points, values, strict=True):
            trial.set_user_attr("tried", search.named(point))
            if value is None:  # To Optuna, worse than all runs that ended.
                study.tell(trial, state=optuna.trial.TrialState.PRUNED)
            else:
                study.tell(trial, value)
        return [math.inf if v is None else search.sign * v for v in values]

    def costs(points: Sequence[Point]) -> list[float]:
        for point in points:
            study.enqueue_trial(search.named(point))
        return ask_and_tell(len(points))

    if search.kind == "grid":
        costs(list(itertools.product(*search.space.values())))
    elif search.kind == "golden":
        ((low, high),) = search.space.values()
        golden_section(
            lambda values: costs([(three_digits(v),) for v in values]),
            low, high, search.trials,
        )  # fmt: skip
    else:
        for _ in range(search.trials):
            ask_and_tell(1)


def golden_section(
    costs: Callable[[Sequence[float]], Sequence[float]],
    low: float,
    high: float,
    trials: int,
) -> None:
    r"""Closes in on the minimum of a function of :math:`\log x`.

    Tries two points, then one after the other, each time in the part of the
    range that is left beside the lower of the last two; after n trials, 2 or
    more, that is a share :math:`\phi^{n - 1}` of it. The range must be above 0
    and the function have a single dip; where two points are alike, the smaller
    x is taken.

    Example:
        >>> tried = []
        >>> def costs(values):
        ...     tried.extend(values)
        ...     return [abs(value - 0.5) for value in values]
        >>> golden_section(costs, 1e-3, 10, trials=16)
        >>> round(tried[-1], 2)
        0.5
    """
    start, stop = math.log(low), math.log(high)
    left = stop - _PHI * (stop - start)
    right = start + _PHI * (stop - start)
    at_left, at_right = costs([math.exp(left), math.exp(right)])
    for _ in range(trials - 2):
        if at_left <= at_right:
            stop, right, at_right = right, left, at_left
            left = stop - _PHI * (stop - start)
            (at_left,) = costs([math.exp(left)])
        else:
            start, left, at_left = left, right, at_right
            right = start + _PHI * (stop - start)
            (at_right,) = costs([math.exp(right)])


def _suggest(trial: optuna.Trial, search: Search) -> Point:
    """Returns where a trial is to be."""
    point = []
    for name, values in search.space.items():
        low, high = min(values), max(values)
        value = trial.suggest_float(name, low, high, log=True)
        if search.kind == "tpe":
            value = min(max(three_digits(value), low), high)
        point.append(value)
    return tuple(point)
