"""What torchrun is to PyTorch, for TF_CONFIG: starts and restarts a cluster.

How the command goes on where it was ended is for its own backup.
"""

import contextlib
import json
import os
import shutil
import signal
import sys
import time
from collections.abc import Collection, Sequence

from tf_gnc import _check
from tf_gnc.launch import addresses
from tf_gnc.launch.child import ProcessSpec
from tf_gnc.launch.group import Ending, run_together
from tf_gnc.launch.output import Screen
from tf_gnc.launch.processes import STOP_SIGNALS, Processes

# What a command with a wrong flag ends with. It won't do better when it is
# started again.
_USAGE_EXIT_CODE = 2

# On several machines the others' processes notice that one is gone only after
# some seconds. A new process must not meet them before.
_SECONDS_BETWEEN_CLUSTERS = 15.0

# What is passed on to the processes.
_SIGNALS = (*STOP_SIGNALS, signal.SIGUSR1, signal.SIGUSR2)

# -P, as for an installed script: nothing is imported from the current
# directory.
_TF_GNC = (sys.executable, "-P", "-m", "tf_gnc.cli.main")


def child_command(
    words: Sequence[str], subcommands: Collection[str] = ()
) -> list[str]:
    """Returns the command line of a process.

    `words` are what the user wrote: one of the `subcommands` of tf-gnc, a
    Python script, `-m` and a module, or any other program; then its arguments.

    Example:
        >>> child_command(["-m", "timeit", "0"])[1:]
        ['-m', 'timeit', '0']
    """
    if not words:
        raise ValueError(
            "there must be a command to run, got none. Write, for instance, "
            "`tf-gnc launch --processes=2 -- train --method=gnc`."
        )
    first = words[0]
    if first in subcommands:
        return [*_TF_GNC, *words]
    is_module = first == "-m" and len(words) > 1
    if is_module or (first.endswith(".py") and os.path.isfile(first)):
        return [sys.executable, *words]
    program = shutil.which(first)
    if program is None:
        legal = ", ".join(subcommands)
        raise ValueError(
            "the command must begin with "
            + (f"one of tf-gnc's ({legal}), " if legal else "")
            + "an existing script that ends in .py, -m and a module, or a "
            f"program that can be run, got {first!r}. Correct it; arguments "
            "come after it."
        )
    return [program, *words[1:]]


class Launcher:
    """Runs a command in several processes that find each other.

    Each process gets TF_CONFIG, unless it is the only one; TF_GNC_PROCESS,
    its number in the cluster; TF_GNC_RESTART, how often the group has been
    restarted; TF_GNC_LAUNCHED, when the launcher began, if it is the only one;
    and its share of the cores. If one dies, all of this machine's
    are ended and started again.

    Args:
        command: From `child_command`.
        processes: How many to start on this machine.
        machines: `host:port` of all machines, the same list on each; see
            `addresses.machine_addresses`. None if there is only this one.
        machine_rank: This machine's index in `machines`.
        max_restarts: How often to restart a group in which a process died.
            Those that ended with `addresses.RESTART_EXIT_CODE` don't count.

    Example:
        >>> Launcher([sys.executable, "-c", ""], processes=2).run()
        0
    """

    def __init__(
        self,
        command: Sequence[str],
        processes: int = 1,
        machines: Sequence[str] | None = None,
        machine_rank: int | None = None,
        max_restarts: int = 3,
    ) -> None:
        _refuse_tf_config()
        self._command = list(command)
        self._processes = _check.integer("processes", processes, minimum=1)
        self._max_restarts = _check.integer(
            "max_restarts", max_restarts, minimum=0
        )
        if (machines is None) != (machine_rank is None):
            raise ValueError(
                "`machines` and `machine_rank` must be given together, got "
                f"machines={machines} and machine_rank={machine_rank}. "
                "Start the launcher on each machine with the same list and "
                "the machine's number in it, from 0."
            )
        self._addresses: list[str] | None = None
        self._began = time.strftime("%Y%m%d-%H%M%S")
        self._first_index = 0
        if machines is not None:
            self._addresses = addresses.machine_addresses(machines, processes)
            rank = _check.integer(
                "machine_rank",
                machine_rank,
                minimum=0,
                maximum=len(machines) - 1,
            )
            self._first_index = rank * processes

    def run(self) -> int:
        """Runs the processes to their end; call it from the main thread.

        Returns:
            0 if all ended with 0, else the exit code of the process that was
            the first not to; 128 + n for signal n. If this process was told
            to stop by signal n: `addresses.RESTART_EXIT_CODE` if a process
            ended with that, else 128 + n.
        """
        restarts = failures = 0
        failed: list[Ending] = []
        with Screen() as screen, Processes(_SIGNALS) as processes:
            while processes.stopped_by is None:
                specs = self.specs(restarts)
                endings = run_together(specs, processes, screen)
                failed = [ending for ending in endings if ending.status]
                if not failed:
                    return 0
                if processes.stopped_by is not None:
                    break
                code = failed[0].code
                if code == _USAGE_EXIT_CODE:
                    return code
                if code != addresses.RESTART_EXIT_CODE:
                    if failures == self._max_restarts:
                        screen.say(
                            f"gives up after {restarts + 1} attempts: "
                            f"{failed[0]}"
                        )
                        return code
                    failures += 1
                restarts += 1
                screen.say(
                    f"restarts the processes; failures so far: {failures}, "
                    f"max_restarts={self._max_restarts}"
                )
                if self._addresses is not None:
                    _wait_for_other_machines(processes)
        if any(e.code == addresses.RESTART_EXIT_CODE for e in failed):
            return addresses.RESTART_EXIT_CODE
        return 128 + processes.stopped_by

    @property
    def num_processes(self) -> int:
        """How many processes the cluster has, on all machines."""
        return len(self._addresses or range(self._processes))

    def specs(self, restarts: int = 0) -> list[ProcessSpec]:
        """Returns what to start on this machine after so many restarts."""
        hosts = self._addresses
        if hosts is None and self._processes > 1:
            ports = addresses.free_ports(self._processes)
            hosts = [f"127.0.0.1:{port}" for port in ports]
        shares: list[set[int] | None] = [None] * self._processes
        if self._processes > 1 and hasattr(os, "sched_getaffinity"):
            cores = os.sched_getaffinity(0)
            shares = list(addresses.split_cores(cores, self._processes))
        specs = []
        for index, share in enumerate(shares, start=self._first_index):
            environment = {
                **os.environ,
                "PYTHONUNBUFFERED": "1",
                "TF_GNC_PROCESS": str(index),
                "TF_GNC_RESTART": str(restarts),
            }
            if self._addresses is None:  # Another machine's would differ.
                environment["TF_GNC_LAUNCHED"] = self._began
            if hosts is not None:
                environment["TF_CONFIG"] = addresses.tf_config(hosts, index)
            specs.append(ProcessSpec(index, self._command, environment, share))
        return specs


def _wait_for_other_machines(processes: Processes) -> None:
    end = time.monotonic() + _SECONDS_BETWEEN_CLUSTERS
    while time.monotonic() < end and processes.stopped_by is None:
        time.sleep(0.1)


def _refuse_tf_config() -> None:
    """Raises if somebody else has set up a cluster."""
    text = os.environ.get("TF_CONFIG", "").strip()
    with contextlib.suppress(ValueError):
        if not text or json.loads(text) == {}:
            return
    raise ValueError(
        f"TF_CONFIG must not be set, got TF_CONFIG={text}. A cluster manager "
        "that sets it starts the processes too: run the command without the "
        "launcher there. Otherwise unset it."
    )
