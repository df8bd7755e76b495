"""What of a run on a Ray cluster happens on its node.

A task starts the run in a process and watches it, as is done on one machine. So
a run that fails, which is said, differs from a node that is lost.

Imports neither Ray nor TensorFlow.
"""

import contextlib
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from tf_gnc import _files
from tf_gnc.launch.pool import Pool


class Mailbox:
    """An actor that keeps what runs report until it is asked for."""

    def __init__(self) -> None:
        self._reports: list[tuple[str, Mapping | None]] = []

    def put(self, name: str, report: Mapping | None) -> None:
        """Keeps how far a run is; None says that it has been started."""
        self._reports.append((name, report))

    def take(self) -> list[tuple[str, Mapping | None]]:
        """Returns what has come since the last time."""
        taken, self._reports = self._reports, []
        return taken


class NodeStops(Exception):
    """The node, and not who has asked for the run, wants it to end."""


class _Reporter:
    """Is told of a node's only run, and tells the mailbox."""

    problem: str | None = None

    def __init__(self, mailbox: Any) -> None:
        self._mailbox = mailbox

    def started(self, name: str) -> None:
        """Passes it on, and waits for no answer, as below."""
        self._mailbox.put.remote(name, None)

    def moved(self, name: str, report: Mapping[str, Any]) -> None:
        """Passes it on."""
        self._mailbox.put.remote(name, report)

    def ended(self, name: str, problem: str | None) -> None:
        """Keeps it as what the task returns."""
        self.problem = problem

    def stopping(self) -> None:
        """Needs no telling."""


def run_one(
    name: str,
    words: Sequence[str],
    about: str,
    logs: str,
    directory: str,
    mailbox: Any,
) -> str | None:
    """Runs a process on a node; returns its problem, if it has one."""
    for variable in ("TF_CONFIG", "SLURM_PROCID"):
        os.environ.pop(variable, None)  # The run trains alone.
    with contextlib.suppress(OSError):  # Paths may be relative to it.
        os.chdir(directory)
    if not _files.as_path(about).exists():
        return (
            f"`out_dir` must be on a disk that all nodes share, or in a "
            f"bucket, got a node ({os.uname().nodename}) without {about}"
        )
    command = [sys.executable, *words[1:]]  # This node's Python.
    reporter = _Reporter(mailbox)
    with _files.local_draft(_files.as_path(logs)) as log_dir:
        cores = sorted(os.sched_getaffinity(0))
        pool = Pool(lambda *_: command, 1, cores, log_dir, reporter)
        pool.run([name])
    # To cancel a task is to interrupt it.
    if pool.stopped_by not in (None, signal.SIGINT):
        raise NodeStops(f"{os.uname().nodename} was told to stop")
    return reporter.problem
