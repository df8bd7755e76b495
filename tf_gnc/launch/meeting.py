"""Processes of a cluster look whether all of them are there.

TensorFlow waits for the others inside its runtime, for an hour and in silence.
"""

import contextlib
import socket
import time
from collections.abc import Sequence

_PAUSE = 0.2  # seconds
_PATIENCE = 5.0  # seconds for an answer


def silent_addresses(
    addresses: Sequence[str], own: str, seconds: float
) -> list[str]:
    """Returns the addresses at which nobody has answered in so many seconds.

    Listens at its `own` in the meantime, so that the others find an answer
    there, and returns as soon as all have answered. Call it in all processes,
    before TensorFlow takes the ports.

    Args:
        addresses: `host:port` of all processes.
        own: This process's.
        seconds: How long to wait for the others.

    Raises:
        OSError: If the own port can't be listened at.

    Example:
        >>> silent_addresses(["127.0.0.1:0"], "127.0.0.1:0", seconds=1.0)
        []
    """
    left = [address for address in addresses if address != own]
    end = time.monotonic() + seconds
    with contextlib.closing(_listen(own)):
        while True:
            left = [address for address in left if not _answers(address)]
            if not left or time.monotonic() > end:
                return left
            time.sleep(_PAUSE)


def _listen(own: str) -> socket.socket:
    port = int(own.rpartition(":")[2])
    try:
        return socket.create_server(("", port), backlog=1024)
    except OSError as error:
        raise OSError(
            f"this process can't listen at its port, got {own}: "
            f"{error.strerror}. End the program that has the port, or give "
            "the process another in the list of addresses"
        ) from error


def _answers(address: str) -> bool:
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host, int(port)), _PATIENCE).close()
    except OSError:
        return False
    return True
