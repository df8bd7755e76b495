"""Kills processes of a run again and again, and looks at what comes out.

    python benchmarks/kill.py --kills=20
    python benchmarks/kill.py --kills=10 --in_bucket

Trains the digits in several processes under `tf-gnc launch`, once in peace
and once with `kill -9` of a random process at random moments; every other
kill is aimed at a backup that is being written. `--stops` adds SIGTERMs to one
process, after which all must save and be started again. Both runs must end
with the same weights, bit for bit, and each attempt must go on from the newest
backup that was sealed before the kill. Exits with 1 otherwise. `--in_bucket`
has the killed run in a bucket of moto's server on this machine (the extras
`s3` and `test`).

An attempt takes some ten seconds to start, so twenty kills take about five
minutes. Linux only: it finds the processes in /proc.
"""

import argparse
import contextlib
import dataclasses
import json
import logging
import os
import random
import signal
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from killed_run import PATIENCE, Kill, Run

from tf_gnc import _files


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
    in_bucket: bool = False,
    others: Sequence[str] = (),
) -> Report:
    """Trains in peace and with kills.

    Args:
        folder: An empty one.
        kills: How many by SIGKILL; fewer if the run ends before.
        stops: How many by SIGTERM, after those.
        processes: How many train together.
        seed: Decides who is killed, and when as far as can be decided.
        in_bucket: Whether the killed run is in a bucket.
        others: More flags of `tf-gnc train`.
    """
    flags = [
        "--dataset=digits", "--workers=4", "--batch_size=128",
        f"--epochs={3 + kills + stops}", "--backup=3", *others,
    ]  # fmt: skip
    with contextlib.ExitStack() as stack:
        address = os.fspath(folder / "kills" / "run")
        if in_bucket:
            address = f"{stack.enter_context(bucket())}/run"
        numbers = [signal.SIGKILL] * kills + [signal.SIGTERM] * stops
        return _measure(folder, address, numbers, processes, seed, flags)


def _measure(
    folder: Path,
    address: str,
    numbers: Sequence[int],
    processes: int,
    seed: int,
    flags: list[str],
) -> Report:
    began = time.monotonic()
    peace = Run(folder / "peace", f"{folder / 'peace'}/run", processes, flags)
    try:
        peace.launcher.wait(PATIENCE + 5 * len(numbers))
        if peace.launcher.returncode:
            raise RuntimeError(f"It fails without a kill:\n{peace.output()}")
    finally:
        peace.end()
    between = time.monotonic()
    run = Run(folder / "kills", address, processes, flags)
    done: list[Kill] = []
    chance = random.Random(seed)
    try:
        for count, number in enumerate(numbers):
            kill = run.kill_one(number, chance, aimed=count % 2 == 1)
            if kill is None:
                break
            done.append(kill)
            print(kill, file=sys.stderr, flush=True)
        code = run.launcher.wait(PATIENCE + 5 * len(numbers))
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


@contextlib.contextmanager
def bucket() -> Iterator[str]:
    """Yields a bucket's address, on a server in this process."""
    import fsspec
    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.CRITICAL)
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    os.environ.update(
        AWS_ENDPOINT_URL=f"http://{host}:{port}",
        AWS_ACCESS_KEY_ID="testing",
        AWS_SECRET_ACCESS_KEY="testing",
        AWS_DEFAULT_REGION="us-east-1",
    )
    try:
        fsspec.filesystem("s3").mkdir("s3://kills")
        yield "s3://kills"
    finally:
        server.stop()


def same(first: _files.AnyPath, second: _files.AnyPath) -> bool:
    """Tells whether two runs have the same weights and metrics."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    import keras

    def variables(folder: _files.AnyPath) -> list[bytes]:
        with _files.local_file(folder / "model.keras") as path:
            model = keras.models.load_model(path)
        return [variable.numpy().tobytes() for variable in model.variables]

    def rows(folder: _files.AnyPath) -> list[dict]:
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
    parser.add_argument("--in_bucket", action="store_true")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="tf-gnc-kill-") as folder:
        report = measure(Path(folder), **vars(given))
    if not report.good:
        print(report.output, file=sys.stderr)
    print(report.table())
    return 0 if report.good else 1


if __name__ == "__main__":
    sys.exit(main())
