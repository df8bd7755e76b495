"""Writes files through to the disk, and JSON with a checksum.

Each file is written once, to a name that is new, with its checksum computed
on the way, and is on the disk, or in the bucket, when the call returns.
"""

import contextlib
import errno
import functools
import hashlib
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from tf_gnc import _files
from tf_gnc._files import AnyPath

# Small enough to stay in the cache between the checksum and the write.
CHUNK_BYTES = 2**22


class DamagedError(RuntimeError):
    """A file of a backup is damaged. The message names it."""


def sync_folder(folder: AnyPath) -> None:
    """Waits until a folder's names, not only its files, are on the disk."""
    if _files.is_bucket(folder):
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        # Some file systems write names at once and know no such request.
        if error.errno not in (errno.EINVAL, errno.EBADF):
            raise
    finally:
        os.close(descriptor)


def make_folder(folder: AnyPath) -> None:
    """Makes a folder and its missing parents, through to the disk."""
    if not _files.is_bucket(folder) and not folder.is_dir():
        make_folder(folder.parent)
        folder.mkdir(exist_ok=True)
        sync_folder(folder.parent)


def write_file(
    path: AnyPath, make_chunks: Callable[[], Iterable[Any]]
) -> dict[str, Any]:
    """Writes a new file and returns its size and checksum.

    `make_chunks` is called anew if a bucket has to be written to again.

    Raises:
        FileExistsError: If there is a file at `path`.
    """
    entry: dict[str, Any] = {}

    def chunks() -> Iterator[Any]:
        checksum, size = hashlib.sha256(), 0
        for chunk in make_chunks():
            checksum.update(chunk)
            yield chunk
            size += len(chunk)
        entry.update(size=size, sha256=checksum.hexdigest())

    if _files.is_bucket(path):
        if path.exists():
            raise FileExistsError(errno.EEXIST, "It is there", str(path))
        path.write_chunks(chunks)
        return entry
    with open(path, "xb") as file:
        for chunk in chunks():
            file.write(chunk)
        file.flush()
        os.fsync(file.fileno())
    return entry


def check_file(path: AnyPath, entry: Mapping[str, Any], deep: bool) -> None:
    """Raises a DamagedError unless a file is as `write_file` has left it.

    The entry is what that returned. If it is to be `deep`, the file is read
    and checksums are compared, not only sizes.
    """
    with naming(path), contextlib.ExitStack() as stack:
        if _files.is_bucket(path):
            size, digest = path.size(), functools.partial(_digest, path)
        else:
            file = stack.enter_context(open(path, "rb"))
            size = os.fstat(file.fileno()).st_size
            digest = functools.partial(hashlib.file_digest, file, "sha256")
        if size != entry["size"]:
            raise DamagedError(
                f"{path}: it has {size} bytes, not the {entry['size']} that "
                "were written."
            )
        if deep and digest().hexdigest() != entry["sha256"]:
            raise DamagedError(
                f"{path}: its checksum is not the one in the manifest."
            )


def _digest(path: _files.BucketPath) -> Any:
    checksum = hashlib.sha256()
    for chunk in path.chunks():
        checksum.update(chunk)
    return checksum


def write_json(path: AnyPath, body: Mapping[str, Any]) -> None:
    """Writes a new JSON file whose first line is the checksum of the rest."""
    text = json.dumps(body, indent=1, allow_nan=False)
    data = _with_checksum(text.removeprefix("{").encode())
    write_file(path, lambda: [data])


def read_json(path: AnyPath) -> dict[str, Any]:
    """Returns what `write_json` has written, if every byte of it is as it was.

    Raises:
        DamagedError: If it isn't.
    """
    with naming(path):
        data = path.read_bytes()
    # The rest starts after the checksum's line, which has a fixed length.
    if data != _with_checksum(data[len(_with_checksum(b"")) :]):
        raise DamagedError(
            f"{path}: its checksum is not the one in its first line."
        )
    return json.loads(data)


@contextlib.contextmanager
def naming(path: AnyPath) -> Iterator[None]:
    """Turns the system's errors into a `DamagedError` that names the file.

    Of a bucket that can't be reached nothing is known.
    """
    try:
        yield
    except _files.UnreachableError:
        raise
    except FileNotFoundError:
        raise DamagedError(f"{path}: it is missing.") from None
    except OSError as error:
        raise DamagedError(
            f"{path}: it cannot be read ({error.strerror or error})."
        ) from error


def _with_checksum(rest: bytes) -> bytes:
    return (
        b'{"sha256": "%s",' % hashlib.sha256(rest).hexdigest().encode() + rest
    )
