"""A generation: a finished backup on the disk.

It is a folder, `step-000000001234` or, if that step was saved again,
`step-000000001234.2`. Which one to trust is up to the store.
"""

import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from tf_gnc import _files
from tf_gnc._files import AnyPath
from tf_gnc.store import array_file, disk

MANIFEST = "manifest.json"
# Raise this when files are laid out in another way.
FORMAT = 1


def generation_name(step: int, serial: int = 1) -> str:
    """Returns the name of a folder; `serial` counts savings of a step from 1.

    Example:
        >>> generation_name(1234), generation_name(1234, 2)
        ('step-000000001234', 'step-000000001234.2')
    """
    return f"step-{step:012d}" + (f".{serial}" if serial > 1 else "")


def parse_name(name: str) -> tuple[int, int] | None:
    """Returns step and serial, or None for a name that isn't ours.

    Example:
        >>> parse_name("step-000000001234.2"), parse_name("step-1")
        ((1234, 2), None)
    """
    match = re.fullmatch(r"step-([0-9]{12,})(?:\.([0-9]+))?", name)
    if match is None:
        return None
    step, serial = int(match[1]), int(match[2] or 1)
    # Only one spelling of each is ours.
    return (step, serial) if generation_name(step, serial) == name else None


def file_path(folder: AnyPath, file: str) -> AnyPath:
    """Returns where the arrays lie that were written under that name."""
    return folder / f"{file}.bin"


class Generation:
    """A finished backup.

    Making the object reads the manifest only, which notices any damage to
    itself. Damage to the other files is what `problems` looks for.

    Attributes:
        step: The training step that it holds.
        serial: 1, or more if that step was saved again.
        contents: What was passed to `Draft.seal`.
        files: The names under which arrays were written.
        known_damaged: The generations known to be damaged when it was sealed.

    Raises:
        DamagedError: If the manifest isn't as it was written.
    """

    def __init__(self, path: AnyPath) -> None:
        self.path, self.name = path, path.name
        self.step, self.serial = parse_name(path.name)
        manifest_path = path / MANIFEST
        self._manifest = disk.read_json(manifest_path)
        if self._manifest.get("format") != FORMAT:
            raise disk.DamagedError(
                f"{manifest_path}: it has format "
                f"{self._manifest.get('format')}, and this version of tf_gnc "
                f"reads {FORMAT}."
            )
        if self._manifest["step"] != self.step:
            raise disk.DamagedError(
                f"{manifest_path}: it is of step {self._manifest['step']}, "
                "not of the one in the folder's name."
            )
        self.contents: Mapping[str, Any] = self._manifest["contents"]
        self.files: list[str] = list(self._manifest["files"])
        self.known_damaged: list[str] = self._manifest["damaged"]
        self._readers: dict[str, _files.Reader] = {}

    def arrays(self, file: str) -> Mapping[str, np.ndarray]:
        """Returns the arrays written under a name.

        They are read-only. On a disk they are mapped into memory: read when
        they are used. From a bucket each is read when it is asked for by name.

        Raises:
            ValueError: If there is no such file.
            DamagedError: If the file is missing, unreadable or too short.
        """
        table = self._entry(file)["arrays"]
        return array_file.map_arrays(self._source(file), table)

    def read_rows(
        self, file: str, array: str, start: int, stop: int
    ) -> np.ndarray:
        """Returns a copy of the rows `start` to `stop - 1`, and reads no more.

        Raises:
            ValueError: If there is no such file, array or row.
            DamagedError: If the file is missing, unreadable or too short.
        """
        table = self._entry(file)["arrays"]
        if array not in table:
            raise ValueError(
                f"`array` must be one of {list(table)}, got array={array!r}."
            )
        source = self._source(file)
        return array_file.read_rows(source, table[array], start, stop)

    def problems(self, deep: bool = True) -> list[str]:
        """Returns a sentence for each damaged file, which it names.

        With `deep` it reads all files and compares checksums, not only sizes.
        """
        found = []
        for file, entry in self._manifest["files"].items():
            path = file_path(self.path, file)
            try:
                disk.check_file(path, entry, deep)
            except disk.DamagedError as error:
                found.append(str(error))
        return found

    def _source(self, file: str) -> array_file.Source:
        path = file_path(self.path, file)
        if not _files.is_bucket(path):
            return path
        return self._readers.setdefault(file, _files.Reader(path))

    def _entry(self, file: str) -> Mapping[str, Any]:
        if file not in self._manifest["files"]:
            raise ValueError(
                f"`file` must be one of {self.files}, got file={file!r} for "
                f"the backup {self.path}."
            )
        return self._manifest["files"][file]
