"""A comparison's directory: its plan, its runs, what they came to.

Each run has a directory of its own in it, made by the run itself. Knows
neither how runs are started nor how their results are shown.
"""

import dataclasses
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tf_gnc.experiments.compare.plan import Plan
from tf_gnc.experiments.config import RunConfig
from tf_gnc.experiments.run.out_dir import OutDir, clear_if_not_begun, read_json

# What may differ when a comparison goes on: it changes nothing in the results.
_INDIFFERENT = ("threads", "data_dir", "download")


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


class Comparison(OutDir):
    """The directory of a comparison. Making it only looks; `claimed` takes it.

    Args:
        plan: What to compare.
        out_dir: New, empty, or that of the same plan.

    Raises:
        ValueError: If it isn't on a local file system, or that of another
            plan.
        OSError: If it holds anything else, or is a file.
    """

    what, about = "comparison", "compare.json"

    def __init__(self, plan: Plan, out_dir: str | os.PathLike) -> None:
        """Looks; see the class."""
        self.plan = plan
        super().__init__(out_dir)

    def run_dir(self, run: RunConfig) -> Path:
        """Returns where a run writes."""
        return self.directory / "runs" / f"{run.method}-seed{run.seed}"

    def make_way(self, run: RunConfig) -> None:
        """Removes what a run left that was killed before it had begun."""
        clear_if_not_begun(self.run_dir(run))

    def result(self, run: RunConfig) -> Result | None:
        """Returns what a run came to, None if it has to be run (again)."""
        path = self.run_dir(run)
        summary, diverged = (
            read_json(path / name) for name in ("summary.json", "diverged.json")
        )
        if summary is None and diverged is None:
            return None
        lines = (path / "metrics.jsonl").read_text(encoding="utf-8")
        return Result(
            rows=[json.loads(line) for line in lines.splitlines()],
            summary=summary,
            diverged=None if summary is not None else diverged["epoch"],
            environment=read_json(path / "config.json")["environment"],
        )

    def results(self) -> dict[tuple[str, int], Result]:
        """Returns what all runs came to, by method and seed."""
        return {
            (run.method, run.seed): self.result(run) or Result()
            for run in self.plan.runs
        }

    def _begin(self, command: str) -> None:
        about = {
            "command": command,
            "baseline": self.plan.baseline,
            "runs": [run.to_dict() for run in self.plan.runs],
        }
        self.write(self.about, json.dumps(about, indent=2) + "\n")

    def _refuse_other(self, about: Any) -> None:
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
