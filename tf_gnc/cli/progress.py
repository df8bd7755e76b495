"""Shows how far a run is, or how far many runs are.

On a terminal bars; anywhere else (a file, a pipe, a batch system's log) a
plain line as an epoch ends, or as one of many runs begins or ends. A run that
another process has started and watches tells that one how far it is.
"""

import contextlib
import functools
import json
import os
import stat
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import keras
import rich.console
from rich.progress import BarColumn, Progress, TaskID, TextColumn

from tf_gnc.launch.output import PROGRESS_FD, move_bar, new_bar

# Looking at a loss waits for the step that makes it, so a bar that is redrawn
# a few times a second has no use for more.
_SECONDS_BETWEEN_LOOKS = 0.2


class Console(rich.console.Console):
    """Where a command prints."""

    def say(self, text: str) -> None:
        """Prints a text as it is: uncoloured, and no line broken."""
        self.print(text, highlight=False, markup=False, soft_wrap=True)

    def say_files(
        self, names: Iterable[str], directory: str | os.PathLike
    ) -> None:
        """Prints which files there are and, to be copied, where they are."""
        self.say(f"{', '.join(names)}\nin {directory}")

    def on_broken_pipe(self) -> None:
        """Lets the error out; rich would end the process here."""
        raise  # noqa: PLE0704


@contextlib.contextmanager
def show_progress(console: Console) -> Iterator[keras.callbacks.Callback]:
    """Yields the callback that suits the console; takes the bar down after.

    The bar has to go however training ends, or the terminal is left without
    a cursor.
    """
    watcher = _watchers_pipe()
    if watcher is not None:
        yield ProgressReports(functools.partial(_write_report, watcher))
    elif console.is_terminal:
        with new_bar(console) as bar:
            yield ProgressReports(functools.partial(move_bar, bar))
    else:
        yield EpochLines(console)


class EpochLines(keras.callbacks.Callback):
    """Prints a plain line as each epoch ends."""

    backed_up = ()  # see tf_gnc.callbacks.callback_state

    def __init__(self, console: Console) -> None:
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
        self._console.say(
            f"epoch {epoch + 1:{width}}/{epochs}  {_numbers(logs or {})}  "
            f"{seconds:.1f} s"
        )


class ProgressReports(keras.callbacks.Callback):
    """Reports what a line of `PROGRESS_FD` holds, a few times a second."""

    backed_up = ()  # see tf_gnc.callbacks.callback_state

    def __init__(self, report: Callable[[Mapping[str, Any]], None]) -> None:
        super().__init__()
        self._report = report
        self._epoch = 0
        self._last_look = 0.0
        # The test accuracy is kept in sight during the next epoch.
        self._evaluated: dict[str, float] = {}

    def on_epoch_begin(self, epoch: int, logs: dict | None = None) -> None:
        """Reports: a run that is taken up doesn't begin at 0."""
        self._epoch = epoch + 1
        self._say(0, self._evaluated)

    def on_train_batch_end(self, batch: int, logs: dict | None = None) -> None:
        """Reports, unless it has just done so."""
        now = time.monotonic()
        if now - self._last_look > _SECONDS_BETWEEN_LOOKS:
            self._last_look = now
            self._say(batch + 1, {**self._evaluated, **(logs or {})})

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        """Reports the epoch's numbers."""
        logs = logs or {}
        self._evaluated = {
            name: v for name, v in logs.items() if name == "val_accuracy"
        }
        self._say(int(self.params["steps"]), logs)

    def _say(self, step: int, logs: Mapping[str, Any]) -> None:
        self._report(
            {
                "epoch": self._epoch,
                "epochs": self.params["epochs"],
                "step": step,
                "steps": int(self.params["steps"]),
                "text": _numbers(logs) or "starting",
            }
        )


def _write_report(descriptor: int, report: Mapping[str, Any]) -> None:
    # No room, or nobody watches any more: training doesn't depend on it.
    with contextlib.suppress(OSError):
        os.write(descriptor, f"{json.dumps(report)}\n".encode())


