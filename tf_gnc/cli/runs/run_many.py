"""Many runs, each in a process of its own, a few of them side by side.

What `tf-gnc compare`, `reproduce` and `tune` have in common. Knows neither
what is run nor what is made of the results.
"""

import contextlib
import dataclasses
import os
import signal
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import tensorflow as tf

from tf_gnc import _files, threads
from tf_gnc._settings import setting, values_of
from tf_gnc.cli.runs import child
from tf_gnc.cli.command import Call, Stopped, UsageError
from tf_gnc.cli.config_flags import chosen_of
from tf_gnc.cli.progress import Console, RunsDisplay
from tf_gnc.cli.tensorflow_start import quiet_start
from tf_gnc.distribute.environment import find_cluster, tpu_name
from tf_gnc.experiments.config import RunConfig
from tf_gnc.experiments.loggers.run_log import LogTo
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


def chosen_for_many(given: Mapping[str, Any]) -> dict[str, Any]:
    """Returns what `chosen_of` does, as it is for one of many runs."""
    # A run that was cut short would else end a little differently.
    chosen = {"deterministic": True, **chosen_of(given)}
    chosen.pop("threads", None)  # For all runs together.
    return chosen


RunThem = Callable[[Mapping[str, RunConfig]], None]
"""Does those runs, by name, that have come to nothing yet."""


class RunMany:
    """Starts the runs of a call; raises a ValueError or OSError if it can't."""

    def __init__(self, call: Call, *directories: ManyRuns) -> None:
        self.call, self.console = call, Console()
        log_to = values_of(LogTo, call.given)
        for directory in directories:
            name = directory.directory.name
            directory.log_to = dataclasses.replace(log_to, group=name)
            directory.log_to.check(directory.directory)
        if find_cluster() is not None:
            raise UsageError(
                f"`{call.usage}` must be started once and starts its runs "
                "itself, got one of several processes (TF_CONFIG or Slurm). "
                "Start it outside of them."
            )
        with quiet_start(call.verbose):
            gpus = tf.config.list_physical_devices("GPU")
            if gpus:  # They are for the runs.
                tf.config.set_visible_devices([], "GPU")
            for directory in directories:
                directory.check()
        cores = list(range(threads.num_cores()))
        if hasattr(os, "sched_getaffinity"):
            cores = sorted(os.sched_getaffinity(0))
        self._cores = cores[: call.given.get("threads")]
        alone = bool(gpus) or tpu_name() is not None
        usual = 1 if alone else len(self._cores)
        self._jobs = call.given.get("jobs") or usual

    @contextlib.contextmanager
    def into(
        self, directory: ManyRuns, left: int, amount: str
    ) -> Iterator[RunThem]:
        """Yields what does a directory's runs, and shows how far they are.

        Says first that `left` of `amount` are to do, unless none is. What the
        runs print goes to the folder `logs` of their directory.
        """
        if left:
            self.console.say(
                f"{left} of {amount} to do, on {len(self._cores)} cores, in "
                f"{directory.directory}"
            )
        display = RunsDisplay(self.console, left, directory.describe)
        drawn = self.console.is_terminal
        with display if drawn else contextlib.nullcontext():
            yield lambda configs: self._run(configs, directory, display)

    def _run(
        self,
        configs: Mapping[str, RunConfig],
        directory: ManyRuns,
        display: RunsDisplay,
    ) -> None:
        def command_line(name: str, num_cores: int) -> list[str]:
            task = directory.task(name, configs[name], num_cores, line)
            return child.command_line(task)

        line, names = self.call.line, missing(configs, directory)
        jobs = max(1, min(self._jobs, len(names)))
        with _files.local_draft(directory.path("logs")) as log_dir:
            pool = Pool(command_line, jobs, self._cores, log_dir, display)
            pool.run(names)
        if pool.stopped_by:
            interrupted = pool.stopped_by == signal.SIGINT
            raise Stopped(
                f"stopped. What was done is kept in {directory.directory}; the "
                "same command goes on from there",
                130 if interrupted else RESTART_EXIT_CODE,
            )


def missing(configs: Iterable[str], directory: ManyRuns) -> list[str]:
    """Returns the names of the runs that have come to nothing yet."""
    return [name for name in configs if directory.result(name) is None]


def check_all_done(configs: Iterable[str], directory: ManyRuns) -> None:
    """Raises `RunsFailed` if some of these runs have come to nothing."""
    failed = missing(configs, directory)
    if failed:
        raise RunsFailed(
            f"these runs failed: {', '.join(failed)}. What they said is in "
            f"{directory.path('logs')}. The same command tries them again."
        )
