"""Who writes to a directory in a bucket.

A bucket has no locks, and a process that died can't give one back. So whoever
comes last owns the directory, and one that owned it before finds out before it
writes again.
"""

import os
import socket
import time
import uuid

from tf_gnc._files.bucket import BucketPath
from tf_gnc._files.whole import read_json, write_json

OWNER = "owner.json"
"""The object's name, in the directory."""


class TakenError(OSError):
    """Another process has begun to write to the same directory."""


class Owner:
    """The object that says who writes to a directory."""

    def __init__(self, directory: BucketPath) -> None:
        self._path = directory / OWNER
        self._us = {
            "id": uuid.uuid4().hex,
            "host": socket.gethostname(),
            "process": os.getpid(),
            "since": time.strftime("%Y-%m-%d %H:%M:%S %z"),
        }

    def take(self) -> None:
        """Takes the directory, whoever had it before.

        Raises:
            TakenError: If another one takes it at the same moment.
        """
        write_json(self._path, self._us)
        self.check()

    def check(self) -> None:
        """Raises a TakenError if somebody else has come."""
        now = read_json(self._path)
        if now != self._us:
            who = "nobody"
            if now is not None:
                who = f"process {now['process']} on {now['host']}"
            raise TakenError(
                f"{self._path.parent} must have one that writes to it, got "
                f"{who} since then. This one stops. Choose another directory, "
                "or start one alone."
            )

    def give_back(self) -> None:
        """Removes the object, unless it is somebody else's by now."""
        if read_json(self._path) == self._us:
            self._path.unlink()
