"""What torchrun is to PyTorch, for TF_CONFIG: starts and restarts a cluster.

Knows what to start, with what environment, and when to start it again. Knows
neither TensorFlow nor how the command goes on where it was ended: that is
for the command's own backup.
"""

import contextlib
import json
import os
import shutil
import signal
import sys
import time
from collections.abc import Collection, Iterator, Sequence

from tf_gnc import _check
from tf_gnc.launch import addresses
from tf_gnc.launch.child import Plan, Watchdog
from tf_gnc.launch.group import STOP_SIGNALS, Group
from tf_gnc.launch.output import Screen

# What a command ends with that can't be carried out. It won't do better when
# it is started again.
_USAGE_EXIT_CODE = 2

# On several machines the others' processes notice that one is gone only after
# some seconds. A new process must not meet them before.
_SECONDS_BETWEEN_CLUSTERS = 15.0

# Under this name tf_gnc leaves it to the command line to import TensorFlow.
# -P, as for an installed script: the current directory is no place to import
# from.
_TF_GNC = (
    sys.executable,
    "-P",
    "-c",
    "import sys; sys.argv[0] = 'tf-gnc'; from tf_gnc.cli.main import main; "
    "sys.exit(main())",
)


def child_command(
    words: Sequence[str], subcommands: Collection[str] = ()
) -> list[str]:
    """Returns the command line of a process.

    Args:
        words: What the user wrote: a subcommand of tf-gnc, a Python script,
            `-m` and a module, or any other program; then its arguments.
        subcommands: The subcommands that there are.

    Raises:
        ValueError: If the first word is none of these.

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
    if first == "-m" and len(words) > 1:
        return [sys.executable, *words]
    if first.endswith(".py") and os.path.isfile(first):
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
        command: The words of the command line; see `child_command`.
        processes: How many to start on this machine.
        machines: `host:port` of all machines, the same list on each; see
            `cluster.machine_addresses`. None if there is only this one.
        machine_rank: This machine's place in `machines`.
        max_restarts: How often to restart a group in which a process died.
            Those that ended with `cluster.RESTART_EXIT_CODE` don't count.

    Raises:
        ValueError: If an argument is illegal, or TF_CONFIG is set already.

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
        """Starts nothing yet; see the class."""
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
                "the machine's place in it, from 0."
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
        self._group: Group | None = None
        self._stopped_by: int | None = None

    def run(self) -> int:
        """Runs the processes to their end; call it from the main thread.

        Returns:
            0 if all ended with 0, else the exit code of the process that was
            the first not to; 128 + n for signal n. If this process was told
            to stop by signal n: `cluster.RESTART_EXIT_CODE` if a process
            ended with that, else 128 + n.

        Raises:
            OSError: If a process can't be started or the output not written.
        """
        restarts = failures = 0
        with Screen() as screen, Watchdog() as watchdog, self._signals():
            while True:
                with Group(self._plans(restarts), screen, watchdog) as group:
                    self._run(group)
                if group.first is None:
                    return 0
                if self._stopped_by is not None:
                    return self._code_after_stop(group)
                code = group.first.code
                if code == _USAGE_EXIT_CODE:
                    return code
                if code != addresses.RESTART_EXIT_CODE:
                    if failures == self._max_restarts:
                        screen.say(
                            f"gives up after {restarts + 1} attempts: "
                            f"{group.first}"
                        )
                        return code
                    failures += 1
                restarts += 1
                screen.say(
                    f"restarts the processes; failures so far: {failures}, "
                    f"max_restarts={self._max_restarts}"
                )
                self._wait_for_other_machines()
                if self._stopped_by is not None:
                    return self._code_after_stop(group)

    def _run(self, group: Group) -> None:
        self._group = group
        group.start()
        if self._stopped_by is not None:
            # It came while they were being started.
            group.forward(self._stopped_by)
        group.watch()

    def _plans(self, restarts: int) -> list[Plan]:
        """Returns what to start."""
        addresses = self._addresses
        if addresses is None and self._processes > 1:
            ports = addresses.free_ports(self._processes)
            addresses = [f"127.0.0.1:{port}" for port in ports]
        shares: list[set[int] | None] = [None] * self._processes
        if self._processes > 1 and hasattr(os, "sched_getaffinity"):
            cores = os.sched_getaffinity(0)
            shares = list(addresses.split_cores(cores, self._processes))
        plans = []
        for index, share in enumerate(shares, start=self._first_index):
            environment = {
                **os.environ,
                "PYTHONUNBUFFERED": "1",
                "TF_GNC_PROCESS": str(index),
                "TF_GNC_RESTART": str(restarts),
            }
            if self._addresses is None:  # Another machine's would differ.
                environment["TF_GNC_LAUNCHED"] = self._began
            if addresses is not None:
                environment["TF_CONFIG"] = addresses.tf_config(addresses, index)
            plans.append(Plan(index, self._command, environment, share))
        return plans

    @contextlib.contextmanager
    def _signals(self) -> Iterator[None]:
        """Takes the signals that are for the processes."""
        before = {}
        for number in (*STOP_SIGNALS, signal.SIGUSR1, signal.SIGUSR2):
            # What is ignored (nohup) stays so, here and in the processes.
            if signal.getsignal(number) != signal.SIG_IGN:
                before[number] = signal.signal(number, self._on_signal)
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _on_signal(self, number: int, frame: object) -> None:
        if self._stopped_by is None and number in STOP_SIGNALS:
            self._stopped_by = number
        if self._group is not None:
            self._group.forward(number)

    def _code_after_stop(self, group: Group) -> int:
        if addresses.RESTART_EXIT_CODE in group.codes:
            return addresses.RESTART_EXIT_CODE
        return 128 + self._stopped_by

    def _wait_for_other_machines(self) -> None:
        if self._addresses is None:
            return
        end = time.monotonic() + _SECONDS_BETWEEN_CLUSTERS
        while time.monotonic() < end and self._stopped_by is None:
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
