"""A run as a task: one of many in a directory, done by a process of its own.

Comparisons and searches make tasks, start a process for each and read what it
has left. Knows neither how processes are started nor how results are shown.
"""

import contextlib
import dataclasses
import fcntl
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import keras
import tensorflow as tf

from tf_gnc import _files, data
from tf_gnc.experiments.config import RunConfig
from tf_gnc.experiments.loggers.run_log import LogTo
from tf_gnc.experiments.run.building import (
    learning_rates,
    load_images,
    updates_of,
)
from tf_gnc.experiments.run.directory import Directory
from tf_gnc.experiments.run.displacement import DisplacementLog
from tf_gnc.experiments.run.placement import Placement
from tf_gnc.experiments.run.recording import Recording
from tf_gnc.experiments.run.runner import prepare, train


@dataclasses.dataclass(frozen=True)
class RunTask:
    """A run for a process of its own; one that was cut short is taken up.

    `command` is what asked for it. A share `holdout` of the training examples,
    if not 0, stands for the test examples. `log_displacement` has it leave
    displacement.json. `recording` says what is measured as it trains, `log_to`
    where else its numbers go.
    """

    config: RunConfig
    run_dir: _files.AnyPath
    command: str
    holdout: float = 0.0
    log_displacement: bool = False
    recording: Recording = Recording()
    log_to: LogTo = LogTo()

    def to_json(self) -> str:
        """Returns it as a line of text."""
        content = {
            **vars(self),
            "config": self.config.to_dict(),
            "recording": self.recording.measuring(),
            "log_to": vars(self.log_to),
        }
        return json.dumps(content, default=os.fspath)

    @classmethod
    def from_json(cls, text: str) -> "RunTask":
        """Makes the task that `to_json` was called on."""
        content = json.loads(text)
        content["config"] = RunConfig.from_dict(content["config"])
        content["run_dir"] = _files.as_path(content["run_dir"])
        content["recording"] = Recording.from_measuring(content["recording"])
        content["log_to"] = LogTo(**content["log_to"])
        return cls(**content)


def do_task(
    task: RunTask,
    strategy: tf.distribute.Strategy,
    callbacks: Iterable[keras.callbacks.Callback] = (),
) -> None:
    """Does a task, or what is left of it; raises as `prepare` and `train` do.

    That a run diverged is a result: it leaves diverged.json.
    """
    images = load_images(task.config, task.holdout)
    placement = Placement(
        strategy, "auto", True, task.recording, log_to=task.log_to
    )
    prepared = prepare(
        task.config, task.run_dir, task.command, placement, images
    )
    begun = []
    watch = keras.callbacks.LambdaCallback(
        on_epoch_begin=lambda epoch, logs: begun.append(epoch + 1)
    )
    logs = [DisplacementLog(prepared.files)] if task.log_displacement else []
    try:
        train(prepared, [watch, *logs, *callbacks])
    except FloatingPointError as error:
        for log in logs:
            log.on_train_end()
        content = {"epoch": begun[-1], "message": str(error)}
        _files.write_json(prepared.files.path("diverged.json"), content)
        prepared.workspace.end()


@dataclasses.dataclass(frozen=True)
class Result:
    """What a run has come to; without values for one that is missing.

    Attributes:
        rows: One per epoch, as metrics.jsonl holds them.
        summary: The content of summary.json, if the run reached its end.
        diverged: The epoch in which it diverged, if it did.
        environment: The versions and the machine.
        displacements: What `DisplacementLog` measured, where it was finite.
    """

    rows: Sequence[Mapping[str, Any]] = ()
    summary: Mapping[str, Any] | None = None
    diverged: int | None = None
    environment: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    displacements: Sequence[float] = ()

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


