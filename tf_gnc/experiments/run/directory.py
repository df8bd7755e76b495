"""Directories that are claimed, never overwritten, their files each whole.

All that the experiments know of paths and file systems is here and in
tf_gnc._files. What stands in the files is up to others.
"""

import errno
import os
import shutil
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tf_gnc import _files

# A run leaves a few megabytes; the largest model here, with its optimizer's
# state, takes four. Below this the disk is as good as full.
REQUIRED_BYTES = 32 * 2**20


def as_file_name(name: str) -> str:
    """Returns a name, perhaps a function as "module:function", for a file."""
    return name.replace(":", "-")


def new_run_dir(dataset: str, method: str, stamp: str | None = None) -> Path:
    """Returns `runs/<dataset>-<method>-<time>`, a name not yet taken.

    A `stamp` stands for the time in a run whose processes must agree on it and
    find it again; then the name may be taken.
    """
    name = as_file_name(f"{dataset}-{method}")
    first = Path("runs", f"{name}-{stamp or time.strftime('%Y%m%d-%H%M%S')}")
    path, count = first, 1
    while path.exists() and not stamp:
        count += 1
        path = first.with_name(f"{first.name}-{count}")
    return path


class Directory:
    """A directory on a disk or in a bucket, which need not exist."""

    argument = "out_dir"
    """How errors call it; its flag is named likewise."""
    what = ""
    """What the directory is of, for errors."""

    def __init__(self, directory: str | os.PathLike) -> None:
        try:
            self.directory = _files.as_path(directory)
        except ValueError as error:
            raise ValueError(
                f"`{self.argument}` must be a local directory or one in a "
                f"bucket, got {self.argument}={os.fspath(directory)!r}. {error}"
            ) from None
        self.in_bucket = _files.is_bucket(self.directory)
        self.owner = _files.Owner(self.directory) if self.in_bucket else None
        """Who writes there, in a bucket; a disk has locks."""

    def path(self, name: str) -> _files.AnyPath:
        """Returns the path of a file of that name."""
        return self.directory / name

    def names(self) -> list[str]:
        """Returns the names of the files there are, none if it is missing.

        A NotADirectoryError says that it is a file.
        """
        if not self.directory.exists():
            return []
        if not self.directory.is_dir():
            raise NotADirectoryError(
                f"`{self.argument}` must be a directory, new or not, got "
                f"{self.argument}='{self.directory}', which is a file. Choose "
                f"another name (--{self.argument})."
            )
        return sorted(path.name for path in self.directory.iterdir())

    def whole_names(self) -> list[str]:
        """Returns the names of the files that aren't still being written."""
        begun = (_files.UNFINISHED, _files.OWNER)
        return [name for name in self.names() if not name.startswith(begun)]

    def refuse_other_settings(
        self, settings: Iterable[tuple[str, Any, Any]]
    ) -> None:
        """Raises a ValueError if a setting isn't the one in the directory.

        Each comes as its name, its value now, and the one in the directory.
        """
        for name, ours, theirs in settings:
            if ours != theirs:
                raise ValueError(
                    f"A {self.what} must go on with the settings it began "
                    f"with, got {name}={ours!r} where {self.directory} has "
                    f"{theirs!r}. Use the same flags, or choose another "
                    f"{self.argument} (--{self.argument})."
                )

    def remove_unfinished(self) -> None:
        """Removes what a kill has left of files that were being written."""
        for path in self.directory.glob(f"{_files.UNFINISHED}*"):
            path.unlink()


class RunFiles(Directory):
    """The files of one run, in a directory that is new or empty.

    With `resume` it may hold a run that is to go on. Making the object only
    looks; `claim` is for good. In between, whatever else can go wrong may do so
    without leaving a trace.

    Raises:
        ValueError: If `run_dir` is an address of an unknown kind.
        FileExistsError: If there is anything in `run_dir`.
        NotADirectoryError: If `run_dir` is a file.
        OSError: With `errno.ENOSPC` if the disk is as good as full.
    """

    argument, what = "run_dir", "run"

    def __init__(
        self, run_dir: str | os.PathLike, resume: bool = False
    ) -> None:
        super().__init__(run_dir)
        self._resume = resume
        self._refuse_if_taken()
        self._check_space()

    def claim(self) -> None:
        """Makes the directory and, for good, a metrics.jsonl in it."""
        self._refuse_if_taken()
        self.directory.mkdir(parents=True, exist_ok=True)
        if self.owner:
            self.owner.take()
        if self._resume and self.path("metrics.jsonl").exists():
            self.remove_unfinished()
            return
        if self.owner:
            self.path("metrics.jsonl").write_bytes(b"")
            return
        try:
            # Of two runs that start at once in the same empty directory,
            # only one can create the file.
            self.path("metrics.jsonl").open("x").close()
        except FileExistsError:
            raise self._taken() from None

    def keep_rows(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Has metrics.jsonl hold these rows and no others."""
        path = self.path("metrics.jsonl")
        if path.read_text(encoding="utf-8") != _files.lines_of(rows):
            _files.write_rows(path, rows)

    def add_row(
        self, rows: Sequence[Mapping[str, Any]], row: Mapping[str, Any]
    ) -> None:
        """Has metrics.jsonl hold these rows and a new one.

        A bucket that can't be written to is told of in a line: the next row
        brings all of them.
        """
        path = self.path("metrics.jsonl")
        if not self.owner:
            self.keep_rows(rows)
            _files.append_row(path, row)
            return
        try:
            self.owner.check()
            _files.write_rows(path, [*rows, row])
        except _files.TakenError:
            raise
        except OSError as error:
            print(
                f"{path} can't be written now ({error.strerror}); its rows "
                "are kept for the next time.",
                file=sys.stderr,
                flush=True,
            )

    def _refuse_if_taken(self) -> None:
        done = self.whole_names()
        begun = "config.json" in done or done in ([], ["metrics.jsonl"])
        if self.names() and not (self._resume and begun):
            raise self._taken()

    def _taken(self) -> FileExistsError:
        return FileExistsError(
            "`run_dir` must be new or empty, since nothing is overwritten, "
            f"got run_dir='{self.directory}', which holds files. Choose "
            "another name, move it out of the way or, if a run was cut short "
            "there, take it up again with resume=True (--resume)."
        )

    def _check_space(self) -> None:
        if self.in_bucket:
            return
        existing = self.directory.absolute()
        while not existing.exists():
            existing = existing.parent
        usage = shutil.disk_usage(existing)
        # A size of 0 is not a full disk: pseudo file systems tell none.
        if usage.total and usage.free < REQUIRED_BYTES:
            raise OSError(
                errno.ENOSPC,
                f"The disk is full: a run needs {REQUIRED_BYTES / 2**20:.0f} "
                f"MiB, got {usage.free / 2**20:.1f} MiB free. Make room, or "
                "choose another run_dir (--run_dir)",
                str(existing),
            )
