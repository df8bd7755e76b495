"""The file `probe.jsonl`: a line of JSON for each measurement of a run."""

import os
import warnings
from pathlib import Path

from tf_gnc import _files


def rows_file(directory: str | os.PathLike) -> Path:
    """Returns the path of the rows in a directory, which is made if need be."""
    directory = Path(directory).expanduser()
    if directory.exists() and not directory.is_dir():
        raise NotADirectoryError(
            "`directory` must be a directory, got "
            f"directory='{directory}', which is a file. Choose another."
        )
    directory.mkdir(parents=True, exist_ok=True)
    return directory / "probe.jsonl"


def take_up(path: Path, step: int, same_run: bool) -> None:
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
