"""The rows of a probe: a file with one line of JSON for each.

Knows steps and lines. What else a row holds is up to others.
"""

import json
import os
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any


class ProbeRows:
    """The file `probe.jsonl` of a directory.

    Args:
        directory: Is made if need be.

    Raises:
        NotADirectoryError: If it is a file.
    """

    def __init__(self, directory: str | os.PathLike) -> None:
        directory = Path(directory).expanduser()
        if directory.exists() and not directory.is_dir():
            raise NotADirectoryError(
                "`directory` must be a directory, got "
                f"directory='{directory}', which is a file. Choose another."
            )
        directory.mkdir(parents=True, exist_ok=True)
        self.path = directory / "probe.jsonl"

    def take_up(self, step: int, same_run: bool) -> None:
        """Prepares the file for the rows of later steps.

        A run that goes on writes its rows after `step` anew, so those there
        are cut off. Those of another run are kept in a file beside.

        Args:
            step: Steps taken so far.
            same_run: Whether the rows up to `step` are this run's own.

        Raises:
            ValueError: If the file holds something else.
        """
        if not self.path.exists():
            return
        lines = self.path.read_text(encoding="utf-8").splitlines(True)
        # A kill may have left half a line at the end.
        whole = [line for line in lines if line.endswith("\n")]
        kept = [line for line in whole if self._step_of(line) <= step]
        if len(kept) == len(lines):
            return
        if same_run or len(kept) == len(whole):
            draft = self.path.with_name(f".unfinished-{self.path.name}")
            draft.write_text("".join(kept), encoding="utf-8")
            os.replace(draft, self.path)
            return
        count = 1
        while self._beside(count).exists():
            count += 1
        self.path.rename(self._beside(count))
        warnings.warn(
            f"{self.path} holds another run's rows of steps after {step}; it "
            f"is now called {self._beside(count).name}.",
            stacklevel=3,
        )

    def append(self, row: Mapping[str, Any]) -> None:
        """Adds a row and flushes it at once."""
        line = json.dumps(row, allow_nan=False) + "\n"
        with self.path.open("a", encoding="utf-8") as file:
            file.write(line)

    def _beside(self, count: int) -> Path:
        return self.path.with_name(f"probe-{count}.jsonl")

    def _step_of(self, line: str) -> int:
        try:
            return int(json.loads(line)["step"])
        except (ValueError, KeyError, TypeError):
            raise ValueError(
                f"{self.path} must hold a probe's rows, got {line[:60]!r}. "
                "Choose another directory or move the file out of the way."
            ) from None
