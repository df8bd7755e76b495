"""What several processes print, as whole lines on one screen with one bar.

rich is imported when there is a bar to draw, not before.
"""

import contextlib
import json
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

# The environment variable with the number of the open file into which a
# process may write how far it is: one line of JSON at a time, with `epoch`,
# `epochs`, `step` (of the epoch), `steps` and a `text` to show.
PROGRESS_FD = "TF_GNC_PROGRESS_FD"

# Longer lines are cut, or one without an end would fill the memory.
_LONGEST_LINE = 2**16

# How often to show a line that the process keeps writing over, as progress
# bars do. What counts is how it looks in the end.
_SECONDS_BETWEEN_REWRITES = 10.0


class LineCutter:
    r"""Cuts bytes, as they come, into the lines that a terminal would show.

    Of what is written over after a carriage return only the last is a line of
    its own, and, lest a progress bar look like a standstill, one state every
    ten seconds. `clock` tells the time in seconds.

    Example:
        >>> cutter = LineCutter()
        >>> cutter.feed(b"one\ntw"), cutter.feed(b"o\n 10%\r100%\n")
        (['one'], ['two', '100%'])
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._rest = b""
        self._rewrite_shown = -_SECONDS_BETWEEN_REWRITES

    def feed(self, data: bytes) -> list[str]:
        """Returns the lines that `data` completes, without their ends."""
        *lines, self._rest = (self._rest + data).split(b"\n")
        # A carriage return at the very end may belong to a line's end.
        old, returned, new = self._rest.rstrip(b"\r").rpartition(b"\r")
        if returned:
            self._rest = self._rest[len(old) + 1 :]
            now = self._clock()
            is_due = now - self._rewrite_shown >= _SECONDS_BETWEEN_REWRITES
            if is_due and _visible(old):
                self._rewrite_shown = now
                lines.append(old)
        if len(self._rest) > _LONGEST_LINE:
            lines.append(self._rest)
            self._rest = b""
        return [_visible(line) for line in lines]

    def end(self) -> list[str]:
        """Returns what is left: the line that never ended, if any."""
        rest, self._rest = _visible(self._rest), b""
        return [rest] if rest else []


class Screen:
    """Where the launcher and its processes print.

    Use it in a `with`, or the terminal is left without a cursor.
    """

    def __init__(self) -> None:
        self.has_bar = sys.stdout.isatty()
        # Standard output and standard error go to the same file: a process'
        # two streams then are best one as well, in their order.
        self.is_one = False
        with contextlib.suppress(OSError):  # One of them is closed.
            self.is_one = os.path.samestat(os.fstat(1), os.fstat(2))
        self._bar: Any = None

    def __enter__(self) -> "Screen":
        """Shows nothing yet."""
        return self

    def __exit__(self, *_: object) -> None:
        """Leaves the bar as it is and gives the cursor back."""
        if self._bar is not None:
            self._bar.stop()

    def show(
        self, prefix: str, lines: Sequence[str], error: bool = False
    ) -> None:
        """Prints whole lines, given without their ends."""
        text = "".join(f"{prefix}{line}\n" for line in lines)
        if not text:
            return
        if self._bar is not None and (self.is_one or not error):
            from rich.text import Text

            above = Text.from_ansi(text.removesuffix("\n"))
            self._bar.console.print(above, soft_wrap=True)
            return
        stream = sys.stderr if error else sys.stdout
        encoding = stream.encoding or "utf-8"
        stream.write(text.encode(encoding, "replace").decode(encoding))
        stream.flush()

    def say(self, message: str) -> None:
        """Prints what the launcher itself has to say."""
        self.show("tf-gnc launch: ", [message], error=True)

    def move_bar(self, reports: Sequence[str]) -> None:
        """Moves the bar to where the last line of `PROGRESS_FD` says."""
        # Whatever else a process may write there is not worth a failed run.
        with contextlib.suppress(LookupError, TypeError, ValueError):
            bar = self._bar or new_bar()
            move_bar(bar, json.loads(reports[-1]))
            self._bar = bar
            bar.start()  # if it hasn't


def new_bar(console: Any = None) -> Any:
    """Returns a bar for a whole run, a `rich.progress.Progress`.

    It is shown on a `rich.console.Console`, by default standard output.
    """
    from rich import progress

    bar = progress.Progress(
        progress.TextColumn("epoch {task.fields[epoch]}"),
        progress.BarColumn(bar_width=None),
        progress.TextColumn("{task.fields[text]}"),
        progress.TimeElapsedColumn(),
        progress.TextColumn("left"),
        progress.TimeRemainingColumn(),
        console=console,
        expand=True,
    )
    bar.add_task("", total=None, epoch="", text="starting")
    return bar


def move_bar(bar: Any, report: Mapping[str, Any]) -> None:
    """Moves a bar to where a run is; `report` is a line of `PROGRESS_FD`."""
    epoch, steps = report["epoch"], report["steps"]
    bar.update(
        bar.task_ids[0],
        total=report["epochs"] * steps,
        completed=(epoch - 1) * steps + report["step"],
        epoch=f"{epoch}/{report['epochs']}",
        text=str(report["text"]),
    )


def _visible(line: bytes) -> str:
    """Returns what is left of a line after its carriage returns."""
    return line.rstrip(b"\r").rpartition(b"\r")[2].decode("utf-8", "replace")
