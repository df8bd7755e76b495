"""What is done with a path wherever it leads, to a disk or into a bucket."""

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tf_gnc._files.bucket import READ_BYTES, BucketPath

AnyPath = Path | BucketPath
"""What `as_path` returns."""


class Reader:
    """Reads an object from place to place, by few requests.

    Whoever reads on where it stopped is mostly given what has come already.
    """

    def __init__(self, path: BucketPath) -> None:
        self.path = path
        self._start, self._data = 0, b""

    def read(self, start: int, size: int) -> memoryview:
        """Returns so many bytes from `start` on; less if the object ends."""
        end = self._start + len(self._data)
        if not self._start <= start <= start + size <= end:
            stop = start + max(size, READ_BYTES)
            self._start, self._data = start, self.path.read_range(start, stop)
        first = start - self._start
        return memoryview(self._data)[first : first + size]


def as_path(name: str | os.PathLike) -> AnyPath:
    """Returns where a name leads: a local path, or an address in a bucket.

    Raises as `BucketPath`.

    Example:
        >>> as_path("runs") / "one", as_path("memory://bucket/runs/") / "one"
        (PosixPath('runs/one'), BucketPath('memory://bucket/runs/one'))
    """
    if isinstance(name, BucketPath):
        return name
    text = os.fspath(name)
    return BucketPath(text) if "://" in text else Path(text).expanduser()


def is_bucket(path: Any) -> bool:
    """Tells whether a path, as `as_path` returns it, is in a bucket."""
    return isinstance(path, BucketPath)


def remove_tree(path: AnyPath, ignore_errors: bool = False) -> None:
    """Removes a folder and all that is in it."""
    if not is_bucket(path):
        shutil.rmtree(path, ignore_errors)
        return
    with contextlib.suppress(*[OSError] if ignore_errors else []):
        path.remove_tree()


@contextlib.contextmanager
def local_draft(path: AnyPath) -> Iterator[Path]:
    """Yields a local path to write a file, or a folder of them, bit by bit.

    What is there in the end goes to a bucket, also after an error.
    """
    if not is_bucket(path):
        yield path
        return
    with tempfile.TemporaryDirectory(prefix="tf-gnc-") as folder:
        draft = Path(folder, path.name)
        try:
            yield draft
        finally:
            if draft.is_dir():
                for file in sorted(draft.iterdir()):
                    (path / file.name).upload(file)
            elif draft.exists():
                path.upload(draft)


@contextlib.contextmanager
def local_file(path: AnyPath) -> Iterator[Path]:
    """Yields a local path to read a file from."""
    if not is_bucket(path):
        yield path
        return
    with tempfile.TemporaryDirectory(prefix="tf-gnc-") as folder:
        copy = Path(folder, path.name)
        path.download(copy)
        yield copy
