"""What a search's runs came to, and the directory that they lie in.

Each run has a directory of its own in it, made by the run itself. Knows
neither how runs are started nor how their results are shown.
"""

import dataclasses
import json
import math
import os
import statistics
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tf_gnc.experiments.compare.statistics import Spread, spread
from tf_gnc.experiments.run.out_dir import OutDir, clear_if_not_begun, read_json
from tf_gnc.experiments.tune.search import OBJECTIVES, Point, Search


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What a run came to.

    Attributes:
        numbers: The last row of metrics.jsonl.
        diverged: The epoch in which it diverged, if it did.
        displacements: ||x_i - x|| / ||x||, mean over workers, at the end of
            each epoch.
    """

    numbers: Mapping[str, Any]
    diverged: int | None
    displacements: Sequence[float]


@dataclasses.dataclass(frozen=True)
class Trial:
    """What came of a point, with all seeds.

    Attributes:
        point: The values that were tried.
        outcomes: One for each seed.
    """

    point: Point
    outcomes: Sequence[Outcome]

    @property
    def num_diverged(self) -> int:
        """How many seeds diverged; a single one rules the point out."""
        return sum(outcome.diverged is not None for outcome in self.outcomes)

    def number(self, name: str) -> Spread:
        """Returns a number of the last epoch, over the seeds that ended."""
        return spread(
            [
                outcome.numbers[name]
                for outcome in self.outcomes
                if outcome.diverged is None
            ]
        )

    def value(self, objective: str) -> float | None:
        """Returns what decides, None if the point is ruled out."""
        return None if self.num_diverged else self.number(objective).mean

    @property
    def displacement(self) -> float | None:
        """Mean over epochs and seeds."""
        means = [
            statistics.fmean(o.displacements)
            for o in self.outcomes
            if o.displacements
        ]
        return statistics.fmean(means) if means else None

    @property
    def max_displacement(self) -> float | None:
        """Largest over epochs and seeds."""
        return max(
            (max(o.displacements) for o in self.outcomes if o.displacements),
            default=None,
        )


def best_of(trials: Iterable[Trial], search: Search) -> Trial | None:
    """Returns the trial with the best objective, None if all diverged.

    Of several that are alike it is the one with the lowest loss on the
    examples that decide, and then the one with the least noise.
    """
    sign = -1 if OBJECTIVES[search.objective] == "maximize" else 1
    able = [t for t in trials if t.value(search.objective) is not None]

    def key(trial: Trial) -> tuple:
        loss = trial.number("val_loss").mean
        value = sign * trial.value(search.objective)
        return value, math.inf if loss is None else loss, trial.point

    return min(able, key=key, default=None)


def edges(
    best: Trial, trials: Iterable[Trial], search: Search
) -> dict[str, tuple[str, float, float]]:
    """Returns where the best lies at the edge of what was tried.

    Args:
        best: What `best_of` returned.
        trials: All of them.
        search: What was searched.

    Returns:
        By field: `"lower"` or `"upper"`, and the ends of the range to try
        next: as wide as that which was tried, with the best in its middle.
    """
    found = {}
    for place, name in enumerate(search.names):
        tried = sorted({trial.point[place] for trial in trials})
        value = best.point[place]
        half = math.sqrt(tried[-1] / tried[0])
        if half > 1 and value in (tried[0], tried[-1]):
            side = "lower" if value == tried[0] else "upper"
            found[name] = side, value / half, value * half
    return found


class Tuning(OutDir):
    """The directory of a search. Making it only looks; `claimed` takes it.

    Args:
        search: What to search.
        out_dir: New, empty, or that of the same search.

    Raises:
        ValueError: If it isn't on a local file system, or that of another
            search.
        OSError: If it holds anything else, or is a file.
    """

    what, about = "search", "tune.json"

    def __init__(self, search: Search, out_dir: str | os.PathLike) -> None:
        """Looks; see the class."""
        self.search = search
        super().__init__(out_dir)

    def write_about(self, content: Mapping[str, Any]) -> None:
        """Writes tune.json: the search, and what there is to say of it."""
        content = {"settings": self.search.to_dict(), **content}
        text = json.dumps(content, indent=2, allow_nan=False) + "\n"
        self.write(self.about, text)

    def run_dir(self, name: str) -> Path:
        """Returns where a run writes."""
        return self.directory / "runs" / name

    def make_way(self, name: str) -> None:
        """Removes what a run left that was killed before it had begun."""
        clear_if_not_begun(self.run_dir(name))

    def outcome(self, name: str) -> Outcome | None:
        """Returns what a run came to, None if it has to be run (again)."""
        path = self.run_dir(name)
        ended, diverged = (
            read_json(path / file) for file in ("summary.json", "diverged.json")
        )
        if ended is None and diverged is None:
            return None
        lines = (path / "metrics.jsonl").read_text(encoding="utf-8")
        rows = [json.loads(line) for line in lines.splitlines()]
        numbers = rows[-1] if rows else {}
        epoch = None if ended is not None else diverged["epoch"]
        if epoch is None and numbers[self.search.objective] is None:
            epoch = numbers["epoch"]  # Not finite, if only on test examples.
        log = read_json(path / "displacement.json") or {"epochs": []}
        displacements = [d for d in log["epochs"] if d is not None]
        return Outcome(numbers, epoch, displacements)

    def trial(self, point: Point) -> Trial:
        """Returns what came of a point whose runs have all ended."""
        names = self.search.runs(point)
        return Trial(point, [self.outcome(name) for name in names])

    def num_done(self) -> int:
        """Returns how many runs there is nothing left to do for."""
        runs = self.directory / "runs"
        names = [path.name for path in runs.iterdir()] if runs.exists() else []
        return sum(self.outcome(name) is not None for name in names)

    def _begin(self, command: str) -> None:
        self.write_about({"command": command})

    def _refuse_other(self, about: Any) -> None:
        theirs = about["settings"]
        ours = self.search.to_dict()
        for name in {**ours, **theirs}:
            own, other = ours.get(name), theirs.get(name)
            if own != other:
                raise ValueError(
                    "A search must go on with the settings it began with, got "
                    f"{name}={own!r} where {self.directory} has {other!r}. "
                    "Use the same flags, or choose another out_dir "
                    "(--out_dir)."
                )
