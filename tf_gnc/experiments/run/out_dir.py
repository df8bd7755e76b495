"""The directory of something that has many runs, and can be taken up again.

It is new, empty, or was begun by the same thing; one process holds it at a
time. Knows nothing of what its runs are.
"""

import contextlib
import fcntl
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

_UNFINISHED = ".unfinished-"


class OutDir:
    """A directory. Making it only looks; `claimed` takes it.

    Args:
        out_dir: New, empty, or that of the same thing.

    Raises:
        ValueError: If it isn't on a local file system, or that of another.
        OSError: If it holds anything else, or is a file.
    """

    what = ""
    """What the directory is of, for errors."""
    about = ""
    """The file that tells what it is of."""

    def __init__(self, out_dir: str | os.PathLike) -> None:
        """Looks; see the class."""
        if "://" in os.fspath(out_dir):
            raise ValueError(
                "`out_dir` must be a local directory, got "
                f"out_dir={os.fspath(out_dir)!r}. Write to a local one and "
                "copy it afterwards."
            )
        self.directory = Path(out_dir).expanduser()
        self._refuse_others()

    @contextlib.contextmanager
    def claimed(self, command: str) -> Iterator[None]:
        """Holds the directory, against a second one at the same time.

        Args:
            command: What asked for it.

        Raises:
            OSError: If somebody else holds it, or it can't be made.
        """
        self.directory.mkdir(parents=True, exist_ok=True)
        held = os.open(self.directory, os.O_RDONLY)
        try:
            self._lock(held)
            self._refuse_others()
            if not (self.directory / self.about).exists():
                self._begin(command)
            yield
        finally:
            os.close(held)

    def write(self, name: str, content: bytes | str) -> None:
        """Writes a file, whole or not at all."""
        if isinstance(content, str):
            content = content.encode()
        draft = self.directory / f"{_UNFINISHED}{name}"
        draft.write_bytes(content)
        os.replace(draft, self.directory / name)

    def _begin(self, command: str) -> None:
        """Writes `about`."""
        raise NotImplementedError

    def _refuse_other(self, about: Any) -> None:
        """Raises a ValueError if `about` holds something else."""
        raise NotImplementedError

    def _refuse_others(self) -> None:
        path = self.directory
        if not path.exists():
            return
        if not path.is_dir():
            raise NotADirectoryError(
                f"`out_dir` must be a directory, got out_dir='{path}', which "
                "is a file."
            )
        about = read_json(path / self.about)
        if about is not None:
            self._refuse_other(about)
        elif any(not p.name.startswith(_UNFINISHED) for p in path.iterdir()):
            raise FileExistsError(
                f"`out_dir` must be new, empty or that of the same {self.what}"
                f", got out_dir='{path}', which holds other files. Choose "
                "another name (--out_dir)."
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


def clear_if_not_begun(run_dir: Path) -> None:
    """Removes what a run left that was killed before it had begun."""
    if run_dir.exists() and not (run_dir / "config.json").exists():
        shutil.rmtree(run_dir)


def read_json(path: Path) -> Any:
    """Returns what stands in a JSON file, None if it isn't there.

    Raises:
        ValueError: If it can't be read.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise ValueError(
            f"The file {path} can't be read: {error}. Move it out of the way."
        ) from None
