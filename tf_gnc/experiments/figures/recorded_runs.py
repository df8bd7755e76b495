"""Reads what runs have recorded, for figures.

Reads only, in memory; knows neither figures nor models.
"""

import dataclasses
import itertools
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tf_gnc._files import (
    UNFINISHED,
    AnyPath,
    UnreachableError,
    as_path,
    is_bucket,
    read_json,
    read_rows,
)

MEASURED = "analysis/measured.jsonl"
"""What was measured afterwards, in a run's directory."""

ABOUT = "analysis.json"
"""What an analysis says of itself, in its own directory."""

Series = tuple[list[float], list[float]]
"""Epochs, fractions of one among them, and values; NaN where there is none."""


@dataclasses.dataclass(frozen=True)
class RecordedRun:
    """What a run has recorded.

    Attributes:
        directory: The run's directory.
        config: Its configuration, by the names of `RunConfig`'s fields.
        steps_per_epoch: Updates in one pass over its training data, on
            average.
        metrics: The rows of metrics.jsonl, one for each epoch.
        rows: The rows of probe.jsonl and `MEASURED`, in the order of their
            steps, one for each step.
        label: What tells it from the others in a figure.
    """

    directory: AnyPath
    config: Mapping[str, Any]
    steps_per_epoch: float
    metrics: Sequence[Mapping[str, Any]]
    rows: Sequence[Mapping[str, Any]]
    label: str = ""

    def has(self, measure: str) -> bool:
        """Tells whether there is a row with that measure."""
        return any(row.get(measure) is not None for row in self.rows)

    def series(self, measure: str, *parts: str | int) -> Series:
        """Returns a measure along the run.

        The parts are the way to a number in it, such as `"plain", "loss", 0`.

        Example:
            >>> rows = [{"step": 3, "similarity": {"total": 0.5}}]
            >>> run = RecordedRun(Path(), {}, 2, [], rows)
            >>> run.series("similarity", "total")
            ([1.5], [0.5])
        """
        epochs, values = [], []
        for row in self.rows:
            value = row.get(measure)
            if value is None:
                continue
            for part in parts:
                value = value[part]
            epochs.append(row["step"] / self.steps_per_epoch)
            values.append(math.nan if value is None else value)
        return epochs, values

    def rate_drops(self) -> list[int]:
        """Returns the epochs after which the rate fell to a quarter or less.

        That is where a step decay or a final collapse came, to the epoch.
        """
        epochs, rates = epoch_series(self.metrics, "learning_rate")
        pairs = zip(epochs, rates, rates[1:], strict=False)
        return [e for e, rate, after in pairs if rate and after <= rate / 4]


Runs = Sequence[RecordedRun]


def epoch_series(rows: Sequence[Mapping[str, Any]], name: str) -> Series:
    """Returns one of the numbers that each row of metrics.jsonl has."""
    values = [row.get(name) for row in rows]
    return (
        [row["epoch"] for row in rows],
        [math.nan if value is None else value for value in values],
    )


def read_runs(directories: Iterable[str | os.PathLike]) -> list[RecordedRun]:
    """Returns what several runs have recorded, each with a label of its own.

    A label is the method, with the batch size and the seed if the runs differ
    in them; and, if that is the same for some, the shortest part of their
    directories that tells these apart. A directory that an analysis has left,
    as `runs/*` may name it, is passed over, unless it is the only one.

    Raises:
        ValueError: As `read_run`.
    """
    directories = [path for name in directories for path in _paths_of(name)]
    found: dict[AnyPath, RecordedRun] = {}
    kept = [path for path in directories if not _is_analysis(path)]
    for directory in kept or directories:
        run = read_run(directory)
        found.setdefault(run.directory.resolve(), run)
    runs = list(found.values())
    labels = [run.config["method"] for run in runs]
    for name, form in (("batch_size", "batch {:,}"), ("seed", "seed {}")):
        if len({run.config[name] for run in runs}) > 1:
            labels = [
                f"{label}, {form.format(run.config[name])}"
                for label, run in zip(labels, runs, strict=True)
            ]
    for label in {label for label in labels if labels.count(label) > 1}:
        same = [n for n, other in enumerate(labels) if other == label]
        parts = _tell_apart([runs[n].directory.resolve() for n in same])
        for n, part in zip(same, parts, strict=True):
            labels[n] = f"{label} ({part})"
    return [
        dataclasses.replace(run, label=label)
        for label, run in zip(labels, runs, strict=True)
    ]