def _watchers_pipe() -> int | None:
    """Returns the open file in which another process reads, if one does."""
    # A process that was started by the launcher's process has inherited the
    # variable, but not the file.
    with contextlib.suppress(KeyError, OSError, ValueError):
        descriptor = int(os.environ[PROGRESS_FD])
        if stat.S_ISFIFO(os.fstat(descriptor).st_mode):
            return descriptor
    return None


def _numbers(logs: Mapping[str, Any]) -> str:
    """Returns the numbers that are there, in a fixed order."""
    shown = (
        ("loss", "loss", number),
        ("accuracy", "acc", percent),
        ("val_accuracy", "test acc", percent),
    )
    return "  ".join(
        f"{label} {show(float(logs[name]))}"
        for name, label, show in shown
        if name in logs
    )


def number(value: float | None) -> str:
    """Returns a loss as text."""
    return "nan" if value is None else f"{value:.4f}"


def percent(value: float | None) -> str:
    """Returns a share as text."""
    return "nan" if value is None else f"{value:.2%}"


class RunsDisplay(Progress):
    """Shows what the processes of many runs do; a `launch.pool.Listener`.

    On a terminal, in a `with`, it draws a bar for all runs and one for each;
    anywhere else it prints lines alone. There are `total` runs still to do,
    and `describe` returns what one has come to, by its name.
    """

    def __init__(
        self,
        console: Console,
        total: int,
        describe: Callable[[str], str],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__(
            TextColumn("{task.description}"),
            BarColumn(bar_width=20),
            TextColumn("{task.fields[text]}"),
            console=console,
            transient=True,
        )
        self._say = console.say
        self._total = total
        self._describe = describe
        self._clock = clock
        self._began = clock()
        self._num_ended = 0
        self._is_stopping = False
        # What runs that are taken up had done before costs no time now.
        self._done_before = 0.0
        self._parts: dict[str, float] = {}
        self._bars: dict[str, TaskID] = {}
        self._overall = self.add_task("all runs", total=total, text="")
        self._move_overall()

    def started(self, name: str) -> None:
        """Adds the run."""
        if name in self._bars:
            self._say(f"{name}: started again")
            return
        if not self.console.is_terminal:
            self._say(f"{name}: started")
        self._bars[name] = self.add_task(name, total=1.0, text="starting")

    def moved(self, name: str, report: Mapping[str, Any]) -> None:
        """Moves the run's bar."""
        epochs, steps = report["epochs"], report["steps"]
        done = (report["epoch"] - 1 + report["step"] / steps) / epochs
        if name not in self._parts:
            self._done_before += done
        self._parts[name] = done
        text = f"epoch {report['epoch']}/{epochs}  {report['text']}"
        self.update(self._bars[name], completed=done, text=text)
        self._move_overall()

    def ended(self, name: str, problem: str | None) -> None:
        """Says what the run came to."""
        self._parts.pop(name, None)
        self._num_ended += 1
        self.remove_task(self._bars.pop(name))
        self._move_overall()
        text = self._describe(name) if problem is None else problem
        if not self._is_stopping:
            counted = f"{self._num_ended}/{self._total}"
            text = f"{text} ({counted}, {self.time_left()})"
        self._say(f"{name}: {text}")

    def stopping(self) -> None:
        """Says that the processes were told to stop."""
        self._is_stopping = True
        self._say(
            "stopping: each run saves where it is; Ctrl-C again kills them"
        )

    def time_left(self) -> str:
        """Returns how much longer it will take, if all runs are alike."""
        done_now = self._done() - self._done_before
        if done_now < 0.05:
            return "time left unknown"
        spent = self._clock() - self._began
        left = round(spent * (self._total - self._done()) / done_now)
        hours, rest = divmod(left, 3600)
        return f"{hours}:{rest // 60:02}:{rest % 60:02} left"

    def _done(self) -> float:
        """Returns how many runs are done, parts of some among them."""
        return self._num_ended + sum(self._parts.values())

    def _move_overall(self) -> None:
        self.update(
            self._overall,
            completed=self._done(),
            text=f"{self._num_ended}/{self._total} runs  {self.time_left()}",
        )
