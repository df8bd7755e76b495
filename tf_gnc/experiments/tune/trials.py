"""What a search's runs have come to, and the directory that they lie in.

Each run has a directory of its own in it, made by the run itself. Knows
neither how runs are started nor how their results are shown.
"""

import dataclasses
import math
import os
import statistics
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from tf_gnc import _files
from tf_gnc.experiments.compare.statistics import Spread, spread
from tf_gnc.experiments.config import RunConfig
from tf_gnc.experiments.run.task import ManyRuns, Result
from tf_gnc.experiments.tune.search import Point, Search


@dataclasses.dataclass(frozen=True)
class Trial:
    """What has come of a point, with a result for each seed."""

    point: Point
    results: Sequence[Result]

    @property
    def num_diverged(self) -> int:
        """How many seeds diverged; a single one rules the point out."""
        return sum(result.diverged is not None for result in self.results)

    def number(self, name: str) -> Spread:
        """Returns a number of the last epoch, over the seeds that ended."""
        ended = [r for r in self.results if r.diverged is None]
        return spread([result.last(name) for result in ended])

    def value(self, objective: str) -> float | None:
        """Returns what decides, None if the point is ruled out."""
        return None if self.num_diverged else self.number(objective).mean

    @property
    def displacement(self) -> float | None:
        """Mean over epochs and seeds."""
        means = [
            statistics.fmean(result.displacements)
            for result in self.results
            if result.displacements
        ]
        return statistics.fmean(means) if means else None

    @property
    def max_displacement(self) -> float | None:
        """Largest over epochs and seeds."""
        found = [d for result in self.results for d in result.displacements]
        return max(found, default=None)


def best_of(trials: Iterable[Trial], search: Search) -> Trial | None:
    """Returns the trial with the best objective, None if all diverged.

    Of several that are alike it is the one with the lowest loss on the
    examples that decide, and then the one with the least noise.
    """
    able = [t for t in trials if t.value(search.objective) is not None]

    def key(trial: Trial) -> tuple:
        loss = trial.number("val_loss").mean
        value = search.sign * trial.value(search.objective)
        return value, math.inf if loss is None else loss, trial.point

    return min(able, key=key, default=None)


def edges(
    best: Trial, trials: Iterable[Trial], search: Search
) -> dict[str, tuple[str, float, float]]:
    """Returns where the best lies at the edge of what was tried, by field.

    That is `"lower"` or `"upper"`, and the ends of the range to try next: as
    wide as that which was tried, with the best in its middle.
    """
    found = {}
    for axis, name in enumerate(search.names):
        tried = sorted({trial.point[axis] for trial in trials})
        value = best.point[axis]
        half = math.sqrt(tried[-1] / tried[0])
        if half > 1 and value in (tried[0], tried[-1]):
            side = "lower" if value == tried[0] else "upper"
            found[name] = side, value / half, value * half
    return found


class Tuning(ManyRuns):
    """The directory of a search; see `ManyRuns`."""

    what, about = "search", "tune.json"
    log_displacement = True

    def __init__(self, search: Search, out_dir: str | os.PathLike) -> None:
        self.search, self.holdout = search, search.holdout
        super().__init__(out_dir)

    def write_about(self, content: Mapping[str, Any]) -> None:
        """Writes tune.json: the search, and what there is to say of it."""
        content = {"settings": self.search.to_dict(), **content}
        _files.write_json(self.path(self.about), content)

    def result(self, name: str) -> Result | None:
        """Returns what a run has come to, None if it has to be run (again).

        One whose objective isn't finite in the end counts as diverged, even
        if only the test examples say so.
        """
        result = super().result(name)
        if result is None or result.diverged is not None:
            return result
        if result.last(self.search.objective) is None:
            epoch = result.rows[-1]["epoch"]
            return dataclasses.replace(result, diverged=epoch)
        return result

    def trial(self, point: Point) -> Trial:
        """Returns what has come of a point whose runs have all ended."""
        names = self.search.runs(point)
        return Trial(point, [self.result(name) for name in names])

    def num_done(self) -> int:
        """Returns how many runs there is nothing left to do for."""
        runs = self.path("runs")
        names = [path.name for path in runs.iterdir()] if runs.exists() else []
        return sum(self.result(name) is not None for name in names)

    def _to_check(self) -> list[RunConfig]:
        return [self.search.base]

    def _describe_end(self, result: Result) -> str:
        objective = self.search.objective
        return f"{objective} {result.last(objective):.4f}"

    def _begin(self, command: str) -> None:
        self.write_about({"command": command})

    def _compared(self, about: Any) -> Iterator[tuple[str, Any, Any]]:
        search, terms = self.search, self.search.terms()
        theirs = about["settings"]
        for name, value in terms.items():
            yield name, value, theirs.get(name)
        # What is searched, or changes no result, isn't written down.
        written, run = search.to_dict(), search.base.to_dict()
        unwritten = {n: v for n, v in run.items() if n not in written}
        settings = {n: v for n, v in theirs.items() if n not in terms}
        yield from search.base.differences({**settings, **unwritten})
