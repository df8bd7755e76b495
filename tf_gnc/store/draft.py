"""A draft: a backup while it is being written, by several processes.

Until the store renames its folder, nothing reads from it, and a process that
dies leaves no more than a folder to remove. In a bucket, where nothing can be
renamed, nothing reads from a folder without a manifest, which is written last.
"""

import contextlib
import errno
import json
import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from tf_gnc import _check, _files
from tf_gnc._files import AnyPath
from tf_gnc.store import array_file, disk
from tf_gnc.store.generation import FORMAT, MANIFEST, Generation, file_path

Publish = Callable[[], tuple[Generation, list[str]]]


class Draft:
    """A backup that is being written; `Store` makes it.

    Use it in this order, with a barrier between processes wherever the next
    line is for others: the chief's `Store.begin`; in every process
    `Store.open_draft`, `write` as often as needed, `finish`; the chief's
    `seal`.

    Whenever the system refuses to write, such as for a full disk, the draft is
    removed, which makes room, and an OSError says so; in a bucket the next one
    that is sealed removes it. Older backups are never touched. A process that
    can't see the draft raises a FileNotFoundError.

    The draft's folder exists. Names of `known_damaged` backups are passed on;
    `publish` makes a complete draft the newest generation.
    """

    def __init__(
        self,
        path: AnyPath,
        step: int,
        known_damaged: set[str],
        publish: Publish,
    ) -> None:
        self.path, self.step = path, step
        self._known_damaged = known_damaged
        self._publish = publish
        self._files: dict[str, Any] = {}
        self._finished = False

    def write(self, name: str, arrays: Mapping[str, np.ndarray]) -> None:
        """Writes arrays to a file of their own, and waits for the disk.

        No two processes may use the same name for a file, and no array may
        change during the call.

        Raises:
            ValueError: If a name can't be used, or is used already.
            TypeError: If an array's dtype can't be written as plain bytes.
        """
        pattern = r"[A-Za-z0-9][A-Za-z0-9._-]*"
        if not isinstance(name, str) or not re.fullmatch(pattern, name):
            raise ValueError(
                "`name` must consist of letters, digits, '-', '_' and '.', "
                f"and not begin with a sign, got name={name!r}."
            )
        if self._finished:
            raise ValueError(
                "`write` must come before `finish`, got "
                f"name={name!r} after it."
            )
        arrays = {key: np.asarray(value) for key, value in arrays.items()}
        table = array_file.table_of(arrays)
        path = file_path(self.path, name)
        num_bytes = sum(array.nbytes for array in arrays.values())
        with self._removed_if_not_writable(path, num_bytes):
            try:
                entry = disk.write_file(
                    path, lambda: array_file.chunks_of(arrays, table)
                )
            except FileExistsError:
                raise ValueError(
                    "`name` must be used once in a backup, by one process, "
                    f"got name={name!r}, which is there: {path}."
                ) from None
        self._files[name] = {**entry, "arrays": table}

    def finish(self, process_index: int) -> None:
        """Marks this process's part as complete.

        Every process must call it, even if it has written nothing.

        Raises:
            ValueError: If that process has finished already.
        """
        _check.integer("process_index", process_index, minimum=0)
        path = self._part(process_index)
        with self._removed_if_not_writable(path):
            try:
                disk.write_json(path, {"files": self._files})
            except FileExistsError:
                raise ValueError(
                    "`process_index` must be another one in each process, got "
                    f"process_index={process_index}, which has finished."
                ) from None
            disk.sync_folder(self.path)
        self._finished = True

    def seal(
        self, num_processes: int, contents: Mapping[str, Any]
    ) -> tuple[Generation, list[str]]:
        """Makes the draft the newest backup, and removes those beyond `keep`.

        For the chief only, when all processes have finished. The contents are
        whatever a reader must know, as JSON has it, without infinity and NaN.

        Returns:
            The generation, and a sentence for each old backup that could not
            be removed; the next `seal` tries again.

        Raises:
            ValueError: If `contents` can't be written as JSON.
            RuntimeError: If a process has not finished, or what it has
                written is not there.
        """
        _check.integer("num_processes", num_processes, minimum=1)
        contents = _as_json(contents)
        with self._removed_if_not_writable(self.path / MANIFEST):
            manifest = {
                "format": FORMAT,
                "step": self.step,
                "contents": contents,
                "files": self._collect(num_processes),
                "damaged": sorted(self._known_damaged),
            }
            disk.write_json(self.path / MANIFEST, manifest)
            for index in range(num_processes):
                self._part(index).unlink()
            disk.sync_folder(self.path)
            return self._publish()

    def _part(self, process_index: int) -> AnyPath:
        return self.path / f"part-{process_index}.json"

    def _collect(self, num_processes: int) -> dict[str, Any]:
        """All processes' files, each of which is there in its full size."""
        if not self.path.is_dir():
            raise draft_not_seen(self.path)
        there = {path.name for path in self.path.glob("part-*.json")}
        needed = {self._part(i).name for i in range(num_processes)}
        if there != needed:
            raise RuntimeError(
                f"The backup of step {self.step} must have the parts of "
                f"{num_processes} processes, got missing="
                f"{sorted(needed - there)}, unexpected="
                f"{sorted(there - needed)} in {self.path}. Every process must "
                "call `finish` before the chief calls `seal`, with a barrier "
                "in between, and all need the same shared directory."
            )
        files: dict[str, Any] = {}
        for index in range(num_processes):
            files |= disk.read_json(self._part(index))["files"]
        for name, entry in files.items():
            disk.check_file(file_path(self.path, name), entry, deep=False)
        return files

    @contextlib.contextmanager
    def _removed_if_not_writable(
        self, path: AnyPath, num_bytes: int = 0
    ) -> Iterator[None]:
        """Removes the draft if it can't be written."""
        try:
            yield
        except OSError as error:
            lost = isinstance(error, FileNotFoundError)
            if lost and not self.path.is_dir():
                raise draft_not_seen(self.path) from error
            # In a bucket it takes no room, and must not lose its mark first.
            if not _files.is_bucket(self.path):
                shutil.rmtree(self.path, ignore_errors=True)
            raise refusal(error, path, num_bytes) from error


