"""`tf-gnc tune`: carries out a search, and ends with a choice.

What is searched and in which order is in tf_gnc.experiments.tune, its flags
are in tune_flags.py; each run is a process of its own, see `run_many`. Here is
what is said on the way.
"""

from collections.abc import Sequence
from pathlib import Path

import optuna

from tf_gnc.cli.command import Call, Command, Work
from tf_gnc.cli.progress import Console, RunsDisplay, show_runs
from tf_gnc.cli.run_many import (
    RunMany,
    RunsFailed,
    check_all_done,
    prepare_many,
)
from tf_gnc.cli.tune_flags import build_flags, search_of
from tf_gnc.experiments.config import RunConfig
from tf_gnc.experiments.run.directory import as_file_name
from tf_gnc.experiments.tune import report
from tf_gnc.experiments.tune.explore import explore
from tf_gnc.experiments.tune.search import OBJECTIVES, Point
from tf_gnc.experiments.tune.trials import Trial, Tuning


def _prepare(call: Call) -> Work:
    given = call.given
    search = search_of(given)
    name = as_file_name(f"tune-{search.base.dataset}-{search.base.method}")
    default = Path("runs", name)
    tuning = Tuning(search, given.get("out_dir") or default)
    run_many = prepare_many(call, [tuning])

    def work() -> int:
        with tuning.claimed(call.line):
            return _Run(call, tuning, run_many).to_the_end()

    return work


class _Run:
    """A search under way: starts what is missing, shows what was found."""

    def __init__(self, call: Call, tuning: Tuning, run_many: RunMany) -> None:
        self._call, self._run_many = call, run_many
        self._tuning, self._search = tuning, tuning.search
        self._console = Console()
        self._trials: dict[Point, Trial] = {}

    def to_the_end(self) -> int:
        """Searches, and shows what was found; returns the exit code."""
        tuning, search = self._tuning, self._search
        total = search.trials * len(search.seeds)
        left = max(0, total - tuning.num_done())
        if left:
            self._console.say(
                f"{left} of {total} runs of {search.base.epochs} epochs to do, "
                f"on {len(self._run_many.cores)} cores, in {tuning.directory}"
            )
        with show_runs(self._console, left, tuning.describe) as display:
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
        self, points: Sequence[Point], display: RunsDisplay
    ) -> list[float | None]:
        """Does the runs that are missing, and returns the objectives."""
        tuning = self._tuning
        runs: dict[str, RunConfig] = {}
        for point in points:
            runs |= self._search.runs(point)
        self._run_many(runs, tuning, self._call.line, display)
        check_all_done(runs, tuning)
        trials = [tuning.trial(point) for point in points]
        self._trials |= dict(zip(points, trials, strict=True))
        return [trial.value(self._search.objective) for trial in trials]

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
                "command": self._call.line,
                "results": report.results(trials, search),
                "chosen": choice,
                "warnings": warnings,
            }
        )
        table = report.make_table(trials, search)
        self._console.say(f"\n{table.to_text()}")
        for warning in warnings:
            self._console.say(f"Warning: {warning}")
        self._console.say(
            f"tune.csv, tune.json, tune.png, study.journal\n"
            f"in {tuning.directory}"
        )
        if choice is None:
            self._call.say(
                f"error: all {len(trials)} values diverged. Try a lower range "
                "(--alphas) or a lower --learning_rate, in another --out_dir."
            )
            return 1
        self._console.say(
            f"\nChosen:\n  {choice['flags']}\n  {choice['python']}"
        )
        return 0


COMMAND = Command(build_flags, _prepare, (ValueError, OSError, RunsFailed))
