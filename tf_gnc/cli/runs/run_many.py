"""Many runs, each in a process of its own, here or on a Ray cluster.

What `tf-gnc compare`, `reproduce` and `tune` have in common. Knows neither
what is run nor what is made of the results.
"""

import contextlib
import dataclasses
import os
import signal
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import tensorflow as tf

from tf_gnc import _files, threads
from tf_gnc._settings import setting, values_of
from tf_gnc.cli.command import Call, Stopped, UsageError
from tf_gnc.cli.config_flags import chosen_of
from tf_gnc.cli.progress import Console, RunsDisplay
from tf_gnc.cli.runs import child, on_ray
from tf_gnc.cli.tensorflow_start import quiet_start
from tf_gnc.distribute.environment import find_cluster, tpu_name
from tf_gnc.experiments.config import RunConfig
from tf_gnc.experiments.loggers.run_log import LogTo
from tf_gnc.experiments.run.task import ManyRuns
from tf_gnc.launch.addresses import RESTART_EXIT_CODE
from tf_gnc.launch.pool import Listener, Pool


class RunsFailed(Exception):
    """Some runs have failed; the message says which."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class JobsFlag:
    """Where the runs happen, and how many at a time."""

    on: str = setting(
        "local: in processes of this machine. ray: as tasks of the Ray "
        "cluster that RAY_ADDRESS names, or of one that is started on this "
        "machine; each has a GPU, if there are any, or else --threads CPUs "
        "(1). All nodes must reach --out_dir: a shared disk or a bucket.",
        "local", choices=("local", "ray"), group="This run",
    )  # fmt: skip
    jobs: int | None = setting(
        "Runs side by side; they share the cores. Default: one for each core, "
        "or one if there is a GPU or TPU; on Ray as many as it finds room for.",
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


class _Here(contextlib.AbstractContextManager):
    """This machine; its cores are shared by as many runs as `jobs` says."""

    def __init__(self, cores: Sequence[int], jobs: int) -> None:
        self._cores, self._jobs = cores, jobs

    def __exit__(self, *_: object) -> None:
        """Does nothing."""

    def describe(self) -> str:
        """Returns what the runs have."""
        return f"on {len(self._cores)} cores"

    def run(
        self,
        command: Callable[[str, int], Sequence[str]],
        names: Sequence[str],
        about: _files.AnyPath,
        logs: _files.AnyPath,
        listener: Listener,
    ) -> int | None:
        """Does what `on_ray.Cluster.run` does."""
        jobs = max(1, min(self._jobs, len(names)))
        with _files.local_draft(logs) as log_dir:
            pool = Pool(command, jobs, self._cores, log_dir, listener)
            pool.run(names)
        return pool.stopped_by


def _cores() -> list[int]:
    """Returns the cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(threads.num_cores()))


class RunMany:
    """Starts the runs of a call; raises a ValueError or OSError if it can't."""

    def __init__(self, call: Call, *directories: ManyRuns) -> None:
        self.call, self.console = call, Console()
        log_to = values_of(LogTo, call.given)
        for directory in directories:
            name = directory.directory.name
            directory.log_to = dataclasses.replace(log_to, group=name)
            directory.log_to.check(directory.directory)
        flags = values_of(JobsFlag, call.given)
        on_ray_cluster = flags.on == "ray"
        # Slurm's script may have started the Ray cluster.
        if not on_ray_cluster and find_cluster() is not None:
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
        most, cores = call.given.get("threads"), _cores()
        if on_ray_cluster:
            self._place = on_ray.Cluster(
                len(cores), most, flags.jobs, call.verbose
            )
            return
        alone = bool(gpus) or tpu_name() is not None
        jobs = flags.jobs or (1 if alone else len(cores[:most]))
        self._place = _Here(cores[:most], jobs)

    @contextlib.contextmanager
    def into(
        self, directory: ManyRuns, left: int, amount: str
    ) -> Iterator[RunThem]:
        """Yields what does a directory's runs, and shows how far they are.

        Says first that `left` of `amount` are to do, unless none is. What the
        runs print goes to the folder `logs` of their directory.
        """
        with self._place as place, contextlib.ExitStack() as stack:
            if left:
                self.console.say(
                    f"{left} of {amount} to do, {place.describe()}, in "
                    f"{directory.directory}"
                )
            display = RunsDisplay(self.console, left, directory.describe)
            if self.console.is_terminal:
                stack.enter_context(display)
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

        line = self.call.line
        stopped_by = self._place.run(
            command_line,
            missing(configs, directory),
            directory.path(directory.about),
            directory.path("logs"),
            display,
        )
        if stopped_by:
            interrupted = stopped_by == signal.SIGINT
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
