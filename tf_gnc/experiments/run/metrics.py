"""Writes a row of numbers as each epoch ends, and stops a run that is lost.

Knows the model's public face alone: its logs, its optimizer's count, its rule.
"""

import math
import time
from collections.abc import Callable
from typing import Any

import keras

from tf_gnc.experiments.run.directory import RunFiles, finite_or_none

_LOGGED = ("loss", "accuracy", "val_loss", "val_accuracy")


class MetricsLog(keras.callbacks.Callback):
    """Appends a row to metrics.jsonl at the end of each epoch.

    A row holds the epoch (counted from 1), the mean loss and accuracy of the
    epoch's batches, the same on the test data at the end of the epoch, the
    learning rate of the epoch's last update, the noise rule and its alpha,
    and the seconds that the epoch took, evaluation included. To these come
    the logs whose names begin with `probe_`: those of the probes that stand
    before this callback.

    Args:
        files: Where to write; None for a process that doesn't.
        schedule: The learning rate as a function of the update, from 0.

    Raises:
        FloatingPointError: Out of `fit`, if an epoch's mean loss isn't
            finite; its row has been written by then.
    """

    backed_up = (
        "rows",
        "training_seconds",
    )  # see tf_gnc.callbacks.callback_state

    def __init__(
        self, files: RunFiles | None, schedule: Callable[[int], Any]
    ) -> None:
        """Keeps the arguments; the class describes them."""
        super().__init__()
        self._files = files
        self._schedule = schedule
        self._epoch_began = self._training_ended = 0.0
        self.rows: list[dict[str, Any]] = []
        """What was written so far."""
        self.training_seconds: list[float] = []
        """Per epoch, without the evaluation."""

    def on_train_end(self, logs: dict | None = None) -> None:
        """Has all rows in the file, if a run is taken up at its very end."""
        if self._files is not None:
            self._files.keep_rows(self.rows)

    def on_epoch_begin(self, epoch: int, logs: dict | None = None) -> None:
        """Starts the clock."""
        self._epoch_began = time.perf_counter()

    def on_test_begin(self, logs: dict | None = None) -> None:
        """Stops the clock of the training steps."""
        self._training_ended = time.perf_counter()

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        """Writes the row."""
        logs = logs or {}
        last_update = int(self.model.optimizer.iterations.numpy()) - 1
        row: dict[str, Any] = {"epoch": epoch + 1}
        for name in _LOGGED:
            row[name] = finite_or_none(logs.get(name, math.nan))
        rule = self.model.noise_rule
        row["learning_rate"] = finite_or_none(self._schedule(last_update))
        row["rule"] = None if rule is None else type(rule).__name__
        row["alpha"] = None if rule is None else self.model.noise_alpha
        row["seconds"] = time.perf_counter() - self._epoch_began
        for name in sorted(logs):
            if name.startswith("probe_"):
                row[name] = finite_or_none(logs[name])
        self.training_seconds.append(self._training_ended - self._epoch_began)
        if self._files is not None:
            # A run that was taken up again forgets what came after its backup.
            self._files.keep_rows(self.rows)
            self._files.append_row(row)
        self.rows.append(row)
        if row["loss"] is None:
            raise FloatingPointError(
                f"The loss is {float(logs['loss'])} in epoch {epoch + 1}: the "
                "run has diverged. Lower the learning rate (--learning_rate)."
            )
