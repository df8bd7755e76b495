"""Shows how far a run is, and what came out of it.

On a terminal one bar for the whole run; anywhere else (a file, a pipe, a
batch system's log) one plain line per epoch. Under `tf-gnc launch` the bar is
the launcher's, which is told how far the run is. Knows nothing of how the run
is made.
"""

import contextlib
import json
import os
import stat
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import keras
from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table

from tf_gnc.experiments import Summary
from tf_gnc.launch.output import PROGRESS_FD

# Looking at a loss waits for the step that makes it, so a bar that is redrawn
# a few times a second has no use for more.
_SECONDS_BETWEEN_LOOKS = 0.2


@contextlib.contextmanager
def show_progress(console: Console) -> Iterator[keras.callbacks.Callback]:
    """Yields the callback that suits the console; takes the bar down after.

    The bar has to go however training ends, or the terminal is left without
    a cursor.
    """
    launcher = _launcher_pipe()
    if launcher is not None:
        yield ProgressReports(launcher)
        return
    if not console.is_terminal:
        yield EpochLines(console)
        return
    progress = Progress(
        TextColumn("epoch {task.fields[epoch]}"),
        BarColumn(bar_width=None),
        TextColumn("{task.fields[numbers]}"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        console=console,
        expand=True,
    )
    with progress:
        yield ProgressBar(progress)


class EpochLines(keras.callbacks.Callback):
    """Prints a plain line as each epoch ends.

    Args:
        console: Where to print.
    """

    backed_up = ()  # see tf_gnc.callbacks.callback_state

    def __init__(self, console: Console) -> None:
        """Keeps the console."""
        super().__init__()
        self._console = console
        self._began = 0.0

    def on_epoch_begin(self, epoch: int, logs: dict | None = None) -> None:
        """Starts the clock."""
        self._began = time.perf_counter()

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        """Prints the line."""
        epochs = self.params["epochs"]
        width = len(str(epochs))
        seconds = time.perf_counter() - self._began
        line = (
            f"epoch {epoch + 1:{width}}/{epochs}  {_numbers(logs or {})}  "
            f"{seconds:.1f} s"
        )
        self._console.print(line, highlight=False, soft_wrap=True)


class ProgressBar(keras.callbacks.Callback):
    """Moves one bar through the whole run.

    Args:
        progress: Shows the bar, with the fields `epoch` and `numbers`.
    """

    backed_up = ()  # see tf_gnc.callbacks.callback_state

    def __init__(self, progress: Progress) -> None:
        """Keeps the display."""
        super().__init__()
        self._progress = progress
        self._task = progress.add_task("", epoch="", numbers="starting")
        self._last_look = 0.0
        self._evaluated: dict[str, float] = {}

    def on_train_begin(self, logs: dict | None = None) -> None:
        """Learns how long the run is."""
        total = self.params["epochs"] * self.params["steps"]
        self._progress.update(self._task, total=total)

    def on_epoch_begin(self, epoch: int, logs: dict | None = None) -> None:
        """Counts the epoch."""
        count = f"{epoch + 1}/{self.params['epochs']}"
        # A run that is taken up doesn't begin at 0.
        done = epoch * self.params["steps"]
        self._progress.update(self._task, epoch=count, completed=done)

    def on_train_batch_end(self, batch: int, logs: dict | None = None) -> None:
        """Moves the bar by a step."""
        self._progress.advance(self._task)
        now = time.monotonic()
        if now - self._last_look > _SECONDS_BETWEEN_LOOKS:
            self._last_look = now
            self._show({**self._evaluated, **(logs or {})})

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        """Keeps the test accuracy in sight during the next epoch."""
        logs = logs or {}
        self._evaluated = {
            name: v for name, v in logs.items() if name == "val_accuracy"
        }
        self._show(logs)

    def _show(self, logs: Mapping[str, Any]) -> None:
        self._progress.update(self._task, numbers=_numbers(logs))


class ProgressReports(keras.callbacks.Callback):
    """Tells the launcher how far the run is, for the bar that it shows.

    Args:
        descriptor: The open file for the reports.
    """

    backed_up = ()  # see tf_gnc.callbacks.callback_state

    def __init__(self, descriptor: int) -> None:
        """Keeps the file."""
        super().__init__()
        self._descriptor = descriptor
        self._epoch = 0
        self._last_report = 0.0
        self._evaluated: dict[str, float] = {}

    def on_epoch_begin(self, epoch: int, logs: dict | None = None) -> None:
        """Keeps the epoch's number."""
        self._epoch = epoch + 1

    def on_train_batch_end(self, batch: int, logs: dict | None = None) -> None:
        """Reports, a few times a second at most."""
        now = time.monotonic()
        if now - self._last_report > _SECONDS_BETWEEN_LOOKS:
            self._last_report = now
            self._report(batch + 1, {**self._evaluated, **(logs or {})})

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        """Reports, and keeps the test accuracy in sight."""
        logs = logs or {}
        self._evaluated = {
            name: v for name, v in logs.items() if name == "val_accuracy"
        }
        self._report(self.params["steps"], logs)

    def _report(self, step: int, logs: Mapping[str, Any]) -> None:
        report = {
            "epoch": self._epoch,
            "epochs": self.params["epochs"],
            "step": step,
            "steps": self.params["steps"],
            "text": _numbers(logs),
        }
        # No room, or no launcher any more: training doesn't depend on it.
        with contextlib.suppress(OSError):
            os.write(self._descriptor, f"{json.dumps(report)}\n".encode())


def _launcher_pipe() -> int | None:
    """Returns the open file in which `tf-gnc launch` reads, if it does."""
    # A process that was started by the launcher's process has inherited the
    # variable, but not the file.
    with contextlib.suppress(KeyError, OSError, ValueError):
        descriptor = int(os.environ[PROGRESS_FD])
        if stat.S_ISFIFO(os.fstat(descriptor).st_mode):
            return descriptor
    return None


def print_summary(
    console: Console, summary: Summary, run_dir: str, files: Sequence[str]
) -> None:
    """Prints the result and the files it is in.

    Args:
        console: Where to print.
        summary: What came out.
        run_dir: Where the files lie.
        files: Their names.
    """
    table = Table.grid(padding=(0, 2))
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    best = _percent(summary.best_val_accuracy)
    table.add_row(
        "test accuracy",
        f"[bold]{_percent(summary.val_accuracy)}[/bold]  (best {best})",
    )
    table.add_row("training loss", _number(summary.train_loss))
    table.add_row(
        "time",
        f"{summary.seconds:.1f} s, {summary.examples_per_second:,.0f} "
        "examples a second",
    )
    if summary.peak_memory_bytes is not None:
        mebibytes = summary.peak_memory_bytes / 2**20
        table.add_row("peak memory", f"{mebibytes:,.0f} MiB")
    table.add_row("files", ", ".join(files))
    console.print(table, highlight=False)
    # By itself and unwrapped, so that it can be copied from a narrow window.
    console.print(f"in {run_dir}", highlight=False, soft_wrap=True)


def _numbers(logs: Mapping[str, Any]) -> str:
    """Returns the numbers that are there, in a fixed order."""
    shown = (
        ("loss", "loss", _number),
        ("accuracy", "acc", _percent),
        ("val_accuracy", "test acc", _percent),
    )
    return "  ".join(
        f"{label} {show(float(logs[name]))}"
        for name, label, show in shown
        if name in logs
    )


def _number(value: float | None) -> str:
    return "nan" if value is None else f"{value:.4f}"


def _percent(value: float | None) -> str:
    return "nan" if value is None else f"{value:6.2%}".strip()
