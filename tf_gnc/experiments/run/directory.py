"""A run's directory: claimed once, never overwritten, each file whole.

Knows names and bytes. What stands in the files is up to others.
"""

import errno
import json
import math
import os
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

# A run leaves a few megabytes; the largest model here, with its optimizer's
# state, takes four. Below this the disk is as good as full.
REQUIRED_BYTES = 32 * 2**20

# Before the name of a file that is being written, the writer's process id.
_UNFINISHED = ".unfinished-"


def new_run_dir(
    dataset: str, method: str, root: str = "runs", stamp: str | None = None
) -> Path:
    """Returns `<root>/<dataset>-<method>-<time>`, a name not yet taken.

    Args:
        dataset: The data set's name.
        method: The method's name.
        root: Directory that holds the runs; need not exist.
        stamp: Stands for the time, in a run whose processes must agree on it
            and find it again; then the name may be taken.
    """
    dataset = dataset.replace(":", "-")  # a function of the user's
    if stamp is not None:
        return Path(root, f"{dataset}-{method}-{stamp}")
    stamp = time.strftime("%Y%m%d-%H%M%S")
    first = Path(root, f"{dataset}-{method}-{stamp}")
    path, count = first, 1
    while path.exists():
        count += 1
        path = first.with_name(f"{first.name}-{count}")
    return path


def finite_or_none(value: Any) -> float | None:
    """Returns `value` as a float, or None if JSON has no word for it."""
    value = float(value)
    return value if math.isfinite(value) else None


class RunFiles:
    """The files of one run.

    Making the object only looks; `claim` is what makes the directory. In
    between, whatever else can go wrong may do so without leaving a trace.

    Args:
        run_dir: The run's directory: new, or empty.
        resume: Whether it may hold a run that is to go on.

    Raises:
        ValueError: If `run_dir` isn't on a local file system.
        FileExistsError: If there is anything in `run_dir`.
        NotADirectoryError: If `run_dir` is a file.
        OSError: With `errno.ENOSPC` if the disk is as good as full.
    """

    def __init__(
        self, run_dir: str | os.PathLike, resume: bool = False
    ) -> None:
        """Looks whether the directory can be had; see the class."""
        name = os.fspath(run_dir)
        if "://" in name:
            raise ValueError(
                f"`run_dir` must be a local directory, got run_dir={name!r}. "
                "Write to a local one and copy it afterwards."
            )
        self.directory = Path(name).expanduser()
        self._resume = resume
        self._refuse_if_taken()
        self._check_space()

    def path(self, name: str) -> Path:
        """Returns where a file of that name lies."""
        return self.directory / name

    def claim(self) -> None:
        """Makes the directory and, for good, a metrics.jsonl in it."""
        self._refuse_if_taken()
        self.directory.mkdir(parents=True, exist_ok=True)
        if self._resume and self.path("metrics.jsonl").exists():
            for rubbish in self.directory.glob(f"{_UNFINISHED}*"):
                rubbish.unlink()  # A kill has left it.
            return
        try:
            # Of two runs that start at once in the same empty directory,
            # only one can create the file.
            self.path("metrics.jsonl").open("x").close()
        except FileExistsError:
            raise self._taken() from None

    def append_row(self, row: Mapping[str, Any]) -> None:
        """Adds a line to metrics.jsonl and hands it to the system at once.

        If the disk fills up halfway, the half line is taken back.
        """
        line = json.dumps(row, allow_nan=False) + "\n"
        unsent = line.encode()
        with self.path("metrics.jsonl").open("ab", buffering=0) as file:
            whole = file.tell()
            try:
                while unsent:
                    unsent = unsent[file.write(unsent) :]
            except OSError:
                file.truncate(whole)
                raise

    def keep_rows(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Cuts metrics.jsonl back to its first rows, if it has others.

        Args:
            rows: What it is to hold.
        """
        lines = [json.dumps(row, allow_nan=False) + "\n" for row in rows]
        text = "".join(lines)
        if self.path("metrics.jsonl").read_text(encoding="utf-8") != text:
            self.write("metrics.jsonl", lambda path: path.write_text(text))

    def read_json(self, name: str) -> dict[str, Any] | None:
        """Returns what stands in a JSON file; None if it isn't there."""
        try:
            return json.loads(self.path(name).read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        except ValueError as error:
            raise ValueError(
                f"The file {self.path(name)} can't be read: {error}. "
                "Choose another run_dir."
            ) from None

    def write_json(self, name: str, content: Mapping[str, Any]) -> None:
        """Writes a JSON file; there is either all of it or nothing."""
        text = json.dumps(content, indent=2, allow_nan=False) + "\n"
        self.write(name, lambda path: path.write_text(text, encoding="utf-8"))

    def write(self, name: str, writer: Callable[[Path], Any]) -> None:
        """Has `writer` write a file of that name, whole or not at all.

        Args:
            name: The file's name.
            writer: Writes the file at the path that it is given. The path
                ends as `name` does, since some writers go by that.
        """
        temporary = self.path(f"{_UNFINISHED}{os.getpid()}-{name}")
        try:
            writer(temporary)
            os.replace(temporary, self.path(name))
        finally:
            temporary.unlink(missing_ok=True)

    def names(self) -> list[str]:
        """Returns the names of the files there are."""
        return sorted(path.name for path in self.directory.iterdir())

    def _refuse_if_taken(self) -> None:
        if not self.directory.exists():
            return
        if not self.directory.is_dir():
            raise NotADirectoryError(
                "`run_dir` must be a new or empty directory, got "
                f"run_dir='{self.directory}', which is a file."
            )
        names = self.names()
        done = [name for name in names if not name.startswith(_UNFINISHED)]
        begun = "config.json" in done or done == ["metrics.jsonl"]
        if names and not (self._resume and begun):
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
        free = usage.free
        # A size of 0 is not a full disk: pseudo file systems tell none.
        if usage.total and free < REQUIRED_BYTES:
            raise OSError(
                errno.ENOSPC,
                f"The disk is full: a run needs {REQUIRED_BYTES / 2**20:.0f} "
                f"MiB, got {free / 2**20:.1f} MiB free. Make room, or choose "
                "another run_dir (--run_dir)",
                str(existing),
            )
