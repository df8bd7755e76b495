"""The callback that gives a run's numbers to the loggers."""

import dataclasses
import math
import os
import time
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import Any

import keras

from tf_gnc import _check, _files
from tf_gnc._settings import setting
from tf_gnc.experiments.loggers import registry
from tf_gnc.experiments.loggers.logger import LoggedRun, numbers_of
from tf_gnc.experiments.loggers.record import Record
from tf_gnc.step.control import control_of

KEPT = "loggers.json"
"""The file of a run's directory that says which records are its own."""

_POINTS_AN_EPOCH = 100
_SECONDS_BETWEEN_SENDS = 5.0


@dataclasses.dataclass(frozen=True)
class LogTo:
    """Where a run's numbers go beside its directory. Two of these are flags.

    Attributes:
        log: Names of loggers, with commas between them.
        log_every: Steps from one that is logged to the next; None for as many
            as make a hundred in an epoch.
        folder: TensorBoard's; None for `tensorboard` in the run's directory.
        group: The name of the many runs that this is one of, or None.

    Raises:
        ValueError: If a name is unknown, or `log_every` is below 1 or alone.
        MissingExtraError: If a logger's package isn't installed.

    Example:
        >>> LogTo("tensorboard").names
        ['tensorboard']
    """

    log: str = setting(
        "Where else settings, numbers, summary and curves go, with commas "
        f"between names: {', '.join(registry.LOGGERS)}. The libraries' own "
        "variables say where that is: MLFLOW_TRACKING_URI, "
        "MLFLOW_EXPERIMENT_NAME, WANDB_PROJECT, WANDB_MODE=offline. "
        "TensorBoard's files go to `tensorboard` in a run's directory. "
        "Default: nowhere.",
        "", group="Measurements",
    )  # fmt: skip
    log_every: int | None = setting(
        "Steps from one whose numbers --log has to the next. Default: so many "
        "that an epoch has a hundred.",
        None, minimum=1, group="Measurements",
    )  # fmt: skip
    folder: str | os.PathLike | None = None
    group: str | None = None

    def __post_init__(self) -> None:
        """Checks the values."""
        for name in self.names:
            registry.check(name)
        if self.log_every is not None:
            _check.integer("log_every", self.log_every, minimum=1)
            if not self.names:
                raise ValueError(
                    "`log_every` says which steps `log` has and needs it, got "
                    f"log_every={self.log_every} alone. Leave it out, or say "
                    "where to log (--log)."
                )

    @property
    def names(self) -> list[str]:
        """Of the loggers, each once."""
        words = [word.strip() for word in self.log.split(",")]
        return [word for word in dict.fromkeys(words) if word]

    def check(self, run_dir: _files.AnyPath) -> None:
        """Raises a ValueError if TensorBoard's files can't be there."""
        folder = self._folder(run_dir)
        unfit = _files.is_bucket(folder) or folder.is_file()
        if "tensorboard" in self.names and unfit:
            raise ValueError(
                "TensorBoard's files need a local directory, new or not, got "
                f"'{folder}'. Name another (--log_dir of tf-gnc train), or "
                "leave tensorboard out of --log."
            )

    def records(
        self, run_dir: _files.AnyPath, about: Mapping[str, Any]
    ) -> list[Record]:
        """Returns the records of a run, with config.json's content."""
        run = LoggedRun(run_dir.name, self.group, about, self._folder(run_dir))
        path = run_dir / KEPT
        kept = (_files.read_json(path) if self.names else None) or {}

        def keep(name: str, content: Mapping[str, Any]) -> None:
            kept[name] = content
            _files.write_json(path, kept)

        return [
            Record(name, registry.make(name, run), kept.get(name), keep)
            for name in self.names
        ]

    def _folder(self, run_dir: _files.AnyPath) -> _files.AnyPath:
        if self.folder is None:
            return run_dir / "tensorboard"
        return _files.as_path(self.folder)


class RunLog(keras.callbacks.Callback):
    """Gives the loggers each epoch's row, and numbers of steps.

    Those of a step are called `step/loss` and so on: the means over the epoch
    so far, as Keras has them, and the step's rate; with the probes that stand
    before this callback. In a `with`, it closes the records after.

    Args:
        records: Those of the loggers.
        last_row: Returns the epoch's row of metrics.jsonl.
        schedule: The learning rate as a function of the update.
        every: Steps from one that is logged to the next.
    """

    backed_up = ("unsent",)  # see tf_gnc.callbacks.callback_state

    def __init__(
        self,
        records: Sequence[Record],
        last_row: Callable[[], Mapping[str, Any]],
        schedule: Callable[[int], Any],
        every: int,
    ) -> None:
        super().__init__()
        self._records, self._last_row = records, last_row
        self._schedule, self._every, self._before = schedule, every, 0
        self._sent_at = -math.inf

    @property
    def unsent(self) -> list:
        """What is still to be sent, as pairs of a logger's name and a list."""
        return [[record.name, record.unsent] for record in self._records]

    @unsent.setter
    def unsent(self, pairs: list) -> None:
        for record in self._records:
            record.unsent = dict(pairs).get(record.name, [])

    def callbacks(self) -> list[keras.callbacks.Callback]:
        """Returns itself, if there is anything to do in `fit`."""
        return [self] if self._records else []

    def __enter__(self) -> "RunLog":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Closes the records."""
        outcome = "finished" if kind is None else "killed"
        if kind is not None and issubclass(kind, Exception):
            outcome = "failed"
        for record in self._records:
            record.close(outcome)

    def finish(
        self, summary: Mapping[str, Any], curves: _files.AnyPath
    ) -> None:
        """Gives the loggers what the run has come to."""
        for record in self._records:
            record.finish(summary, curves)

    def on_train_begin(self, logs: dict | None = None) -> None:
        """Opens the records."""
        self._send()

    def on_epoch_begin(self, epoch: int, logs: dict | None = None) -> None:
        """Begins to count the epoch's steps."""
        self._before = 0

    def on_train_batch_end(self, batch: int, logs: dict | None = None) -> None:
        """Notes the numbers, if it is time or a probe has some."""
        before, self._before = self._before, batch + 1
        if control_of(self.model).is_skipping:
            return  # A process before this one has done so.
        # Before the step has any: those of a step go together.
        if time.monotonic() - self._sent_at > _SECONDS_BETWEEN_SENDS:
            self._send()
        logs = logs or {}
        found = {n: v for n, v in logs.items() if n.startswith("probe_")}
        is_due = (batch + 1) // self._every > before // self._every
        if not found and not is_due:
            return
        step = self._steps_taken()
        if is_due:
            rate = _files.finite_or_none(self._schedule(step - 1))
            found = {**logs, "learning_rate": rate}
        self._note(step, numbers_of(found, "step/"))

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        """Sends the epoch's numbers."""
        self._note(self._steps_taken(), numbers_of(self._last_row()))
        self._send()

    def _steps_taken(self) -> int:
        return int(self.model.optimizer.iterations.numpy())

    def _note(self, step: int, numbers: Mapping[str, float]) -> None:
        finite = {n: v for n, v in numbers.items() if math.isfinite(v)}
        for record in self._records:
            record.unsent.append([step, time.time(), finite])

    def _send(self) -> None:
        for record in self._records:
            record.send()
        self._sent_at = time.monotonic()


def steps_between(every: int | None, per_epoch: float) -> int:
    """Returns how many steps there are from one that is logged to the next.

    Example:
        >>> steps_between(None, 6.1), steps_between(None, 5004)
        (1, 51)
    """
    return every or max(1, math.ceil(per_epoch / _POINTS_AN_EPOCH))
