"""Directories that are claimed, never overwritten, their files each whole.

All that the experiments know of paths and file systems is here and in
tf_gnc._files. What stands in the files is up to others.
"""

import contextlib
import errno
import fcntl
import os
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from tf_gnc import _files

# A run leaves a few megabytes; the largest model here, with its optimizer's
# state, takes four. Below this the disk is as good as full.
REQUIRED_BYTES = 32 * 2**20


def as_file_name(name: str) -> str:
    """Returns a name, perhaps a function as "module:function", for a file."""
    return name.replace(":", "-")


def new_run_dir(
    dataset: str, method: str, root: str = "runs", stamp: str | None = None
) -> Path:
    """Returns `<root>/<dataset>-<method>-<time>`, a name not yet taken.

    A `stamp` stands for the time in a run whose processes must agree on it and
    find it again; then the name may be taken.
    """
    name = as_file_name(f"{dataset}-{method}")
    if stamp is not None:
        return Path(root, f"{name}-{stamp}")
    first = Path(root, f"{name}-{time.strftime('%Y%m%d-%H%M%S')}")
    path, count = first, 1
    while path.exists():
        count += 1
        path = first.with_name(f"{first.name}-{count}")
    return path


class Directory:
    """A local directory, which need not exist, and its files."""

    argument = "out_dir"
    """How errors call it; its flag is named likewise."""

    def __init__(self, directory: str | os.PathLike) -> None:
        name = os.fspath(directory)
        if "://" in name:
            raise ValueError(
                f"`{self.argument}` must be a local directory, got "
                f"{self.argument}={name!r}. Write to a local one and copy it "
                "afterwards."
            )
        self.directory = Path(name).expanduser()

    def path(self, name: str) -> Path:
        """Returns where a file of that name lies."""
        return self.directory / name

    def names(self) -> list[str]:
        """Returns the names of the files there are, none if it is missing.

        Raises:
            NotADirectoryError: If it is a file.
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
        begun = _files.UNFINISHED
        return [name for name in self.names() if not name.startswith(begun)]

    def write(
        self, name: str, content: bytes | str | Callable[[Path], Any]
    ) -> None:
        """Writes a file, whole or not at all; see `_files.write`."""
        _files.write(self.path(name), content)

    def write_json(self, name: str, content: Mapping[str, Any]) -> None:
        """Writes a JSON file, whole or not at all."""
        _files.write_json(self.path(name), content)

    def read_json(self, name: str) -> dict[str, Any] | None:
        """Returns what a JSON file says; None if it isn't there."""
        return _files.read_json(self.path(name))

    def remove_unfinished(self) -> None:
        """Removes what a kill has left of files that were being written."""
        for path in self.directory.glob(f"{_files.UNFINISHED}*"):
            path.unlink()


class RunFiles(Directory):
    """The files of one run. Making the object only looks; `claim` is for good.

    In between, whatever else can go wrong may do so without leaving a trace.

    Args:
        run_dir: The run's directory: new, or empty.
        resume: Whether it may hold a run that is to go on.

    Raises:
        ValueError: If `run_dir` isn't on a local file system.
        FileExistsError: If there is anything in `run_dir`.
        NotADirectoryError: If `run_dir` is a file.
        OSError: With `errno.ENOSPC` if the disk is as good as full.
    """

    argument = "run_dir"

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
        if self._resume and self.path("metrics.jsonl").exists():
            self.remove_unfinished()
            return
        try:
            # Of two runs that start at once in the same empty directory,
            # only one can create the file.
            self.path("metrics.jsonl").open("x").close()
        except FileExistsError:
            raise self._taken() from None

    def append_row(
        self, row: Mapping[str, Any], name: str = "metrics.jsonl"
    ) -> None:
        """Adds a line to a file of rows and hands it to the system at once."""
        _files.append_row(self.path(name), row)

    def keep_rows(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Has metrics.jsonl hold these rows and no others."""
        path = self.path("metrics.jsonl")
        if path.read_text(encoding="utf-8") != _files.lines_of(rows):
            _files.write_rows(path, rows)

    def _refuse_if_taken(self) -> None:
        done = self.whole_names()
        begun = "config.json" in done or done == ["metrics.jsonl"]
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


class SharedDirectory(Directory):
    """The directory of something that has many runs and can be gone on with.

    It is new, empty, or was begun by the same thing; one process holds it at
    a time. Making the object only looks; `claimed` takes the directory.

    Raises:
        ValueError: If it isn't on a local file system, or that of another.
        OSError: If it holds anything else, or is a file.
    """

    what = ""
    """What the directory is of, for errors."""
    about = ""
    """The file that tells what it is of."""

    def __init__(self, out_dir: str | os.PathLike) -> None:
        super().__init__(out_dir)
        self._refuse_others()

    @contextlib.contextmanager
    def claimed(self, command: str) -> Iterator[None]:
        """Holds the directory for a command, against a second one.

        Raises:
            OSError: If somebody else holds it, or it can't be made.
        """
        self.directory.mkdir(parents=True, exist_ok=True)
        held = os.open(self.directory, os.O_RDONLY)
        try:
            self._lock(held)
            self._refuse_others()
            self.remove_unfinished()
            if not self.path(self.about).exists():
                self._begin(command)
            yield
        finally:
            os.close(held)

    def _begin(self, command: str) -> None:
        """Writes `about`."""
        raise NotImplementedError

    def _compared(self, about: Any) -> Iterable[tuple[str, Any, Any]]:
        """Returns names, each with the value now and that in `about`."""
        raise NotImplementedError

    def _refuse_others(self) -> None:
        names = self.whole_names()
        about = self.read_json(self.about)
        if about is not None:
            for name, ours, theirs in self._compared(about):
                if ours != theirs:
                    raise ValueError(
                        f"A {self.what} must go on with the settings it began "
                        f"with, got {name}={ours!r} where {self.directory} has "
                        f"{theirs!r}. Use the same flags, or choose another "
                        "out_dir (--out_dir)."
                    )
        elif names:
            raise FileExistsError(
                f"`out_dir` must be new, empty or that of the same {self.what}"
                f", got out_dir='{self.directory}', which holds other files. "
                "Choose another name (--out_dir)."
            )

    def _lock(self, descriptor: int) -> None:
        """Locks the directory for as long as it is open."""
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise OSError(
                f"`out_dir` must not be in use by another {self.what}, got "
                f"out_dir='{self.directory}'. Wait for it, or choose another "
                "name (--out_dir)."
            ) from None
        except OSError:  # Not all file systems can.
            pass
