"""Many runs as tasks of a Ray cluster, which decides what runs where.

If a node is lost, Ray starts its tasks again elsewhere, and their runs go on
from their backups. Imports Ray late, since it is an extra.
"""

import contextlib
import os
import signal
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from tf_gnc import _files
from tf_gnc.cli.runs import ray_node
from tf_gnc.launch.pool import Listener
from tf_gnc.launch.processes import SECONDS_TO_SAVE, STOP_SIGNALS, taking

# How long to wait for runs to end before looking what they report.
_TICK = 0.2

# What a task needs to come to its end, after its run has saved.
_SECONDS_TO_RETURN = 15.0

# The least that Ray takes; nothing of size goes through its store.
_STORE_BYTES = 80 * 2**20


class Cluster:
    """The cluster that RAY_ADDRESS names, or one of this machine's cores.

    Connects when it is first asked, until the end of the `with`. A run has one
    GPU, if there are any, or else `threads` CPUs, by default 1.

    Raises:
        MissingExtraError: If Ray isn't installed.
        OSError: If there is no such cluster, once it is asked.
    """

    def __init__(
        self,
        num_cores: int,
        threads: int | None,
        jobs: int | None,
        verbose: bool = False,
    ) -> None:
        if not verbose:
            # It would print all that befalls its nodes, over our bars.
            os.environ.setdefault("RAY_DEDUP_LOGS_SKIP_REGEX", ".")
        self._ray = _files.import_extra("--on=ray", "ray", "ray")
        self._num_cores, self._threads, self._jobs = num_cores, threads, jobs

    def __enter__(self) -> "Cluster":
        """Does nothing yet."""
        self._ours = contextlib.ExitStack()
        return self

    def __exit__(self, *_: object) -> None:
        """Leaves the cluster; ends it if it was started here."""
        self._ours.close()

    def describe(self) -> str:
        """Returns what each run has of the cluster."""
        share, nodes = self._share(), self._nodes()
        kind = "GPU" if share["num_gpus"] else "CPU"
        count = share["num_gpus"] or share["num_cpus"]
        total = sum(node.get(kind, 0) for node in nodes)
        return (
            f"each with {count} of {total:.0f} {kind}s on {len(nodes)} Ray "
            f"node{'s' * (len(nodes) != 1)}"
        )

    def run(
        self,
        command: Callable[[str, int], Sequence[str]],
        names: Sequence[str],
        about: _files.AnyPath,
        logs: _files.AnyPath,
        listener: Listener,
    ) -> int | None:
        """Runs a process for each name; returns the signal that stopped it.

        `command` returns a command line, from a name and a number of cores;
        `about` is a file that every node must find, `logs` the folder for what
        processes print. Call it from the main thread.
        """
        if not names:
            return None
        share = self._share()
        here = self._ray.get_runtime_context().get_node_id()
        near = self._ray.util.scheduling_strategies
        mailbox = self._ray.remote(ray_node.Mailbox).options(
            num_cpus=0,
            # Where this process is, it can't be lost before it.
            scheduling_strategy=near.NodeAffinitySchedulingStrategy(
                here, soft=False
            ),
        )
        task = self._ray.remote(
            max_calls=1,  # Each in a process of its own.
            max_retries=-1,  # Nodes are lost as often as they are.
            retry_exceptions=[ray_node.NodeStops],
            **share,
        )(ray_node.run_one)
        where = os.fspath(about), os.fspath(logs), os.getcwd()
        tasks = _Tasks(self._ray, mailbox.remote(), listener)
        return tasks.run(
            names,
            lambda name: task.remote(
                name, command(name, share["num_cpus"]), *where, tasks.mailbox
            ),
            self._jobs or len(names),
        )

    def _share(self) -> dict[str, int]:
        """Returns what a run has for itself."""
        nodes = self._nodes()
        with_gpu = [node for node in nodes if node.get("GPU")]
        usual = [node.get("CPU", 0) // node["GPU"] for node in with_gpu] or [1]
        most = [node.get("CPU", 0) for node in with_gpu or nodes]
        cpus = min(self._threads or min(usual), max(most, default=1))
        return {"num_cpus": max(1, int(cpus)), "num_gpus": int(bool(with_gpu))}

    def _nodes(self) -> list[Mapping[str, float]]:
        """Returns what each node has."""
        self._connect()
        return [n["Resources"] for n in self._ray.nodes() if n["Alive"]]

    def _connect(self) -> None:
        if self._ray.is_initialized():
            return
        address, options = os.environ.get("RAY_ADDRESS"), {}
        if not address:
            os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
            address = "local"
            options = {
                "num_cpus": self._num_cores,
                "include_dashboard": False,
                "object_store_memory": _STORE_BYTES,
            }
        # It sets a handler of its own.
        handler = signal.getsignal(signal.SIGTERM)
        self._ours.callback(signal.signal, signal.SIGTERM, handler)
        try:
            host, _, port = address.removeprefix("ray://").rpartition(":")
            if port.isdigit():  # Ray itself would try for many minutes.
                socket.create_connection((host, int(port)), 10).close()
            self._ray.init(
                address, log_to_driver=False, logging_level="ERROR", **options
            )
        except (self._ray.exceptions.RayError, RuntimeError, OSError) as error:
            raise OSError(
                "RAY_ADDRESS must be that of a Ray cluster that runs, or "
                f"empty for one on this machine, got {address!r} ({error})"
            ) from error
        self._ours.callback(self._ray.shutdown)


class _Tasks:
    """The tasks that run or wait to: told of, and told to stop."""

    def __init__(self, ray: Any, mailbox: Any, listener: Listener) -> None:
        self.mailbox = mailbox
        self._ray, self._listener = ray, listener
        self._tasks: dict[Any, str] = {}
        self._started: set[str] = set()
        self._stopped_by: int | None = None
        self._deadline = float("inf")

    def run(
        self, names: Sequence[str], start: Callable[[str], Any], jobs: int
    ) -> int | None:
        """Runs all, at most so many at a time; see `Cluster.run`."""
        waiting, is_told = list(names), False
        with taking(STOP_SIGNALS, self._on_signal):
            while self._tasks or (waiting and not self._stopped_by):
                while waiting and len(self._tasks) < jobs:
                    name = waiting.pop(0)
                    self._tasks[start(name)] = name
                ended, _ = self._ray.wait([*self._tasks], timeout=_TICK)
                if self._stopped_by and not is_told:
                    is_told = True
                    waiting.clear()
                    self._cancel(force=False)
                    self._listener.stopping()
                    patience = SECONDS_TO_SAVE + _SECONDS_TO_RETURN
                    self._deadline = time.monotonic() + patience
                if time.monotonic() >= self._deadline:
                    self._deadline = float("inf")
                    self._cancel(force=True)
                self._pass_on()
                for task in ended:
                    self._end(self._tasks.pop(task), self._problem(task))
        return self._stopped_by

    def _on_signal(self, number: int, frame: object) -> None:
        if self._stopped_by is None:
            self._stopped_by = number
        elif number == signal.SIGINT:  # The second one kills.
            self._deadline = 0.0

    def _cancel(self, force: bool) -> None:
        for task in self._tasks:
            self._ray.cancel(task, force=force)

    def _pass_on(self) -> None:
        """Passes on what runs have reported."""
        reports = []
        with contextlib.suppress(self._ray.exceptions.RayError):
            reports = self._ray.get(self.mailbox.take.remote())
        for name, report in reports:
            if name not in self._tasks.values():
                continue
            if report is None or name not in self._started:
                self._started.add(name)
                self._listener.started(name)
            if report is not None:
                self._listener.moved(name, report)

    def _end(self, name: str, problem: str | None) -> None:
        if name not in self._started:
            if self._stopped_by:  # It hasn't come to anything.
                return
            self._listener.started(name)
        self._listener.ended(name, problem)

    def _problem(self, task: Any) -> str | None:
        """Says in a line why a task ended as it did, unless all is well."""
        try:
            return self._ray.get(task)
        except self._ray.exceptions.RayError as error:
            if self._stopped_by:
                return "stopped"
            lines = [line.strip() for line in str(error).splitlines()]
            return next(filter(None, reversed(lines)), type(error).__name__)
