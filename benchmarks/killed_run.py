"""A run under `tf-gnc launch` whose processes are killed; see kill.py.

Linux only: it finds the processes in /proc.
"""

import contextlib
import dataclasses
import os
import random
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from tf_gnc import _files
from tf_gnc.store.generation import MANIFEST

_LAUNCH = Path(__file__).parents[1] / "scripts" / "launch.py"
PATIENCE = 120.0
"""Seconds for anything that must come."""
_SPREAD = 1.0  # Seconds from a backup to a kill at random, at most.


@dataclasses.dataclass
class Kill:
    """One kill.

    Attributes:
        signal: The signal.
        process: The number of the process that got it.
        newest: The step of the newest backup when all were dead; 0 for none.
        during_save: Whether a half-written backup was left behind.
        lost: Steps between that backup and where the next attempt went on.
    """

    signal: str
    process: int
    newest: int
    during_save: bool
    lost: int | None = None


class Run:
    """A run of `tf-gnc train` under the launcher.

    Args:
        folder: Gets its output.
        directory: Of the run, on the disk or in a bucket.
        processes: How many.
        flags: More flags of `tf-gnc train`.
    """

    def __init__(
        self, folder: Path, directory: str, processes: int, flags: list[str]
    ) -> None:
        folder.mkdir()
        self.directory = _files.as_path(directory)
        self._in_bucket = _files.is_bucket(self.directory)
        self._log = folder / "output.txt"
        command = [
            sys.executable, str(_LAUNCH), f"--processes={processes}",
            "--max_restarts=1000000", "--", "train", "--deterministic",
            f"--run_dir={self.directory}", *flags,
        ]  # fmt: skip
        with self._log.open("w") as log:
            self.launcher = subprocess.Popen(
                command, stdout=log, stderr=subprocess.STDOUT
            )

    def output(self) -> str:
        """Returns what the processes have printed."""
        return self._log.read_text(errors="replace")

    def went_on(self) -> list[int]:
        """Returns the steps at which attempts have gone on."""
        found = re.findall(r"Goes on at step (\d+);", self.output())
        return [int(step) for step in found]

    def restarts(self) -> int:
        """Returns how often the launcher has restarted the processes."""
        return self.output().count("restarts the processes")

    def backups(self) -> list[int]:
        """Returns the steps of the sealed backups."""
        sealed = filter(_sealed, self._children("step-"))
        return [int(re.search(r"\d+", path.name)[0]) for path in sealed]

    def drafts(self) -> set[tuple[str, int]]:
        """Returns the half-written backups, as names and times of change."""
        if self._in_bucket:  # No name is used twice there.
            begun = (p for p in self._children("step-") if not _sealed(p))
            return {(path.name, 0) for path in begun}
        found = set()
        for path in self._children(".draft-"):
            with contextlib.suppress(FileNotFoundError):
                found.add((path.name, path.stat().st_mtime_ns))
        return found

    def _children(self, prefix: str) -> list[_files.AnyPath]:
        folder = self.directory / "backup"
        if not folder.exists():
            return []
        return [p for p in folder.iterdir() if p.name.startswith(prefix)]

    def wait(self, condition: Callable[[], object], tick: float = 0.02) -> bool:
        """Waits for something; False if the run has ended before."""
        end = time.monotonic() + PATIENCE
        while not condition():
            if self.launcher.poll() is not None:
                return False
            if time.monotonic() > end:
                raise TimeoutError(f"Nothing happens:\n{self.output()}")
            time.sleep(tick)
        return True

    def processes(self) -> dict[int, int]:
        """Returns the processes' ids by their number."""
        found = {}
        parent = self.launcher.pid
        children = Path(f"/proc/{parent}/task/{parent}/children").read_text()
        for pid in children.split():
            try:
                environment = Path(f"/proc/{pid}/environ").read_bytes()
            except OSError:
                continue  # It has ended meanwhile.
            number = re.search(rb"\0TF_GNC_PROCESS=(\d+)", b"\0" + environment)
            if number:
                found[int(number[1])] = int(pid)
        return found

    def end(self) -> None:
        """Ends whatever is left; the launcher's watchdog does the rest."""
        self.launcher.kill()
        self.launcher.wait()

    def kill_one(
        self, number: int, chance: random.Random, aimed: bool
    ) -> Kill | None:
        """Sends a signal to one process of a run that makes progress.

        Args:
            number: The signal's.
            chance: Chooses which process, and when.
            aimed: As the next backup begins, and not at any time.

        Returns:
            The kill, or None if the run has ended before.
        """
        restarts, attempts = self.restarts(), len(self.went_on())
        old, drafts = set(self.backups()), self.drafts()
        if aimed:
            tick = 0.01 if self._in_bucket else 0.001
            if not self.wait(lambda: self.drafts() - drafts, tick):
                return None
            time.sleep(chance.uniform(0, 0.01))
        else:
            if not self.wait(lambda: set(self.backups()) - old):
                return None
            time.sleep(chance.uniform(0, _SPREAD))
        alive = self.processes()
        if not alive:
            return None
        process = chance.choice(sorted(alive))
        os.kill(alive[process], number)
        if not self.wait(lambda: self.restarts() > restarts):
            return None
        kill = Kill(
            signal.Signals(number).name,
            process,
            max(self.backups(), default=0),
            bool(self.drafts() - drafts),
        )
        if kill.newest == 0:
            kill.lost = 0  # There was nothing to lose.
        elif self.wait(lambda: len(self.went_on()) > attempts):
            kill.lost = kill.newest - self.went_on()[-1]
        return kill


def _sealed(backup: _files.AnyPath) -> bool:
    return (backup / MANIFEST).exists()
