"""A run's numbers: a row as each epoch ends, and in the end one for it all.

Knows the model's public face alone: its logs, its optimizer's count, its rule.
"""

import dataclasses
import math
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras

from tf_gnc._files import finite_or_none
from tf_gnc.data import Updates
from tf_gnc.experiments.config import RunConfig
from tf_gnc.experiments.run import environment
from tf_gnc.experiments.run.directory import RunFiles

_LOGGED = ("loss", "accuracy", "val_loss", "val_accuracy")


class MetricsLog(keras.callbacks.Callback):
    """Appends a row to metrics.jsonl at the end of each epoch.

    A row holds the epoch (counted from 1), how many updates there were so far
    in the whole run, the mean loss and accuracy of the epoch's batches, the
    same on the test data at the end of the epoch, the learning rate of the
    epoch's last update, the noise rule and its alpha, and the seconds that
    the epoch took, evaluation included. To these come
    the logs whose names begin with `probe_`: those of the probes that stand
    before this callback. The learning rate goes into the logs, for `fit`'s
    history.

    Raises:
        FloatingPointError: Out of `fit`, if an epoch's mean loss isn't
            finite; its row has been written by then.
    """

    backed_up = ("rows", "training_seconds")  # see callbacks.callback_state

    def __init__(self, files: RunFiles, schedule: Callable[[int], Any]) -> None:
        super().__init__()
        self._files, self._schedule = files, schedule
        self._epoch_began = self._training_ended = 0.0
        self.rows: list[dict[str, Any]] = []
        """What was written so far."""
        self.training_seconds: list[float] = []
        """Per epoch, without the evaluation."""

    def on_train_end(self, logs: dict | None = None) -> None:
        """Has all rows in the file, if a run is taken up at its very end."""
        self._files.keep_rows(self.rows)

    def on_epoch_begin(self, epoch: int, logs: dict | None = None) -> None:
        """Starts the clock."""
        self._epoch_began = time.perf_counter()

    def on_test_begin(self, logs: dict | None = None) -> None:
        """Stops the clock of the training steps."""
        self._training_ended = time.perf_counter()

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        """Writes the row."""
        logs = {} if logs is None else logs
        last_update = int(self.model.optimizer.iterations.numpy()) - 1
        row: dict[str, Any] = {"epoch": epoch + 1, "updates": last_update + 1}
        for name in _LOGGED:
            row[name] = finite_or_none(logs.get(name, math.nan))
        rule = self.model.noise_rule
        rate = finite_or_none(self._schedule(last_update))
        row["learning_rate"] = logs["learning_rate"] = rate
        row["rule"] = None if rule is None else type(rule).__name__
        row["alpha"] = None if rule is None else self.model.noise_alpha
        row["seconds"] = time.perf_counter() - self._epoch_began
        for name in sorted(logs):
            if name.startswith("probe_"):
                row[name] = finite_or_none(logs[name])
        self.training_seconds.append(self._training_ended - self._epoch_began)
        # A run that was taken up again forgets what came after its backup.
        self._files.add_row(self.rows, row)
        self.rows.append(row)
        if row["loss"] is None:
            raise FloatingPointError(
                f"The loss is {float(logs['loss'])} in epoch {epoch + 1}: the "
                "run has diverged. Lower the learning rate (--learning_rate)."
            )


@dataclasses.dataclass(frozen=True)
class Summary:
    """A run's result; None for a number that isn't finite.

    The fields up to `num_workers` are as in the run's `RunConfig`.

    Attributes:
        num_replicas: The devices that carried the workers.
        val_accuracy: On the test data, after the last epoch.
        best_val_accuracy: On the test data, after the best epoch.
        train_loss: Mean over the batches of the last epoch.
        seconds: From the first step to the last file, tracing included.
        examples_per_second: Of training alone. The first epoch, in which
            TensorFlow traces the step, is left out if there are others.
        peak_memory_bytes: The most memory that the process has ever held.
        resumed_steps: The steps at which the run was taken up again after it
            was cut short; none for a run left alone.
    """

    dataset: str
    model: str
    method: str
    seed: int
    epochs: int
    batch_size: int
    num_workers: int
    num_replicas: int
    val_accuracy: float | None
    best_val_accuracy: float | None
    train_loss: float | None
    seconds: float
    examples_per_second: float
    peak_memory_bytes: int | None
    resumed_steps: Sequence[int] = ()

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Summary":
        """Makes the summary that `to_dict` was called on."""
        resumed = tuple(values.get("resumed_steps", ()))
        return cls(**{**values, "resumed_steps": resumed})

    def to_dict(self) -> dict[str, Any]:
        """Returns all values as JSON can hold them."""
        resumed = list(self.resumed_steps)
        return {**dataclasses.asdict(self), "resumed_steps": resumed}


def summarize(
    config: RunConfig, log: MetricsLog, updates: Updates, **others: Any
) -> Summary:
    """Returns the summary of a run of one epoch at least that has just ended.

    `log` has its rows and times, `others` are the fields of `Summary` that
    follow from none of the rest.
    """
    measured = log.training_seconds[1:] or log.training_seconds
    epochs = len(log.rows)
    steps = updates.before(epochs) - updates.before(epochs - len(measured))
    examples = steps * config.batch_size
    accuracies = [row["val_accuracy"] for row in log.rows]
    of_config = {field.name for field in dataclasses.fields(Summary)}
    of_config &= vars(config).keys()
    return Summary(
        **{name: getattr(config, name) for name in of_config},
        val_accuracy=accuracies[-1],
        best_val_accuracy=max(
            (a for a in accuracies if a is not None), default=None
        ),
        train_loss=log.rows[-1]["loss"],
        examples_per_second=examples / sum(measured),
        peak_memory_bytes=environment.peak_memory_bytes(),
        **others,
    )
