"""A comparison's directory: its plan, its runs, what they came to.

Each run has a directory of its own in it, made by the run itself. Knows
neither how runs are started nor how their results are shown.

Floor 4: may import from floors 0 to 3 and from this folder.
"""

import contextlib
import dataclasses
import fcntl
import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from tf_gnc.experiments.compare import Plan
from tf_gnc.experiments.config import RunConfig

__all__ = ["Comparison", "Result"]

# What may differ when a comparison goes on: it changes nothing in the results.
_INDIFFERENT = ("threads", "data_dir", "download")

_UNFINISHED = ".unfinished-"


@dataclasses.dataclass(frozen=True)
class Result:
    """What a run came to; one that is missing has no rows.

    Attributes:
        rows: One per epoch, as metrics.jsonl holds them.
        summary: The content of summary.json, if the run reached its end.
        diverged: The epoch in which it diverged, if it did.
        environment: The versions and the machine.
    """

    rows: Sequence[Mapping[str, Any]] = ()
    summary: Mapping[str, Any] | None = None
    diverged: int | None = None
    environment: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    @property
    def is_missing(self) -> bool:
        """Whether the run has neither ended nor diverged."""
        return self.summary is None and self.diverged is None

    @property
    def seconds(self) -> float | None:
        """Of all epochs, whether or not the run was cut short in between."""
        if self.summary is None:
            return None
        return sum(row["seconds"] for row in self.rows)

    def number(self, name: str) -> float | None:
        """Returns a number of the summary, None if there is no such."""
        return None if self.summary is None else self.summary[name]


class Comparison:
    """The directory of a comparison. Making it only looks; `claimed` takes it.

    Args:
        plan: What to compare.
        out_dir: New, empty, or that of the same plan.

    Raises:
        ValueError: If it isn't on a local file system, or that of another
            plan.
        OSError: If it holds anything else, or is a file.
    """

    def __init__(self, plan: Plan, out_dir: str | os.PathLike) -> None:
        """Looks; see the class."""
        if "://" in os.fspath(out_dir):
            raise ValueError(
                "`out_dir` must be a local directory, got "
                f"out_dir={os.fspath(out_dir)!r}. Write to a local one and "
                "copy it afterwards."
            )
        self.plan = plan
        self.directory = Path(out_dir).expanduser()
        self._refuse_others()

    @contextlib.contextmanager
    def claimed(self, command: str) -> Iterator[None]:
        """Holds the directory, against a second one at the same time.

        Args:
            command: What asked for the comparison.

        Raises:
            OSError: If somebody else holds it, or it can't be made.
        """
        self.directory.mkdir(parents=True, exist_ok=True)
        held = os.open(self.directory, os.O_RDONLY)
        try:
            _lock(held, self.directory)
            self._refuse_others()
            if not (self.directory / "compare.json").exists():
                runs = [run.to_dict() for run in self.plan.runs]
                about = {
                    "command": command,
                    "baseline": self.plan.baseline,
                    "runs": runs,
                }
                self.write("compare.json", json.dumps(about, indent=2) + "\n")
            yield
        finally:
            os.close(held)

    def write(self, name: str, text: str) -> None:
        """Writes a file, whole or not at all."""
        draft = self.directory / f"{_UNFINISHED}{name}"
        draft.write_text(text, encoding="utf-8", newline="")
        os.replace(draft, self.directory / name)

    def run_dir(self, run: RunConfig) -> Path:
        """Returns where a run writes."""
        return self.directory / "runs" / f"{run.method}-seed{run.seed}"

    def make_way(self, run: RunConfig) -> None:
        """Removes what a run left that was killed before it had begun."""
        path = self.run_dir(run)
        if path.exists() and not (path / "config.json").exists():
            shutil.rmtree(path)

    def result(self, run: RunConfig) -> Result | None:
        """Returns what a run came to, None if it has to be run (again)."""
        path = self.run_dir(run)
        summary, diverged = (
            _read(path / name) for name in ("summary.json", "diverged.json")
        )
        if summary is None and diverged is None:
            return None
        lines = (path / "metrics.jsonl").read_text(encoding="utf-8")
        return Result(
            rows=[json.loads(line) for line in lines.splitlines()],
            summary=summary,
            diverged=None if summary is not None else diverged["epoch"],
            environment=_read(path / "config.json")["environment"],
        )

    def results(self) -> dict[tuple[str, int], Result]:
        """Returns what all runs came to, by method and seed."""
        return {
            (run.method, run.seed): self.result(run) or Result()
            for run in self.plan.runs
        }

    def _refuse_others(self) -> None:
        path = self.directory
        if not path.exists():
            return
        if not path.is_dir():
            raise NotADirectoryError(
                f"`out_dir` must be a directory, got out_dir='{path}', which "
                "is a file."
            )
        about = _read(path / "compare.json")
        if about is not None:
            self._refuse_other_plan(about)
        elif any(not p.name.startswith(_UNFINISHED) for p in path.iterdir()):
            raise FileExistsError(
                "`out_dir` must be new, empty or that of the same comparison, "
                f"got out_dir='{path}', which holds other files. Choose "
                "another name (--out_dir)."
            )

    def _refuse_other_plan(self, about: Mapping[str, Any]) -> None:
        runs = about["runs"]
        theirs: dict[str, Any] = {
            "methods": list(dict.fromkeys(run["method"] for run in runs)),
            "seeds": list(dict.fromkeys(run["seed"] for run in runs)),
            "baseline": about["baseline"],
        }
        ours = {name: getattr(self.plan, name) for name in theirs}
        for run, other in zip(self.plan.runs, runs, strict=False):
            for name, value in run.to_dict().items():
                if name not in _INDIFFERENT:
                    key = f"{run.method}-seed{run.seed}: {name}"
                    ours[key], theirs[key] = value, other.get(name)
        for name, value in ours.items():
            if value != theirs[name]:
                raise ValueError(
                    "A comparison must go on with the settings it began with, "
                    f"got {name}={value!r} where {self.directory} has "
                    f"{theirs[name]!r}. Use the same flags, or choose another "
                    "out_dir (--out_dir)."
                )


def _lock(descriptor: int, directory: Path) -> None:
    """Locks a directory for as long as it is open."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise OSError(
            "`out_dir` must not be in use by another comparison, got "
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