def read_run(directory: str | os.PathLike) -> RecordedRun:
    """Returns what a run has recorded; it may still be under way.

    Raises:
        ValueError: If it isn't that of a run, or a file is damaged.
    """
    directory = as_path(directory)
    about = _about(directory)
    # What was recorded comes last: it was measured with the noise in force.
    rows = by_step(
        row
        for name in (MEASURED, "probe.jsonl")
        for row in read_rows(directory / name, "step")
    )
    metrics = read_rows(directory / "metrics.jsonl", "epoch")
    if not rows and not metrics:
        raise ValueError(
            f"The run in {directory} has no records yet: not an epoch has "
            "ended. Wait for it, or take it up again with `tf-gnc train "
            f"--resume --run_dir={directory}` and its own flags."
        )
    return RecordedRun(
        directory=directory,
        config=about["config"],
        steps_per_epoch=about["steps_per_epoch"],
        metrics=metrics,
        rows=rows,
        label=about["config"]["method"],
    )


def by_step(rows: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Returns rows in the order of their steps, those of one step in one."""
    merged: dict[int, dict[str, Any]] = {}
    for row in rows:
        merged.setdefault(row["step"], {}).update(row)
    return [merged[step] for step in sorted(merged)]


def _paths_of(name: str | os.PathLike) -> list[AnyPath]:
    """Returns what a name stands for: no shell looks into a bucket for `*`."""
    path = as_path(name)
    if not is_bucket(path) or "*" not in str(path):
        return [path]
    found = sorted(path.parent.glob(path.name))
    if not found:
        raise ValueError(
            f"RUN must be the directory of a run, got '{path}', which stands "
            "for none. In a bucket, * may stand after the last slash."
        )
    return found


def _about(directory: AnyPath) -> dict[str, Any]:
    """Returns a run's config.json."""
    try:
        about = read_json(directory / "config.json")
        if {"method", "seed", "batch_size"} <= set(about["config"]):
            float(about["steps_per_epoch"])
            return about
    except UnreachableError:
        raise
    except (OSError, ValueError, KeyError, TypeError):
        pass
    advice = "Give the directory that `tf-gnc train --run_dir=...` named."
    inside = sorted(directory.glob("runs/*/config.json"))
    if inside:
        advice = f"It holds several: give {directory}/runs/*."
    raise ValueError(
        f"RUN must be the directory of a run, got '{directory}', which has no "
        f"config.json of one. {advice}"
    )


def _is_analysis(directory: AnyPath) -> bool:
    """Tells whether `tf-gnc analyze`, killed or not, has left a directory."""
    if not directory.is_dir() or (directory / "config.json").exists():
        return False
    if {path.name for path in directory.iterdir()} == {UNFINISHED + ABOUT}:
        return True
    return read_analysis(directory) is not None


def read_analysis(directory: AnyPath) -> dict[str, Any] | None:
    """Returns what an analysis says of itself, None if it says nothing."""
    try:
        about = read_json(directory / ABOUT)
    except (OSError, ValueError):
        return None
    whole = isinstance(about, dict) and {"runs", "files"} <= about.keys()
    return about if whole else None


def _tell_apart(directories: Sequence[AnyPath]) -> list[str]:
    """Returns a part of each path, the one nearest to its end that differs.

    If there is no part in which all differ, the end from which on they do.
    """
    ways = [path.parts[::-1] for path in directories]
    ends = [Path()] * len(ways)
    for parts in itertools.zip_longest(*ways, fillvalue=""):
        ends = [
            part / end for part, end in zip(map(Path, parts), ends, strict=True)
        ]
        for names in (parts, ends):
            if len(set(names)) == len(ways):
                return [str(name) for name in names]
    return [str(path) for path in directories]
