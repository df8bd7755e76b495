"""Calls that are made again while a bucket can't be reached."""

import contextlib
import errno
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

_Found = TypeVar("_Found")

PATIENCE_SECONDS = 180.0
"""How long a bucket may be away before a call gives up."""

_FIRST_PAUSE, _LONGEST_PAUSE = 1.0, 30.0

# To ask once more makes no difference.
_FINAL = (
    FileExistsError,
    FileNotFoundError,
    IsADirectoryError,
    NotADirectoryError,
    PermissionError,
    AttributeError,
    TypeError,
)
# Answers by HTTP below 500 that mean "later".
_LATER = (408, 429)


class UnreachableError(OSError):
    """A bucket could not be reached for as long as one had patience."""


class _State:
    """For all buckets of this process."""

    seconds = None  # None for `PATIENCE_SECONDS`.
    said = False  # Of an outage that isn't over.


@contextlib.contextmanager
def patience(seconds: float) -> Iterator[None]:
    """Has calls give up after so many seconds, in this block."""
    before, _State.seconds = _State.seconds, seconds
    try:
        yield
    finally:
        _State.seconds = before


def patiently(address: Any, call: Callable[[], _Found]) -> _Found:
    """Returns what `call` does, which is repeated with growing pauses.

    One line says so, however many calls an outage meets.

    Raises:
        UnreachableError: If patience came to its end.
        PermissionError: If the bucket refuses.
        OSError: Any other of the call's own that is final, such as a
            FileNotFoundError.
    """
    began, pause = time.monotonic(), _FIRST_PAUSE
    most = PATIENCE_SECONDS if _State.seconds is None else _State.seconds
    while True:
        try:
            found = call()
        except _FINAL:
            _State.said = False
            raise
        except Exception as error:
            if _refuses(error):
                raise PermissionError(
                    errno.EACCES,
                    f"The bucket refuses ({_line(error)}). Check the "
                    "credentials, and what they allow",
                    str(address),
                ) from error
            left = began + most - time.monotonic()
            if left <= 0:
                raise UnreachableError(
                    errno.EHOSTUNREACH,
                    f"The bucket can't be reached ({_line(error)})",
                    str(address),
                ) from error
            _say(address, error, most)
            time.sleep(min(pause, left))
            pause = min(2 * pause, _LONGEST_PAUSE)
        else:
            _State.said = False
            return found


def _refuses(error: Exception) -> bool:
    """Tells whether the answer would be the same the next time."""
    kind, code = type(error).__name__, getattr(error, "code", None)
    if isinstance(code, str) and code.isdecimal():
        code = int(code)
    if isinstance(code, int):
        return 400 <= code < 500 and code not in _LATER
    return (
        "Credentials" in kind
        or isinstance(error, ValueError)
        or str(error).startswith("Forbidden")
    )


def _say(address: Any, error: Exception, most: float) -> None:
    if not _State.said:
        _State.said = True
        print(
            f"{address} can't be reached ({_line(error)}); it is tried again "
            f"for up to {most:.0f} s.",
            file=sys.stderr,
            flush=True,
        )


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__
