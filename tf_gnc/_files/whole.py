"""Files that are whole or not there, and files with a row of JSON in each line.

On a disk a file has another name until it is whole: what a kill leaves of it
begins with `UNFINISHED`. In a bucket nothing can be seen of it until then.
"""

import json
import math
import os
import tempfile
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from tf_gnc._files.bucket import BucketPath
from tf_gnc._files.paths import AnyPath, is_bucket

UNFINISHED = ".unfinished-"


def write(path: AnyPath, content: bytes | str | Callable[[Path], Any]) -> None:
    """Writes a file, whole or not at all; replaces one there is.

    A function writes the content at the local path that it is given, which
    ends as `path` does: some writers go by that.
    """
    if is_bucket(path):
        _write_object(path, content)
        return
    draft = path.with_name(f"{UNFINISHED}{path.name}")
    try:
        if callable(content):
            content(draft)
        else:
            text = isinstance(content, str)
            draft.write_bytes(content.encode() if text else content)
        os.replace(draft, path)
    finally:
        draft.unlink(missing_ok=True)


def _write_object(
    path: BucketPath, content: bytes | str | Callable[[Path], Any]
) -> None:
    if callable(content):
        with tempfile.TemporaryDirectory(prefix="tf-gnc-") as folder:
            local = Path(folder, path.name)
            content(local)
            path.upload(local)
    else:
        text = isinstance(content, str)
        path.write_bytes(content.encode() if text else content)


def write_json(path: AnyPath, content: Any) -> None:
    """Writes a JSON file, whole or not at all.

    Raises:
        ValueError: If `content` holds a number that isn't finite.
    """
    write(path, json.dumps(content, indent=2, allow_nan=False) + "\n")


def read_json(path: AnyPath) -> Any:
    """Returns what a JSON file says, None if it isn't there.

    Raises:
        ValueError: If it can't be read.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise ValueError(
            f"The file {path} can't be read: {error}. Move it out of the way, "
            "or choose another directory."
        ) from None


def write_rows(path: AnyPath, rows: Iterable[Mapping[str, Any]]) -> None:
    """Writes a file with a row in each line, whole or not at all."""
    write(path, lines_of(rows))


def lines_of(rows: Iterable[Mapping[str, Any]]) -> str:
    """Returns what a file of these rows holds."""
    return "".join(map(_line, rows))


def append_row(path: AnyPath, row: Mapping[str, Any]) -> None:
    """Adds a line to a file of rows and hands it to the system at once.

    If the disk fills up halfway, the half line is taken back. An object in a
    bucket can only be written anew, with all that it had.
    """
    unsent = _line(row).encode()
    if is_bucket(path):
        before = path.read_bytes() if path.exists() else b""
        path.write_bytes(before + unsent)
        return
    with path.open("ab", buffering=0) as file:
        whole = file.tell()
        try:
            while unsent:
                unsent = unsent[file.write(unsent) :]
        except OSError:
            file.truncate(whole)
            raise


def read_rows(path: AnyPath, key: str) -> list[dict[str, Any]]:
    """Returns the rows of a file of JSON lines; none if it isn't there.

    Half a line at its end is being written.

    Raises:
        ValueError: If a row has no whole number under `key`.
    """
    if not path.exists():
        return []
    rows = []
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    for number, line in enumerate(lines, start=1):
        if not line.endswith("\n"):
            break
        try:
            row = json.loads(line)
            int(row[key])
        except (ValueError, KeyError, TypeError):
            raise ValueError(
                f"Line {number} of {path} must be a row of JSON with "
                f"{key!r}, got {line[:60].rstrip()!r}. Move the file out of "
                "the way."
            ) from None
        rows.append(row)
    return rows


def finite_or_none(value: Any) -> float | None:
    """Returns `value` as a float, or None if it isn't finite."""
    value = float(value)
    return value if math.isfinite(value) else None


def _line(row: Mapping[str, Any]) -> str:
    return json.dumps(row, allow_nan=False) + "\n"
