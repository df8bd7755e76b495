"""Shows how far a comparison is.

On a terminal one bar for all of it and one for each run that goes on; anywhere
else a plain line as a run begins or ends.
"""

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn


class Display:
    """Is told what the processes do; see `launch.pool.Listener`.

    Args:
        console: Where to print.
        progress: The bars; None for plain lines alone.
        total: How many runs are still to do.
        describe: Returns what a run that has ended came to, by its name.
        clock: Tells the time in seconds.
    """

    def __init__(
        self,
        console: Console,
        progress: Progress | None,
        total: int,
        describe: Callable[[str], str],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Keeps the arguments; the class describes them."""
        self._console = console
        self._progress = progress
        self._total = total
        self._describe = describe
        self._clock = clock
        self._began = clock()
        self._num_ended = 0
        self._is_stopping = False
        # What runs that are taken up had done before costs no time now.
        self._done_before = 0.0
        self._parts: dict[str, float] = {}
        self._tasks: dict[str, TaskID] = {}
        if progress is not None:
            self._overall = progress.add_task("all runs", total=total, text="")
            self._move_overall()

    def started(self, name: str) -> None:
        """Adds the run."""
        if self._progress is None:
            self._say(f"{name}: started")
        else:
            task = self._progress.add_task(name, total=1.0, text="starting")
            self._tasks[name] = task

    def moved(self, name: str, report: Mapping[str, Any]) -> None:
        """Moves the run's bar."""
        epochs, steps = report["epochs"], report["steps"]
        done = (report["epoch"] - 1 + report["step"] / steps) / epochs
        if name not in self._parts:
            self._done_before += done
        self._parts[name] = done
        if self._progress is not None:
            text = f"epoch {report['epoch']}/{epochs}  {report['text']}"
            self._progress.update(self._tasks[name], completed=done, text=text)
            self._move_overall()

    def ended(self, name: str, problem: str | None) -> None:
        """Says what the run came to."""
        self._parts.pop(name, None)
        self._num_ended += 1
        if self._progress is not None:
            self._progress.remove_task(self._tasks.pop(name))
            self._move_overall()
        text = self._describe(name) if problem is None else problem
        if self._is_stopping:
            self._say(f"{name}: {text}")
            return
        counted = f"{self._num_ended}/{self._total}"
        self._say(f"{name}: {text} ({counted}, {self.time_left()})")

    def stopping(self) -> None:
        """Says that the processes were told to stop."""
        self._is_stopping = True
        self._say("stops, saving the runs that go on; Ctrl-C again kills them")

    def time_left(self) -> str:
        """Returns how much longer it will take, if all runs are alike."""
        done = self._num_ended + sum(self._parts.values())
        done_now = done - self._done_before
        if done_now < 0.05:
            return "time left unknown"
        spent = self._clock() - self._began
        left = round(spent * (self._total - done) / done_now)
        hours, rest = divmod(left, 3600)
        return f"{hours}:{rest // 60:02}:{rest % 60:02} left"

    def _move_overall(self) -> None:
        self._progress.update(
            self._overall,
            completed=self._num_ended + sum(self._parts.values()),
            text=f"{self._num_ended}/{self._total} runs  {self.time_left()}",
        )

    def _say(self, text: str) -> None:
        self._console.print(text, highlight=False, markup=False, soft_wrap=True)


@contextlib.contextmanager
def show_comparison(
    console: Console, total: int, describe: Callable[[str], str]
) -> Iterator[Display]:
    """Yields the display that suits the console; takes the bars down after.

    Args:
        console: Where to print.
        total: How many runs are still to do.
        describe: Returns what a run that has ended came to, by its name.
    """
    if not console.is_terminal:
        yield Display(console, None, total, describe)
        return
    with Progress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=20),
        TextColumn("{task.fields[text]}"),
        console=console,
        transient=True,
    ) as progress:
        yield Display(console, progress, total, describe)
