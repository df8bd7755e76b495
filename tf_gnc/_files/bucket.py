"""Paths in a bucket: `gs://`, `s3://`, and `memory://` for tests.

A bucket has no folders, no renaming, no appending and no locks. An object is
written whole, by one request, or not at all, and whoever reads or lists after
that sees it.
"""

import contextlib
import errno
import fnmatch
import functools
import importlib
import logging
import os
import posixpath
import types
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from tf_gnc._files.retry import patiently

# What a scheme needs, and the extra that brings it.
_NEEDS = {"gs": ("gcsfs", "gcs"), "s3": ("s3fs", "s3"), "memory": None}

# S3 takes no more than 10,000 parts of an object: these make 640 GB.
_PART_BYTES = 2**26

# As much is read by one request.
READ_BYTES = 2**24


class MissingExtraError(ImportError):
    """What an extra brings isn't installed; the message says how to."""


def import_extra(module: str, extra: str, what: str) -> types.ModuleType:
    """Imports the package that `what` needs.

    Raises:
        MissingExtraError: If it isn't installed.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise MissingExtraError(
            f"{what} needs the package {module}, which can't be imported "
            f"({error}). Install it: pip install 'tf-gnc[{extra}]'"
        ) from error


class BucketPath:
    """The address of an object, or of all objects that it is the start of.

    Has the part of `pathlib.Path` that this package uses, so that code which
    is given a path need not know where that leads. `str` and `os.fspath` give
    the address. Every call that meets a bucket which can't be reached is
    repeated; see retry.py.

    Raises:
        ValueError: If the address has no bucket, or is of another kind.
        MissingExtraError: If the file system's package isn't installed.
    """

    def __init__(self, address: str | os.PathLike) -> None:
        scheme, _, rest = os.fspath(address).partition("://")
        parts = [part for part in rest.split("/") if part]
        if scheme not in _NEEDS or not parts:
            raise ValueError(
                "An address must be gs://bucket/name or s3://bucket/name, got "
                f"{os.fspath(address)!r}. Choose such a one, or a local "
                "directory."
            )
        self.parts = (f"{scheme}://{parts[0]}", *parts[1:])
        self._key = "/".join(parts)
        self._system = _file_system(scheme)

    def __fspath__(self) -> str:
        return "/".join(self.parts)

    __str__ = __fspath__

    def __repr__(self) -> str:
        return f"BucketPath({str(self)!r})"

    def __truediv__(self, name: str | os.PathLike) -> "BucketPath":
        return BucketPath(f"{self}/{os.fspath(name)}")

    def __eq__(self, other: Any) -> bool:
        return isinstance(other, BucketPath) and self.parts == other.parts

    def __lt__(self, other: "BucketPath") -> bool:
        return self.parts < other.parts

    def __hash__(self) -> int:
        return hash(self.parts)

    @property
    def name(self) -> str:
        """The part after the last slash."""
        return self.parts[-1]

    @property
    def parent(self) -> "BucketPath":
        """The address without that part; a bucket is its own."""
        return BucketPath("/".join(self.parts[:-1] or self.parts))

    def with_name(self, name: str) -> "BucketPath":
        """Returns the address beside this one that has another name."""
        return self.parent / name

    def resolve(self) -> "BucketPath":
        """Returns itself."""
        return self

    def mkdir(self, parents: bool = False, exist_ok: bool = False) -> None:
        """Does nothing: what is written needs no folder."""

    def is_symlink(self) -> bool:
        """Returns False."""
        return False

    def exists(self) -> bool:
        """Tells whether there is such an object, or one below it."""
        return self._kind() is not None

    def is_dir(self) -> bool:
        """Tells whether there is an object below it."""
        return self._kind() == "directory"

    def is_file(self) -> bool:
        """Tells whether there is such an object."""
        return self._kind() == "file"

    def size(self) -> int:
        """Returns how many bytes an object has."""
        return self._call("info")["size"]

    def iterdir(self) -> Iterator["BucketPath"]:
        """Yields what is one slash below it; nothing if nothing is there."""
        try:
            keys = self._call("ls", detail=False)
        except FileNotFoundError:
            return
        for key in keys:
            name = posixpath.basename(key.rstrip("/"))
            # Some list a folder, or an object, in itself.
            if key.strip("/") != self._key:
                yield self / name

    def glob(self, pattern: str) -> Iterator["BucketPath"]:
        """Yields what matches, as `pathlib` has it, `**` apart."""
        first, _, rest = pattern.partition("/")
        for path in self.iterdir():
            if fnmatch.fnmatchcase(path.name, first):
                if not rest:
                    yield path
                else:
                    yield from path.glob(rest)

    def read_bytes(self) -> bytes:
        """Returns an object's content."""
        return self._call("cat_file")

    def read_text(self, encoding: str = "utf-8") -> str:
        """Returns an object's content as text."""
        return self.read_bytes().decode(encoding)

    def read_range(self, start: int, stop: int) -> bytes:
        """Returns a part of an object; less if it ends before."""
        stop = min(stop, self.size())
        if stop <= start:
            return b""
        return self._call("cat_file", start=start, end=stop)

    def chunks(self) -> Iterator[bytes]:
        """Yields an object's content in pieces."""
        for start in range(0, self.size(), READ_BYTES):
            yield self.read_range(start, start + READ_BYTES)

    def write_bytes(self, content: bytes) -> None:
        """Writes an object, in place of one there is."""
        with self._naming_the_bucket():
            self._call("pipe_file", content)

    def write_chunks(self, chunks: Callable[[], Iterable[Any]]) -> None:
        """Writes a large object; `chunks` is called anew for each attempt."""

        def upload() -> None:
            file = self._system.open(self._key, "wb", block_size=_PART_BYTES)
            try:
                for chunk in chunks():
                    file.write(chunk)
                file.close()
            except BaseException:
                # It would write what it has when it is let go.
                with contextlib.suppress(Exception):
                    file.discard()
                with contextlib.suppress(AttributeError):
                    file.closed = True
                raise

        with self._naming_the_bucket():
            patiently(self, upload)

    def upload(self, local: Path) -> None:
        """Writes an object with the content of a local file."""

        def chunks() -> Iterator[bytes]:
            with local.open("rb") as file:
                while chunk := file.read(READ_BYTES):
                    yield chunk

        self.write_chunks(chunks)

    def download(self, local: Path) -> None:
        """Writes a local file with an object's content."""
        with local.open("wb") as file:
            file.writelines(self.chunks())

    def unlink(self, missing_ok: bool = False) -> None:
        """Removes an object."""
        try:
            self._call("rm_file")
        except FileNotFoundError:
            if not missing_ok:
                raise

    def rename(self, other: "BucketPath") -> None:
        """Copies an object and removes it: a kill may leave both."""
        other.write_bytes(self.read_bytes())
        self.unlink()

    def remove_tree(self) -> None:
        """Removes all objects below it."""
        for path in list(self.iterdir()):
            if path.is_dir():
                path.remove_tree()
            else:
                path.unlink(missing_ok=True)

    def _kind(self) -> str | None:
        # The file system's own `exists` takes an unreachable bucket for an
        # empty one.
        try:
            return self._call("info")["type"]
        except FileNotFoundError:
            return None

    def _call(self, method: str, *args: Any, **kwargs: Any) -> Any:
        def call() -> Any:
            # Others may have written since.
            self._system.invalidate_cache()
            return getattr(self._system, method)(self._key, *args, **kwargs)

        return patiently(self, call)

    @contextlib.contextmanager
    def _naming_the_bucket(self) -> Iterator[None]:
        try:
            yield
        except FileNotFoundError as error:
            raise FileNotFoundError(
                errno.ENOENT,
                f"There must be a bucket {self.parts[0]} to write to, got "
                "none. Make it first, or choose another",
                str(self),
            ) from error


@functools.cache
def _file_system(scheme: str) -> Any:
    import fsspec

    if needed := _NEEDS[scheme]:
        module, extra = needed
        import_extra(module, extra, f"{scheme}://")
        # Its errors come to us; it would print their tracebacks as well.
        logging.getLogger(module).setLevel(logging.CRITICAL)
    return fsspec.filesystem(scheme, use_listings_cache=False)