def is_part(name: str) -> bool:
    """Tells whether a file says what a process has written of a draft."""
    return re.fullmatch(r"part-[0-9]+\.json", name) is not None


def draft_not_seen(path: AnyPath) -> FileNotFoundError:
    """Returns the error for a draft that should be there."""
    return FileNotFoundError(
        errno.ENOENT,
        "The backup that the chief has begun must be seen by every process, "
        "and this process finds no such folder. All processes need the same "
        "directory on a file system that they share, such as NFS or Lustre. "
        "If they have that, another process has given up and removed it; see "
        "what that one says",
        str(path),
    )


def refusal(error: OSError, path: AnyPath, num_bytes: int = 0) -> OSError:
    """Returns an error of the same kind that says what to do about it."""
    text = f"The backup can't be written: {error.strerror or error}. "
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        existing = path.absolute()
        while not existing.exists():
            existing = existing.parent
        free = shutil.disk_usage(existing).free
        text += (
            f"{path.name} needs {num_bytes / 2**20:.1f} MiB, got "
            f"{free / 2**20:.1f} MiB free on the disk after what there was of "
            "this backup has been removed. Make room, or choose another "
            "directory. "
        )
    text += "Older backups are as they were"
    kind = OSError
    if isinstance(error, _files.UnreachableError):
        kind = _files.UnreachableError
    return kind(error.errno, text, str(error.filename or path))


def _as_json(contents: Mapping[str, Any]) -> Any:
    """`contents` as it will be read: tuples, say, as lists."""
    try:
        text = json.dumps(dict(contents), allow_nan=False)
    except (TypeError, ValueError) as error:
        raise ValueError(
            "`contents` must be a mapping that JSON can hold, of texts, finite "
            f"numbers, True, False, None, lists and dicts: {error}."
        ) from error
    return json.loads(text)
