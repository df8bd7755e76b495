"""What a search's runs came to, and the directory that they lie in.

Each run has a directory of its own in it, made by the run itself. Knows
neither how runs are started nor how their results are shown.

Floor 4: may import from floors 0 to 3 and from this folder.
"""

import contextlib
import dataclasses
import fcntl
import json
import math
import os
import shutil
import statistics
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from tf_gnc.experiments.statistics import Spread, spread
from tf_gnc.experiments.tuning import OBJECTIVES, Point, Search

__all__ = ["Outcome", "Trial", "Tuning", "best_of", "edges"]

_ABOUT = "tune.json"
_UNFINISHED = ".unfinished-"


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


class Tuning:
    """The directory of a search. Making it only looks; `claimed` takes it.

    Args:
        search: What to search.
        out_dir: New, empty, or that of the same search.

    Raises:
        ValueError: If it isn't on a local file system, or that of another
            search.
        OSError: If it holds anything else, or is a file.
    """

    def __init__(self, search: Search, out_dir: str | os.PathLike) -> None:
        """Looks; see the class."""
        if "://" in os.fspath(out_dir):
            raise ValueError(
                "`out_dir` must be a local directory, got "
                f"out_dir={os.fspath(out_dir)!r}. Write to a local one and "
                "copy it afterwards."
            )
        self.search = search
        self.directory = Path(out_dir).expanduser()
        self._refuse_others()

    @contextlib.contextmanager
    def claimed(self, command: str) -> Iterator[None]:
        """Holds the directory, against a second one at the same time.

        Args:
            command: What asked for the search.

        Raises:
            OSError: If somebody else holds it, or it can't be made.
        """
        self.directory.mkdir(parents=True, exist_ok=True)
        held = os.open(self.directory, os.O_RDONLY)
        try:
            _lock(held, self.directory)
            self._refuse_others()
            if not (self.directory / _ABOUT).exists():
                self.write_about({"command": command})
            yield
        finally:
            os.close(held)

    def write_about(self, content: Mapping[str, Any]) -> None:
        """Writes tune.json: the search, and what there is to say of it."""
        content = {"settings": self.search.to_dict(), **content}
        text = json.dumps(content, indent=2, allow_nan=False) + "\n"
        self.write(_ABOUT, text.encode())

    def write(self, name: str, content: bytes) -> None:
        """Writes a file, whole or not at all."""
        draft = self.directory / f"{_UNFINISHED}{name}"
        draft.write_bytes(content)
        os.replace(draft, self.directory / name)

    def run_dir(self, name: str) -> Path:
        """Returns where a run writes."""
        return self.directory / "runs" / name

    def make_way(self, name: str) -> None:
        """Removes what a run left that was killed before it had begun."""
        path = self.run_dir(name)
        if path.exists() and not (path / "config.json").exists():
            shutil.rmtree(path)

    def outcome(self, name: str) -> Outcome | None:
        """Returns what a run came to, None if it has to be run (again)."""
        path = self.run_dir(name)
        ended, diverged = (
            _read(path / file) for file in ("summary.json", "diverged.json")
        )
        if ended is None and diverged is None:
            return None
        lines = (path / "metrics.jsonl").read_text(encoding="utf-8")
        rows = [json.loads(line) for line in lines.splitlines()]
        numbers = rows[-1] if rows else {}
        epoch = None if ended is not None else diverged["epoch"]
        if epoch is None and numbers[self.search.objective] is None:
            epoch = numbers["epoch"]  # Not finite, if only on test examples.
        log = _read(path / "displacement.json") or {"epochs": []}
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

    def _refuse_others(self) -> None:
        path = self.directory
        if not path.exists():
            return
        if not path.is_dir():
            raise NotADirectoryError(
                f"`out_dir` must be a directory, got out_dir='{path}', which "
                "is a file."
            )
        about = _read(path / _ABOUT)
        if about is not None:
            self._refuse_other_search(about["settings"])
        elif any(not p.name.startswith(_UNFINISHED) for p in path.iterdir()):
            raise FileExistsError(
                "`out_dir` must be new, empty or that of the same search, got "
                f"out_dir='{path}', which holds other files. Choose another "
                "name (--out_dir)."
            )

    def _refuse_other_search(self, theirs: Mapping[str, Any]) -> None:
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


def _lock(descriptor: int, directory: Path) -> None:
    """Locks a directory for as long as it is open."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise OSError(
            "`out_dir` must not be in use by another search, got "
            f"out_dir='{directory}'. Wait for it, or choose another name "
            "(--out_dir)."
        ) from None
    except OSError:  # Not all file systems can.
        pass


def _read(path: Path) -> Any:
    """Returns what stands in a JSON file, None if it isn't there."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise ValueError(
            f"The file {path} can't be read: {error}. Move it out of the way."
        ) from None
