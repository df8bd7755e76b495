"""Writes files through to the disk, and JSON with a checksum.

Each file is written once, to a name that is new, with its checksum computed
on the way, and is on the disk when the call returns.
"""

import contextlib
import errno
import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

# Small enough to stay in the cache between the checksum and the write.
CHUNK_BYTES = 2**22


class DamagedError(RuntimeError):
    """A file of a backup is damaged. The message names it."""


def sync_folder(folder: Path) -> None:
    """Waits until a folder's names, not only its files, are on the disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        # Some file systems write names at once and know no such request.
        if error.errno not in (errno.EINVAL, errno.EBADF):
            raise
    finally:
        os.close(descriptor)


def make_folder(folder: Path) -> None:
    """Makes a folder and its missing parents, through to the disk."""
    if not folder.is_dir():
        make_folder(folder.parent)
        folder.mkdir(exist_ok=True)
        sync_folder(folder.parent)


def write_file(path: Path, chunks: Iterable[Any]) -> dict[str, Any]:
    """Writes a new file and returns its size and checksum.

    Raises:
        FileExistsError: If there is a file at `path`.
    """
    checksum, size = hashlib.sha256(), 0
    with open(path, "xb") as file:
        for chunk in chunks:
            checksum.update(chunk)
            file.write(chunk)
            size += len(chunk)
        file.flush()
        os.fsync(file.fileno())
    return {"size": size, "sha256": checksum.hexdigest()}


def check_file(path: Path, entry: Mapping[str, Any], deep: bool) -> None:
    """Raises a DamagedError unless a file is as `write_file` has left it.

    The entry is what that returned. If it is to be `deep`, the file is read
    and checksums are compared, not only sizes.
    """
    with naming(path), open(path, "rb") as file:
        size = os.fstat(file.fileno()).st_size
        if size != entry["size"]:
            raise DamagedError(
                f"{path}: it has {size} bytes, not the {entry['size']} that "
                "were written."
            )
        if not deep:
            return
        if hashlib.file_digest(file, "sha256").hexdigest() != entry["sha256"]:
            raise DamagedError(
                f"{path}: its checksum is not the one in the manifest."
            )


def write_json(path: Path, body: Mapping[str, Any]) -> None:
    """Writes a new JSON file whose first line is the checksum of the rest."""
    text = json.dumps(body, indent=1, allow_nan=False)
    write_file(path, [_with_checksum(text.removeprefix("{").encode())])


def read_json(path: Path) -> dict[str, Any]:
    """Returns what `write_json` has written, if every byte of it is as it was.

    Raises:
        DamagedError: If it isn't.
    """
    with naming(path), open(path, "rb") as file:
        data = file.read()
    # The rest starts after the checksum's line, which has a fixed length.
    if data != _with_checksum(data[len(_with_checksum(b"")) :]):
        raise DamagedError(
            f"{path}: its checksum is not the one in its first line."
        )
    return json.loads(data)


@contextlib.contextmanager
def naming(path: Path) -> Iterator[None]:
    """Turns the system's errors into a `DamagedError` that names the file."""
    try:
        yield
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
