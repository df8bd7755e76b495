"""A run in one library: what was sent, what is still to be sent, outages."""

import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

from tf_gnc import _files
from tf_gnc.experiments.loggers.logger import Logger, Point

# From the last try to the next of a library that could not be written to.
_FIRST_PAUSE, _LONGEST_PAUSE = 15.0, 600.0


class Record:
    """A run in one library. No method raises what the library does.

    What can't be written is kept for the next time, and a line says so once in
    an outage.

    Args:
        name: The library's.
        logger: Writes.
        kept: What the last process has kept of the record, or None.
        keep: Takes what the next one is to be given.
    """

    def __init__(
        self,
        name: str,
        logger: Logger,
        kept: Mapping[str, Any] | None,
        keep: Callable[[str, Mapping[str, Any]], None],
    ) -> None:
        self.name, self._logger, self._keep = name, logger, keep
        self._kept = dict(kept or {"id": None, "step": 0})
        self._is_open = self._is_out = False
        self._next_try, self._pause = 0.0, _FIRST_PAUSE
        self.unsent: list[list] = []
        """Points as lists, so that a backup can hold them."""

    def send(self, at_once: bool = False) -> None:
        """Writes what is still to be written.

        All points of a step must be there. A step that has been written, by
        this process or one before, is not written again.
        """
        if not at_once and time.monotonic() < self._next_try:
            return
        last = self._kept["step"]
        points = [Point(*p) for p in self.unsent if p[0] > last]
        if self._attempt(self._write, points):
            self.unsent.clear()

    def finish(
        self, summary: Mapping[str, Any], curves: _files.AnyPath
    ) -> None:
        """Writes what the run has come to."""
        self.send(at_once=True)
        if self._is_open and not self.unsent:
            self._attempt(self._finish, summary, curves)

    def close(self, outcome: str) -> None:
        """Ends the record; says what could not be written to the end."""
        if self.unsent or not self._is_open:
            self.send()  # Not twice in an outage; a backup has them too.
        if self.unsent:
            _say(f"{self.name}: {len(self.unsent)} points were not logged.")
        if self._is_open:
            self._attempt(self._logger.close, outcome)

    def _write(self, points: list[Point]) -> None:
        if not self._is_open:
            self._kept["id"] = self._logger.open(self._kept["id"])
            self._is_open = True
            self._keep(self.name, self._kept)
        if points:
            self._logger.write(points)
            self._kept["step"] = points[-1].step
            self._keep(self.name, self._kept)

    def _finish(
        self, summary: Mapping[str, Any], curves: _files.AnyPath
    ) -> None:
        with _files.local_file(curves) as local:
            self._logger.finish(summary, local)

    def _attempt(self, act: Callable[..., None], *args: Any) -> bool:
        try:
            act(*args)
        except Exception as error:  # Training doesn't depend on it.
            if not self._is_out:
                line = " ".join(str(error).split())[:200]
                _say(
                    f"{self.name} can't be written to now "
                    f"({line or type(error).__name__}); the run goes on, and "
                    "its numbers are kept for the next time."
                )
            self._is_out = True
            self._next_try = time.monotonic() + self._pause
            self._pause = min(2 * self._pause, _LONGEST_PAUSE)
            return False
        self._is_out, self._pause = False, _FIRST_PAUSE
        return True


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
