"""The file `probe.jsonl`: a line of JSON for each measurement of a run."""

import os
import sys
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

from tf_gnc import _files

# An object can only be written anew, with all that it has: not for every row.
SECONDS_BETWEEN_UPLOADS = 5.0


def send(
    path: _files.AnyPath, unsent: Sequence[Mapping[str, Any]]
) -> list[Mapping[str, Any]]:
    """Adds rows to an object, and returns those that it couldn't be given.

    Those that a run had sent before it was taken up again are there already.
    """
    try:
        there = _files.read_rows(path, "step")
        new = [row for row in unsent if row not in there]
        _files.write_rows(path, [*there, *new])
    except OSError as error:
        print(
            f"{path} can't be written now ({error.strerror}); its rows are "
            "kept for the next time.",
            file=sys.stderr,
            flush=True,
        )
        return list(unsent)
    return []


def rows_file(directory: str | os.PathLike) -> _files.AnyPath:
    """Returns the path of the rows in a directory, which is made if need be."""
    directory = _files.as_path(directory)
    if directory.exists() and not directory.is_dir():
        raise NotADirectoryError(
            "`directory` must be a directory, got "
            f"directory='{directory}', which is a file. Choose another."
        )
    directory.mkdir(parents=True, exist_ok=True)
    return directory / "probe.jsonl"


def take_up(path: _files.AnyPath, step: int, same_run: bool) -> None:
    """Prepares the file for the rows of later steps.

    A run that goes on writes its rows after `step`, the steps taken so far,
    anew: those there are cut off. Those of another run are kept in a file
    beside.
    """
    if not path.exists():
        return
    rows = _files.read_rows(path, "step")
    kept = [row for row in rows if row["step"] <= step]
    if same_run or len(kept) == len(rows):
        # Also cuts off half a line that a kill has left at the end.
        _files.write_rows(path, kept)
        return
    count = 1
    while (beside := path.with_name(f"probe-{count}.jsonl")).exists():
        count += 1
    path.rename(beside)
    warnings.warn(
        f"{path} holds another run's rows of steps after {step}; it is now "
        f"called {beside.name}.",
        stacklevel=3,
    )
