"""Runs commands in processes of their own, a few of them side by side.

Knows neither what they run nor what their results are. No process outlives
this one, however it ends.
"""

import contextlib
import json
import os
import selectors
import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from tf_gnc.launch.addresses import split_cores
from tf_gnc.launch.child import Child, Plan, Watchdog
from tf_gnc.launch.group import STOP_SIGNALS

# How long to wait for output before looking whether a process has ended.
_TICK = 0.1

# How long a process may take to save its run when it is told to stop.
_SECONDS_TO_SAVE = 60.0


class Listener(Protocol):
    """Is told what goes on."""

    def started(self, name: str) -> None:
        """A process has been started."""

    def moved(self, name: str, report: Mapping[str, Any]) -> None:
        """It has said how far it is; see `distribute.output.PROGRESS_FD`."""

    def ended(self, name: str, problem: str | None) -> None:
        """It has ended; `problem` says why, unless all is well."""

    def stopping(self) -> None:
        """This process was told to stop and waits for the others to end."""


class SideBySide:
    """Runs one process for each name.

    Args:
        command: Returns the words of a process' command line, from its name
            and the number of cores that it gets.
        jobs: How many to run at a time; they share the cores.
        cores: The cores that there are.
        log_dir: Gets what a process prints, in a file named after it.
        listener: Is told what goes on.

    Attributes:
        stopped_by: The signal that told this process to stop, if any.
    """

    def __init__(
        self,
        command: Callable[[str, int], Sequence[str]],
        jobs: int,
        cores: Sequence[int],
        log_dir: Path,
        listener: Listener,
    ) -> None:
        """Starts nothing yet; see the class."""
        self.stopped_by: int | None = None
        self._command = command
        self._shares = split_cores(cores, jobs)
        self._log_dir = log_dir
        self._listener = listener
        self._running: dict[str, tuple[Child, _Output, set[int]]] = {}
        self._deadline = float("inf")
        self._told_of_stop = False

    def run(self, names: Sequence[str]) -> None:
        """Runs all; call it from the main thread.

        A signal to stop is passed on as SIGTERM, at which a run saves where
        it is; a second one kills the processes.

        Args:
            names: In the order in which they are started.

        Raises:
            OSError: If a process can't be started.
        """
        waiting, free = list(names), list(self._shares)
        with (
            selectors.DefaultSelector() as selector,
            Watchdog() as watchdog,
            self._signals(),
        ):
            try:
                while self._running or (waiting and not self.stopped_by):
                    while waiting and free and not self.stopped_by:
                        self._start(waiting.pop(0), free.pop(0), selector)
                        self._tell(watchdog)
                    for key, _ in selector.select(_TICK):
                        key.data()
                    self._mind_the_stop()
                    free += self._collect()
                    self._tell(watchdog)
            finally:
                self._kill()
                for child, _, _ in self._running.values():
                    child.popen.wait()
                    child.close()

    def _start(
        self, name: str, share: set[int], selector: selectors.BaseSelector
    ) -> None:
        environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
        environment.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
        output = _Output(
            self._log_dir / f"{name}.log",
            lambda report: self._listener.moved(name, report),
        )
        pinned = share if hasattr(os, "sched_setaffinity") else None
        # Index 0 is the one that reports how far it is.
        plan = Plan(0, self._command(name, len(share)), environment, pinned)
        child = Child(plan, output, selector)
        self._running[name] = child, output, share
        self._listener.started(name)
        if self.stopped_by:  # It came in the meantime.
            child.popen.terminate()

    def _collect(self) -> list[set[int]]:
        """Takes out those that have ended; returns their cores."""
        free = []
        for name, (child, output, share) in list(self._running.items()):
            status = child.popen.poll()
            if status is None:
                continue
            child.kill()  # what it has left running
            child.drain()
            child.close()
            del self._running[name]
            free.append(share)
            problem = None
            if status and self.stopped_by:
                problem = "stopped"
            elif status:
                problem = _problem(status, output.last_error)
            self._listener.ended(name, problem)
        return free

    def _tell(self, watchdog: Watchdog) -> None:
        watchdog.watch([c.popen.pid for c, _, _ in self._running.values()])

    def _kill(self) -> None:
        for child, _, _ in list(self._running.values()):
            child.kill()

    @contextlib.contextmanager
    def _signals(self) -> Iterator[None]:
        """Takes the signals to stop."""
        before = {}
        for number in STOP_SIGNALS:
            # What is ignored (nohup) stays so.
            if signal.getsignal(number) != signal.SIG_IGN:
                before[number] = signal.signal(number, self._on_signal)
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _mind_the_stop(self) -> None:
        # Not the signal handler's business, which must not print.
        if self.stopped_by and not self._told_of_stop:
            self._told_of_stop = True
            self._listener.stopping()
        if time.monotonic() >= self._deadline:
            self._kill()

    def _on_signal(self, number: int, frame: object) -> None:
        if self.stopped_by:
            self._kill()
            return
        self.stopped_by = number
        self._deadline = time.monotonic() + _SECONDS_TO_SAVE
        for child, _, _ in list(self._running.values()):
            child.popen.terminate()


class _Output:
    """What a process prints, for `Child`: goes to a file, made at need."""

    has_bar = True
    is_one = False

    def __init__(
        self, path: Path, move: Callable[[Mapping[str, Any]], None]
    ) -> None:
        self.last_error = ""
        self._path = path
        self._move = move

    def show(
        self, prefix: str, lines: Sequence[str], error: bool = False
    ) -> None:
        """Keeps the lines; `prefix` tells processes apart, as files do."""
        if not lines:
            return
        if error:
            said = [line.strip() for line in lines if line.strip()]
            self.last_error = said[-1] if said else self.last_error
        # A run doesn't depend on its log.
        with contextlib.suppress(OSError):
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with self._path.open("a", encoding="utf-8") as file:
                file.writelines(f"{line}\n" for line in lines)

    def move_bar(self, reports: Sequence[str]) -> None:
        """Passes the last report on."""
        with contextlib.suppress(IndexError, ValueError):
            self._move(json.loads(reports[-1]))


def _problem(status: int, last_error: str) -> str:
    """Says in a line why a process ended as it did."""
    if status > 0:
        return last_error or f"it ended with code {status}"
    text = f"it was ended by signal {-status}"
    if status == -signal.SIGKILL:
        text += (
            ", as the system does when memory runs out: fewer side by side "
            "(--jobs) need less"
        )
    return text
