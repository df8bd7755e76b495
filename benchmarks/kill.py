"""Kills processes of a run again and again, and looks at what comes out.

    python benchmarks/kill.py --kills=20

Trains the digits in several processes under `tf-gnc launch`, once in peace
and once with `kill -9` of a random process at random moments; every other
kill is aimed at a backup that is being written. `--stops` adds SIGTERMs to one
process, after which all must save and be started again. Both runs must end
with the same weights, bit for bit, and each attempt must go on from the newest
backup that was sealed before the kill. Exits with 1 otherwise.

An attempt takes some ten seconds to start, so twenty kills take about five
minutes. Linux only: it finds the processes in /proc.
"""

import argparse
import contextlib
import dataclasses
import json
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

_LAUNCH = Path(__file__).parents[1] / "scripts" / "launch.py"
_PATIENCE = 120.0  # Seconds for anything that must come.
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
        folder: Gets the run's directory and its output.
        processes: How many.
        flags: More flags of `tf-gnc train`.
    """

    def __init__(self, folder: Path, processes: int, flags: list[str]) -> None:
        folder.mkdir()
        self.directory = folder / "run"
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
        """Returns the steps of the backups."""
        paths = (self.directory / "backup").glob("step-*")
        return [int(re.search(r"\d+", path.name)[0]) for path in paths]

    def is_saving(self, since: int) -> bool:
        """Tells whether there is a half-written backup younger than that."""
        for draft in (self.directory / "backup").glob(".draft-*"):
            with contextlib.suppress(FileNotFoundError):
                if draft.stat().st_mtime_ns > since:
                    return True
        return False

    def wait(self, condition: Callable[[], object], tick: float = 0.02) -> bool:
        """Waits for something; False if the run has ended before."""
        end = time.monotonic() + _PATIENCE
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
        old, began = set(self.backups()), time.time_ns()
        if aimed:
            if not self.wait(lambda: self.is_saving(began), tick=0.001):
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
            self.is_saving(began),
        )
        if kill.newest == 0:
            kill.lost = 0  # There was nothing to lose.
        elif self.wait(lambda: len(self.went_on()) > attempts):
            kill.lost = kill.newest - self.went_on()[-1]
        return kill


@dataclasses.dataclass
class Report:
    """What came out.

    Attributes:
        kills: The kills, in their order.
        restarts: How often the launcher has restarted the processes.
        code: The launcher's exit code after the run with kills.
        equal: Whether weights and metrics are those of the run in peace.
        seconds: Of the run in peace, and of the one with kills.
        output: Of the run with kills.
    """

    kills: list[Kill]
    restarts: int
    code: int
    equal: bool
    seconds: tuple[float, float]
    output: str

    @property
    def lost(self) -> int | None:
        """Steps lost beyond the last backup; None if it can't be told."""
        lost = [kill.lost for kill in self.kills]
        return None if None in lost else sum(lost)

    @property
    def good(self) -> bool:
        """Whether all is as it should be."""
        return self.equal and self.lost == 0 and self.code == 0

    def table(self) -> str:
        """Returns the table."""
        stops = sum(kill.signal == "SIGTERM" for kill in self.kills)
        saves = sum(kill.during_save for kill in self.kills)
        rows = {
            "kills": len(self.kills),
            "of these by SIGTERM": stops,
            "of these during a save": saves,
            "restarts": self.restarts,
            "steps lost beyond the last backup": self.lost,
            "seconds in peace": f"{self.seconds[0]:.0f}",
            "seconds with kills": f"{self.seconds[1]:.0f}",
            "weights and metrics": "equal" if self.equal else "DIFFERENT",
            "verdict": "good" if self.good else "BAD",
        }
        return "\n".join(f"{name:<36}{value}" for name, value in rows.items())


def measure(
    folder: Path,
    kills: int,
    stops: int = 0,
    processes: int = 2,
    seed: int = 0,
) -> Report:
    """Trains in peace and with kills.

    Args:
        folder: An empty one.
        kills: How many by SIGKILL; fewer if the run ends before.
        stops: How many by SIGTERM, after those.
        processes: How many train together.
        seed: Decides who is killed, and when as far as can be decided.
    """
    flags = [
        "--dataset=digits", "--workers=4", "--batch_size=128",
        f"--epochs={3 + kills + stops}", "--backup=3",
    ]  # fmt: skip
    began = time.monotonic()
    peace = Run(folder / "peace", processes, flags)
    try:
        peace.launcher.wait(_PATIENCE + 5 * kills)
        if peace.launcher.returncode:
            raise RuntimeError(f"It fails without a kill:\n{peace.output()}")
    finally:
        peace.end()
    between = time.monotonic()
    run = Run(folder / "kills", processes, flags)
    done: list[Kill] = []
    chance = random.Random(seed)
    try:
        numbers = [signal.SIGKILL] * kills + [signal.SIGTERM] * stops
        for count, number in enumerate(numbers):
            kill = run.kill_one(number, chance, aimed=count % 2 == 1)
            if kill is None:
                break
            done.append(kill)
            print(kill, file=sys.stderr, flush=True)
        code = run.launcher.wait(_PATIENCE + 5 * kills)
    finally:
        run.end()
    return Report(
        kills=done,
        restarts=run.restarts(),
        code=code,
        equal=code == 0 and same(peace.directory, run.directory),
        seconds=(between - began, time.monotonic() - between),
        output=run.output(),
    )


def same(first: Path, second: Path) -> bool:
    """Tells whether two runs have the same weights and metrics."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    import keras

    def variables(folder: Path) -> list[bytes]:
        model = keras.models.load_model(folder / "model.keras")
        return [variable.numpy().tobytes() for variable in model.variables]

    def rows(folder: Path) -> list[dict]:
        lines = (folder / "metrics.jsonl").read_text().splitlines()
        return [{**json.loads(line), "seconds": None} for line in lines]

    return all(part(first) == part(second) for part in (variables, rows))


def main() -> int:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--stops", type=int, default=0)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="tf-gnc-kill-") as folder:
        report = measure(Path(folder), **vars(given))
    if not report.good:
        print(report.output, file=sys.stderr)
    print(report.table())
    return 0 if report.good else 1


if __name__ == "__main__":
    sys.exit(main())
