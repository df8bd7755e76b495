"""A run as a task: one of many in a directory, carried out by a process.

Comparisons and searches make tasks, start a process for each and read what it
has left. Knows neither how processes are started nor how results are shown.
"""

import dataclasses
import json
import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf

from tf_gnc import _files
from tf_gnc.data import hold_out
from tf_gnc.experiments.config import RunConfig
from tf_gnc.experiments.run.building import load_images
from tf_gnc.experiments.run.directory import SharedDirectory
from tf_gnc.experiments.run.placement import Placement
from tf_gnc.experiments.run.recording import DisplacementLog
from tf_gnc.experiments.run.runner import prepare, train


@dataclasses.dataclass(frozen=True)
class RunTask:
    """A run to be carried out in a process of its own.

    Attributes:
        config: What to run.
        run_dir: Where; a run that was cut short there is taken up.
        command: What asked for the run, kept in its config.json.
        holdout: Share of the training examples that stand for the test
            examples; 0 for those.
        log_displacement: Whether to leave displacement.json.
    """

    config: RunConfig
    run_dir: Path
    command: str
    holdout: float = 0.0
    log_displacement: bool = False

    def to_json(self) -> str:
        """Returns it as a line of text."""
        content = dict(vars(self))
        content["config"] = self.config.to_dict()
        content["run_dir"] = str(self.run_dir)
        return json.dumps(content)

    @classmethod
    def from_json(cls, text: str) -> "RunTask":
        """Makes the task that `to_json` was called on."""
        content = json.loads(text)
        content["config"] = RunConfig.from_dict(content["config"])
        content["run_dir"] = Path(content["run_dir"])
        return cls(**content)


def carry_out(
    task: RunTask,
    strategy: tf.distribute.Strategy,
    callbacks: Iterable[keras.callbacks.Callback] = (),
) -> None:
    """Does a task, or what is left of it; raises as `prepare` and `train` do.

    That a run diverged is a result: it leaves diverged.json.
    """
    images = load_images(task.config)
    if task.holdout:
        images = hold_out(images, task.holdout, task.config.seed)
    placement = Placement(strategy, save_freq="auto", resume=True)
    prepared = prepare(
        task.config, task.run_dir, task.command, placement, images
    )
    epoch = _Epoch()
    logs = [DisplacementLog(prepared.files)] if task.log_displacement else []
    try:
        train(prepared, [epoch, *logs, *callbacks])
    except FloatingPointError as error:
        for log in logs:
            log.on_train_end()
        content = {"epoch": epoch.number, "message": str(error)}
        prepared.files.write_json("diverged.json", content)
        prepared.workspace.end()


class _Epoch(keras.callbacks.Callback):
    """Knows which epoch it is, counted from 1."""

    backed_up = ()  # see tf_gnc.callbacks.callback_state
    number = 1

    def on_epoch_begin(self, epoch: int, logs: dict | None = None) -> None:
        """Keeps the number."""
        self.number = epoch + 1


@dataclasses.dataclass(frozen=True)
class Result:
    """What a run has come to; one that is missing has no rows.

    Attributes:
        rows: One per epoch, as metrics.jsonl holds them.
        summary: The content of summary.json, if the run reached its end.
        diverged: The epoch in which it diverged, if it did.
        environment: The versions and the machine.
        displacements: ||x_i - x|| / ||x||, mean over workers, at the end of
            each epoch, where it was measured and finite.
    """

    rows: Sequence[Mapping[str, Any]] = ()
    summary: Mapping[str, Any] | None = None
    diverged: int | None = None
    environment: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    displacements: Sequence[float] = ()

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

    def last(self, name: str) -> float | None:
        """Returns a number of the last epoch, None if there is no such."""
        return self.rows[-1][name] if self.rows else None


class ManyRuns(SharedDirectory):
    """A directory in which many runs have their own, in its folder `runs`."""

    holdout = 0.0
    """Share of the training examples that stand for the test examples."""
    log_displacement = False
    """Whether the runs leave displacement.json."""
    check: Callable[[], None]
    """Loads the data, and prepares it if need be; finds what won't do."""

    def run_dir(self, name: str) -> Path:
        """Returns where a run writes."""
        return self.directory / "runs" / name

    def task(
        self, name: str, config: RunConfig, threads: int, command: str
    ) -> RunTask:
        """Returns a run as a task for a process with so many threads.

        What a run has left that was killed before it had begun is removed.
        """
        run_dir = self.run_dir(name)
        if run_dir.exists() and not (run_dir / "config.json").exists():
            shutil.rmtree(run_dir)
        config = dataclasses.replace(config, threads=threads)
        return RunTask(
            config, run_dir, command, self.holdout, self.log_displacement
        )

    def result(self, name: str) -> Result | None:
        """Returns what a run has come to, None if it has to be run (again)."""
        path = self.run_dir(name)
        summary = _files.read_json(path / "summary.json")
        diverged = _files.read_json(path / "diverged.json")
        if summary is None and diverged is None:
            return None
        about = _files.read_json(path / "config.json") or {}
        log = _files.read_json(path / "displacement.json") or {"epochs": []}
        return Result(
            rows=_files.read_rows(path / "metrics.jsonl", "epoch"),
            summary=summary,
            diverged=None if summary is not None else diverged["epoch"],
            environment=about.get("environment", {}),
            displacements=[d for d in log["epochs"] if d is not None],
        )

    def describe(self, name: str) -> str:
        """Returns what a run has come to, in words."""
        result = self.result(name)
        if result is None:
            return "left no result"
        if result.diverged is not None:
            return f"diverged in epoch {result.diverged}"
        return self._describe_end(result)

    def _describe_end(self, result: Result) -> str:
        """Returns what counts of a run that reached its end."""
        raise NotImplementedError
