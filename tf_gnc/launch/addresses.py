"""The addresses of a cluster, its TF_CONFIG, and each process's cores."""

import contextlib
import json
import random
import socket
from collections.abc import Iterable, Sequence

# "Restart me": how a process ends that has saved its state because it was
# told to go. It is the system's EX_TEMPFAIL, "try again later".
RESTART_EXIT_CODE = 75

_LAST_PORT = 65535

# Below what the system gives to outgoing connections (from 32768 on Linux).
# One that the processes open to each other could otherwise take the port of a
# process that is still starting.
_FREE_PORTS = range(10_000, 32_768)


def tf_config(addresses: Sequence[str], index: int) -> str:
    """Returns the TF_CONFIG of one process.

    `addresses` has the `host:port` of all, in the same order for each.

    Example:
        >>> tf_config(["127.0.0.1:1234"], 0)  # doctest: +NORMALIZE_WHITESPACE
        '{"cluster": {"worker": ["127.0.0.1:1234"]},
          "task": {"type": "worker", "index": 0}}'
    """
    if not 0 <= index < len(addresses):
        raise ValueError(
            "`index` must be that of one of the addresses, got "
            f"index={index} with {len(addresses)} addresses. Count from 0."
        )
    return json.dumps(
        {
            "cluster": {"worker": list(addresses)},
            "task": {"type": "worker", "index": index},
        }
    )


def free_ports(count: int) -> list[int]:
    """Returns ports of this machine that nobody listens on, all different."""
    # The sockets stay open until all ports are chosen. The user's own random
    # numbers are left alone.
    candidates = random.SystemRandom().sample(_FREE_PORTS, len(_FREE_PORTS))
    ports: list[int] = []
    with contextlib.ExitStack() as stack:
        for port in candidates:
            held = stack.enter_context(socket.socket())
            with contextlib.suppress(OSError):
                held.bind(("", port))
                ports.append(port)
            if len(ports) == count:
                return ports
    raise OSError(
        f"no {count} free ports between {_FREE_PORTS.start} and "
        f"{_FREE_PORTS.stop} on this machine"
    )


def machine_addresses(machines: Sequence[str], processes: int) -> list[str]:
    """Returns the addresses of the processes, so many on each `host:port`.

    A machine's first process listens on that port, each other one on the port
    after.

    Example:
        >>> machine_addresses(["a:1000", "b:1000"], processes=2)
        ['a:1000', 'a:1001', 'b:1000', 'b:1001']
    """
    addresses: dict[str, str] = {}  # and whose they are
    for machine in machines:
        host, port = _split_address(machine)
        last = port + processes - 1
        if last > _LAST_PORT:
            raise ValueError(
                f"ports must be at most {_LAST_PORT}, got {machine!r} with "
                f"{processes} processes, the last on port {last}. Choose a "
                "lower one."
            )
        for address in (f"{host}:{p}" for p in range(port, last + 1)):
            if address in addresses:
                raise ValueError(
                    "each process must have an address of its own, got "
                    f"{address} in both {addresses[address]!r} and "
                    f"{machine!r} with {processes} processes on each "
                    "machine. Name each machine once, or move the ports of "
                    f"one host {processes} apart."
                )
            addresses[address] = machine
    return list(addresses)


def split_cores(cores: Iterable[int], processes: int) -> list[set[int]]:
    """Returns each process' cores: equal shares, so that none is waited for.

    If the number of cores isn't a multiple of the number of processes,
    neighbours share a core.

    Example:
        >>> split_cores([0, 1, 2, 3], 2)
        [{0, 1}, {2, 3}]
        >>> split_cores([0, 1, 2], 2)
        [{0, 1}, {1, 2}]
    """
    ordered = sorted(cores)
    count = len(ordered)
    return [
        # From the rounded down beginning to the rounded up end.
        set(ordered[i * count // processes : -(-(i + 1) * count // processes)])
        for i in range(processes)
    ]


def _split_address(machine: str) -> tuple[str, int]:
    host, _, port = machine.rpartition(":")
    if not host or not port.isascii() or not port.isdigit() or not int(port):
        raise ValueError(
            "each machine must be host:port with a port from 1 to "
            f"{_LAST_PORT}, got {machine!r}. Write, for instance, "
            "--machines=10.0.0.1:1234,10.0.0.2:1234."
        )
    return host, int(port)
