"""Runs commands in processes of their own, a few of them side by side."""

import contextlib
import dataclasses
import json
import os
import signal
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from tf_gnc.launch.addresses import split_cores
from tf_gnc.launch.child import Child, ProcessSpec
from tf_gnc.launch.processes import SECONDS_TO_SAVE, Processes


class Listener(Protocol):
    """Is told what goes on."""

    def started(self, name: str) -> None:
        """A process has been started; again, if its machine was lost."""

    def moved(self, name: str, report: Mapping[str, Any]) -> None:
        """It has said how far it is; see `launch.output.PROGRESS_FD`."""

    def ended(self, name: str, problem: str | None) -> None:
        """It has ended; `problem` says why, unless all is well."""

    def stopping(self) -> None:
        """This process was told to stop and waits for the others to end."""


@dataclasses.dataclass
class Pool:
    """Runs one process for each name."""

    # Returns a command line, from a name and the number of cores that it gets.
    command: Callable[[str, int], Sequence[str]]
    jobs: int  # How many run at a time; they share the cores.
    cores: Sequence[int]
    log_dir: Path  # Gets what a process prints, in a file named after it.
    listener: Listener
    stopped_by: int | None = None  # The signal that told this one to stop.

    def run(self, names: Sequence[str]) -> None:
        """Runs all, started in this order; call it from the main thread.

        A signal to stop is passed on as SIGTERM, at which a run saves where
        it is; a SIGINT after that kills the processes.
        """
        waiting, free = list(names), split_cores(self.cores, self.jobs)
        running: dict[Child, tuple[str, _Output, set[int]]] = {}
        with Processes(stop_signal=signal.SIGTERM) as processes:
            while processes or (waiting and not processes.stopped_by):
                while waiting and free and not processes.stopped_by:
                    name, share = waiting.pop(0), free.pop(0)
                    output = _Output(name, self.log_dir, self.listener)
                    spec = self._spec(name, share)
                    child = processes.start(spec, output)
                    running[child] = name, output, share
                    self.listener.started(name)
                ended = processes.wait()
                if processes.stopped_by and not self.stopped_by:
                    self.stopped_by = processes.stopped_by
                    processes.kill_after(SECONDS_TO_SAVE)
                    self.listener.stopping()
                for child, status in ended:
                    name, output, share = running.pop(child)
                    free.append(share)
                    problem = _problem(status, output.last_error)
                    if status and self.stopped_by:
                        problem = "stopped"
                    self.listener.ended(name, problem)

    def _spec(self, name: str, share: set[int]) -> ProcessSpec:
        environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
        environment.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
        pinned = share if hasattr(os, "sched_setaffinity") else None
        # Index 0 is the one that reports how far it is.
        words = self.command(name, len(share))
        return ProcessSpec(0, words, environment, pinned)


class _Output:
    """What a process prints, for `Child`: goes to a file, made at need."""

    has_bar = True
    is_one = False

    def __init__(self, name: str, log_dir: Path, listener: Listener) -> None:
        self.last_error = ""
        self._name, self._listener = name, listener
        self._path = log_dir / f"{name}.log"

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
            self._listener.moved(self._name, json.loads(reports[-1]))


def _problem(status: int, last_error: str) -> str | None:
    """Says in a line why a process ended as it did, unless all is well."""
    if status == 0:
        return None
    if status > 0:
        return last_error or f"it ended with code {status}"
    text = f"it was ended by signal {-status}"
    if status == -signal.SIGKILL:
        text += (
            ", as the system does when memory runs out. Fewer runs side by "
            "side (--jobs) need less memory"
        )
    return text
