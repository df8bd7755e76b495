"""Many runs, each in a process of its own, a few of them side by side.

What `tf-gnc compare`, `reproduce` and `tune` have in common: the flags that say
how, what must be so before the first run is started, and how they stop. Knows
neither what is run nor what is made of the results.
"""

import contextlib
import dataclasses
import os
import signal
from collections.abc import Iterable, Iterator, Mapping, Sequence

import tensorflow as tf

from tf_gnc import threads
from tf_gnc._settings import setting
from tf_gnc.cli import child
from tf_gnc.cli.command import Call, Stopped, UsageError
from tf_gnc.cli.progress import Console, RunsDisplay, show_runs
from tf_gnc.cli.tensorflow_start import quiet_start
from tf_gnc.distribute.environment import find_cluster, tpu_name
from tf_gnc.experiments.config import RunConfig
from tf_gnc.experiments.run.task import ManyRuns
from tf_gnc.launch.addresses import RESTART_EXIT_CODE
from tf_gnc.launch.pool import Pool


class RunsFailed(Exception):
    """Some runs have failed; the message says which."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class JobsFlag:
    """How many runs at a time."""

    jobs: int | None = setting(
        "Runs side by side; they share the cores. Default: one for each core, "
        "or one if there is a GPU or TPU.",
        None, minimum=1, group="This run",
    )  # fmt: skip


@dataclasses.dataclass(frozen=True)
class RunMany:
    """Starts runs; made by `prepare_many`.

    Attributes:
        jobs: How many at a time.
        cores: The cores that they share.
    """

    jobs: int
    cores: Sequence[int]

    @contextlib.contextmanager
    def show(
        self, console: Console, left: int, amount: str, directory: ManyRuns
    ) -> Iterator[RunsDisplay]:
        """Says what there is to do, and yields what shows how far it is.

        Args:
            console: Where to print.
            left: How many runs are still to do; nothing is said of 0.
            amount: That in words.
            directory: Whose they are.
        """
        if left:
            console.say(
                f"{amount} to do, on {len(self.cores)} cores, in "
                f"{directory.directory}"
            )
        with show_runs(console, left, directory.describe) as display:
            yield display

    def __call__(
        self,
        configs: Mapping[str, RunConfig],
        directory: ManyRuns,
        command: str,
        display: RunsDisplay,
    ) -> None:
        """Does those runs that have come to nothing yet.

        Args:
            configs: What to run, by the runs' names.
            directory: Gets the runs; what they print goes to its `logs`.
            command: What asked for them.
            display: Is told what goes on.

        Raises:
            Stopped: If this process was told to stop.
            OSError: If a process can't be started.
        """

        def command_line(name: str, num_cores: int) -> list[str]:
            task = directory.task(name, configs[name], num_cores, command)
            return child.command_line(task)

        names = missing(configs, directory)
        jobs = max(1, min(self.jobs, len(names)))
        log_dir = directory.directory / "logs"
        pool = Pool(command_line, jobs, self.cores, log_dir, display)
        pool.run(names)
        if pool.stopped_by:
            interrupted = pool.stopped_by == signal.SIGINT
            raise Stopped(
                f"stopped. What was done is kept in "
                f"{directory.directory}; the same "
                "command goes on from there",
                130 if interrupted else RESTART_EXIT_CODE,
            )


def prepare_many(call: Call, directories: Sequence[ManyRuns]) -> RunMany:
    """Looks whether many runs can be started from here.

    Args:
        call: The call that asks for them.
        directories: Whose they are.

    Raises:
        ValueError: If this is one of several processes, or the runs can't be
            carried out.
    """
    if find_cluster() is not None:
        raise UsageError(
            f"`{call.usage}` must be started once and starts its runs itself, "
            "got one of several processes (TF_CONFIG or Slurm). Start it "
            "outside of them."
        )
    with quiet_start(call.arguments):
        gpus = tf.config.list_physical_devices("GPU")
        if gpus:  # They are for the runs.
            tf.config.set_visible_devices([], "GPU")
        for directory in directories:
            directory.check()
    cores = list(range(threads.num_cores()))
    if hasattr(os, "sched_getaffinity"):
        cores = sorted(os.sched_getaffinity(0))
    cores = cores[: call.given.get("threads")]
    alone = bool(gpus) or tpu_name() is not None
    jobs = call.given.get("jobs") or (1 if alone else len(cores))
    return RunMany(jobs, cores)


def missing(configs: Iterable[str], directory: ManyRuns) -> list[str]:
    """Returns the names of the runs that have come to nothing yet."""
    return [name for name in configs if directory.result(name) is None]


def check_all_done(configs: Iterable[str], directory: ManyRuns) -> None:
    """Raises if runs have come to nothing.

    Args:
        configs: Their names.
        directory: Whose they are.

    Raises:
        RunsFailed: If there are any.
    """
    failed = missing(configs, directory)
    if failed:
        raise RunsFailed(
            f"these runs failed: {', '.join(failed)}. What they said is in "
            f"{directory.directory / 'logs'}. The same command tries them "
            "again."
        )
