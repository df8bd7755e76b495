"""`tf-gnc tune`: carries out a search, and ends with a choice.

What is searched and in which order is in `search`, its flags
are in tune_flags.py; each run is a process of its own, see `child`. Here are
the runs that go on side by side, and what to say and return when something is
wrong.
"""

import shlex
import signal
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import optuna
from rich.console import Console

from tf_gnc.cli import child, errors, run_many, startup
from tf_gnc.cli.command import UsageError
from tf_gnc.cli.compare_progress import Display, show_comparison
from tf_gnc.cli.tune_flags import USAGE, build_flags, search_of
from tf_gnc.distribute.environment import find_cluster
from tf_gnc.experiments.config import RunConfig
from tf_gnc.experiments.tune import report
from tf_gnc.experiments.tune.explore import explore
from tf_gnc.experiments.tune.search import OBJECTIVES, Point
from tf_gnc.experiments.tune.trials import Trial, Tuning
from tf_gnc.launch.addresses import RESTART_EXIT_CODE
from tf_gnc.launch.pool import Pool


class _Stopped(Exception):
    """The search can't go on now; holds the exit code."""


def main(arguments: Sequence[str]) -> int:
    """Runs the subcommand and returns its exit code.

    Args:
        arguments: The words after `tf-gnc tune`.
    """
    flag_set = build_flags()
    if {"-h", "--help", "-help"} & set(arguments):
        print(flag_set.help())
        return 0
    verbose = "--verbose" in arguments
    try:
        given = flag_set.parse(arguments)
        if find_cluster() is not None:
            raise UsageError(
                "a search must be started once and starts its runs itself, "
                "got one of several processes (TF_CONFIG or Slurm). Start it "
                "outside of them."
            )
        search = search_of(given)
        dataset = search.base.dataset.replace(":", "-")
        default = Path("runs", f"tune-{dataset}-{search.base.method}")
        tuning = Tuning(search, given.get("out_dir") or default)
        with startup.quiet_start(arguments):
            accelerated = run_many.hide_accelerators()
            search.check()
    except (ValueError, OSError) as error:
        errors.say(USAGE, error, verbose)
        return 2
    cores = run_many.cores_to_use(given.get("threads"))
    jobs = given.get("jobs") or (1 if accelerated else len(cores))
    command = shlex.join(["tf-gnc", "tune", *arguments])
    try:
        with tuning.claimed(command):
            return _Run(tuning, cores, jobs, command).to_the_end()
    except (ValueError, OSError) as error:
        errors.say(USAGE, error, verbose)
        return 1
    except _Stopped as stopped:
        return stopped.args[0]


class _Run:
    """A search under way: starts what is missing, shows what was found."""

    def __init__(
        self, tuning: Tuning, cores: Sequence[int], jobs: int, command: str
    ) -> None:
        self._tuning, self._search = tuning, tuning.search
        self._cores, self._jobs, self._command = cores, jobs, command
        self._console = Console()
        self._trials: dict[Point, Trial] = {}

    def to_the_end(self) -> int:
        """Searches, and shows what was found; returns the exit code."""
        tuning, search = self._tuning, self._search
        total = search.trials * len(search.seeds)
        left = max(0, total - tuning.num_done())
        if left:
            self._print(
                f"{left} of {total} runs of {search.base.epochs} epochs to do, "
                f"on {len(self._cores)} cores, in {tuning.directory}"
            )
        with show_comparison(self._console, left, tuning.describe) as display:
            explore(
                search,
                self._new_study(),
                lambda points: self._evaluate(points, display),
            )
        return self._show()

    def _new_study(self) -> optuna.Study:
        """Returns a study in a new file: the runs are what is kept."""
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        path = self._tuning.directory / "study.journal"
        for old in (path, path.with_name(f"{path.name}.lock")):
            old.unlink(missing_ok=True)
        backend = optuna.storages.journal.JournalFileBackend(str(path))
        return optuna.create_study(
            storage=optuna.storages.JournalStorage(backend),
            study_name=f"{self._search.base.dataset}-{self._search.kind}",
            direction=OBJECTIVES[self._search.objective],
            sampler=optuna.samplers.TPESampler(
                # At first at random, in one dimension not for long.
                n_startup_trials=min(4, self._search.trials),
                seed=self._search.seeds[0],
            ),
        )

    def _evaluate(
        self, points: Sequence[Point], display: Display
    ) -> list[float | None]:
        """Does the runs that are missing, and returns the objectives."""
        tuning = self._tuning
        runs: dict[str, RunConfig] = {}
        for point in points:
            runs |= self._search.runs(point)
        waiting = [name for name in runs if tuning.result(name) is None]
        if waiting:
            self._start(waiting, runs, display)
        trials = [tuning.trial(point) for point in points]
        self._trials |= dict(zip(points, trials, strict=True))
        return [trial.value(self._search.objective) for trial in trials]

    def _start(
        self,
        waiting: Sequence[str],
        runs: Mapping[str, RunConfig],
        display: Display,
    ) -> None:
        tuning, log_dir = self._tuning, self._tuning.directory / "logs"

        def command_line(name: str, num_cores: int) -> list[str]:
            task = tuning.task(name, runs[name], num_cores, self._command)
            return child.command_line(task)

        jobs = min(self._jobs, len(waiting))
        pool = Pool(command_line, jobs, self._cores, log_dir, display)
        pool.run(waiting)
        if pool.stopped_by:
            print(
                f"\n{USAGE}: stopped. What was done is kept in "
                f"{tuning.directory}; the same command goes on from there.",
                file=sys.stderr,
            )
            interrupted = pool.stopped_by == signal.SIGINT
            raise _Stopped(130 if interrupted else RESTART_EXIT_CODE)
        failed = [name for name in waiting if tuning.result(name) is None]
        if failed:
            print(
                f"{USAGE}: error: {len(failed)} runs failed: "
                f"{', '.join(failed)}. What they said is in {log_dir}. The "
                "same command tries them again.",
                file=sys.stderr,
            )
            raise _Stopped(1)

    def _show(self) -> int:
        """Leaves the files, prints the table and the choice."""
        search, tuning = self._search, self._tuning
        trials = list(self._trials.values())
        warnings = report.warnings(trials, search)
        choice = report.chosen(trials, search)
        tuning.write("tune.csv", report.to_csv(trials, search))
        tuning.write("tune.png", report.draw(trials, search))
        tuning.write_about(
            {
                "command": self._command,
                "results": report.results(trials, search),
                "chosen": choice,
                "warnings": warnings,
            }
        )
        table = report.make_table(trials, search)
        self._print(f"\n{table.to_text()}")
        for warning in warnings:
            self._print(f"Mind: {warning}")
        self._print(
            f"tune.csv, tune.json, tune.png, study.journal\n"
            f"in {tuning.directory}"
        )
        if choice is None:
            print(
                f"{USAGE}: error: all {len(trials)} values diverged. Try a "
                "lower range (--alphas) or a lower --learning_rate, in another "
                "--out_dir.",
                file=sys.stderr,
            )
            return 1
        self._print(f"\nChosen:\n  {choice['flags']}\n  {choice['python']}")
        return 0

    def _print(self, text: str) -> None:
        self._console.print(text, highlight=False, markup=False, soft_wrap=True)