class ManyRuns(Directory):
    """A directory in which many runs have their own, in its folder `runs`.

    It is new, empty, or was begun by the same thing, which then goes on; one
    process holds it at a time. Making the object only looks; `claimed` takes
    the directory.

    It raises a ValueError or an OSError if the directory can't be used.
    """

    about = ""
    """The file that tells what it is of."""
    holdout = 0.0
    log_displacement = False
    log_to = LogTo()
    """All as in `RunTask`."""

    def __init__(
        self, out_dir: str | os.PathLike, recording: Recording | None = None
    ) -> None:
        super().__init__(out_dir)
        self.recording = recording or Recording()
        self._refuse_others()

    def check(self) -> None:
        """Loads the data, and prepares it if need be; refuses what would fail.

        Raises:
            DatasetNotFoundError: If a data set has not been prepared.
            OSError: If it can't be.
            ValueError: If nothing can be held out of it, a batch is larger
                than what is left, or a run is too short.
        """
        loaded: dict[tuple, data.Source] = {}
        for run in self._to_check():
            where = (run.dataset, run.data_dir, run.download)
            if where not in loaded:
                loaded[where] = load_images(run, self.holdout)
            learning_rates(run, updates_of(run, loaded[where]))
            self.recording.check(run)
            run.noise()  # A function of the user's may not be there.

    @contextlib.contextmanager
    def claimed(self, command: str) -> Iterator[None]:
        """Holds the directory for a command; a second one gets an OSError.

        In a bucket the first one gets it, before it starts another run.
        """
        with self._held():
            self._refuse_others()
            self.remove_unfinished()
            if not self.path(self.about).exists():
                self._begin(command)
            yield

    def run_dir(self, name: str) -> _files.AnyPath:
        """Returns where a run writes."""
        return self.directory / "runs" / name

    def task(
        self, name: str, config: RunConfig, threads: int, command: str
    ) -> RunTask:
        """Returns a run as a task for a process with so many threads.

        What a run has left that was killed before it had begun is removed.
        """
        if self.owner:
            self.owner.check()
        run_dir = self.run_dir(name)
        if run_dir.exists() and not (run_dir / "config.json").exists():
            _files.remove_tree(run_dir)
        config = dataclasses.replace(config, threads=threads)
        return RunTask(
            config,
            run_dir,
            command,
            self.holdout,
            self.log_displacement,
            self.recording,
            self.log_to,
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

    def _to_check(self) -> Iterable[RunConfig]:
        """Returns runs that stand for all: if these can be run, all can."""
        raise NotImplementedError

    def _describe_end(self, result: Result) -> str:
        """Returns what counts of a run that reached its end."""
        raise NotImplementedError

    def _begin(self, command: str) -> None:
        """Writes `about`."""
        raise NotImplementedError

    def _compared(self, about: Any) -> Iterable[tuple[str, Any, Any]]:
        """Returns names, each with the value now and that in `about`."""
        raise NotImplementedError

    def _refuse_others(self) -> None:
        names = self.whole_names()
        about = _files.read_json(self.path(self.about))
        if about is not None:
            self.refuse_other_settings(self._compared(about))
        elif names:
            raise FileExistsError(
                f"`out_dir` must be new, empty or that of the same {self.what}"
                f", got out_dir='{self.directory}', which holds other files. "
                "Choose another name (--out_dir)."
            )

    @contextlib.contextmanager
    def _held(self) -> Iterator[None]:
        if self.owner:
            self.owner.take()
            yield
            self.owner.give_back()
            return
        self.directory.mkdir(parents=True, exist_ok=True)
        held = os.open(self.directory, os.O_RDONLY)
        try:
            self._lock(held)
            yield
        finally:
            os.close(held)

    def _lock(self, descriptor: int) -> None:
        """Locks the directory for as long as it is open."""
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise OSError(
                f"`out_dir` must not be in use by another {self.what}, got "
                f"out_dir='{self.directory}'. Wait for it, or choose another "
                "name (--out_dir)."
            ) from None
        except OSError:  # Not all file systems can.
            pass
