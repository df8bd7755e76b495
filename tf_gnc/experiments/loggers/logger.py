"""What a library that keeps runs has to do."""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from tf_gnc import _files


@dataclasses.dataclass(frozen=True)
class LoggedRun:
    """What is known of a run before it trains.

    Attributes:
        name: That of its directory.
        group: That of the directory of many runs, if it is one of them.
        about: The content of config.json.
        tensorboard: The folder for TensorBoard's files.
    """

    name: str
    group: str | None
    about: Mapping[str, Any]
    tensorboard: _files.AnyPath


@dataclasses.dataclass(frozen=True)
class Point:
    """A run's numbers after a step, counted from 1 over the whole run.

    `seconds` are those since 1970.
    """

    step: int
    seconds: float
    numbers: Mapping[str, float]


class Logger:
    """A run in one library.

    Whatever a method raises is said in a line, and it is called again later
    with the same and more. `open` comes first; after `close` nothing.
    """

    package: str | None = None
    """What it imports, which the extra with the logger's name brings."""

    def __init__(self, run: LoggedRun) -> None:
        self.run = run

    def open(self, kept: str | None) -> str:
        """Begins a record, or goes on in the one that is `kept`.

        Returns what a later process is to be given for `kept`.
        """
        raise NotImplementedError

    def write(self, points: Sequence[Point]) -> None:
        """Writes down numbers, in the order of their steps, none twice."""
        raise NotImplementedError

    def finish(self, summary: Mapping[str, Any], curves: Path) -> None:
        """Writes what a run has come to: summary.json's content, curves.png."""
        raise NotImplementedError

    def close(self, outcome: str) -> None:
        """Ends the record: "finished", "failed", or "killed" to go on later."""
        raise NotImplementedError


def flat(content: Mapping[str, Any], start: str = "") -> Iterator[tuple]:
    """Yields the values of nested mappings, names joined by dots.

    Example:
        >>> dict(flat({"seed": 1, "methods": {"gnc": {"alpha": 0.1}}}))
        {'seed': 1, 'methods.gnc.alpha': 0.1}
    """
    for name, value in content.items():
        if isinstance(value, Mapping):
            yield from flat(value, f"{start}{name}.")
        else:
            yield f"{start}{name}", value


def numbers_of(content: Mapping[str, Any], start: str = "") -> dict[str, float]:
    """Returns the numbers among values, with `start` before their names."""
    return {
        f"{start}{name}": float(value)
        for name, value in content.items()
        if isinstance(value, int | float) and not isinstance(value, bool)
    }
