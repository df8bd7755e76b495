"""`tf-gnc tune`: turns flags into a search, and runs it to a choice."""

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import optuna

from tf_gnc import _files
from tf_gnc._settings import setting, values_of
from tf_gnc.cli import command, config_flags
from tf_gnc.cli.compare import parse_seeds
from tf_gnc.cli.runs import run_many
from tf_gnc.experiments import RunConfig, make_config
from tf_gnc.experiments.compare.table import csv_of
from tf_gnc.experiments.defaults import split
from tf_gnc.experiments.loggers.run_log import LogTo
from tf_gnc.experiments.methods.registry import (
    check_method,
    names_of_settings,
    settings_for,
)
from tf_gnc.experiments.run.directory import as_file_name
from tf_gnc.experiments.tune import report
from tf_gnc.experiments.tune.explore import explore
from tf_gnc.experiments.tune.search import (
    KINDS,
    OBJECTIVES,
    Point,
    Search,
    coefficients,
    flag_of,
    read_values,
)
from tf_gnc.experiments.tune.trials import Trial, Tuning

_SUMMARY = (
    "Searches alpha, and the learning rate if asked to, on short runs: one for "
    "each value, all from the same weights and with the same examples. The "
    "choice is made on part of the training examples, held out, and not on the "
    "test examples; with --holdout=0 it is made on those, and the chosen "
    "value's test accuracy is too high. What is best in short runs need not be "
    "best in long ones. Leaves tune.csv, tune.json, tune.png and Optuna's "
    "study.journal in a directory, and each run's own files in its `runs`. "
    "Killed and started again, it goes on where it was. "
    "With no flags: nine values for GNC on handwritten digits."
)

# Where to look, unless somebody says so.
_ALPHAS = {"grid": "1e-3:10:9", "golden": "1e-3:10", "tpe": "1e-3:10"}

# Which part of a data set's usual epochs a short run has.
_SHORT = 4


_search = functools.partial(setting, default=None, group="This search")


@dataclasses.dataclass(frozen=True, kw_only=True)
class TuneFlags:
    """Flags that a search has beside those of its runs."""

    search: str = _search(
        "grid: all values. golden: golden section, each run closes in on "
        "the best alpha, if there is a single one. tpe: Optuna's sampler.",
        default="grid", choices=KINDS,
    )  # fmt: skip
    alphas: str | None = _search(
        "Which alphas: low:high:number of a logarithmic grid, or a list "
        "with commas; for golden and tpe low:high. Default: 1e-3:10:9.",
    )
    coefficient: str | None = _search(
        "Which of the method's settings --alphas are: any number. Default: "
        "alpha, or the first one.",
    )
    learning_rates: str | None = _search(
        "Search these too, with each alpha; written as --alphas. For grid "
        "and tpe.",
    )
    trials: int | None = _search(
        "How many values to try. Default: 8 for golden, 12 for tpe; a "
        "grid has its own number.",
        minimum=1,
    )  # fmt: skip
    objective: str = _search(
        "What decides, after the last epoch. val_ means the examples that "
        "are held out.",
        default="val_accuracy", choices=OBJECTIVES,
    )  # fmt: skip
    holdout: float = _search(
        "Share of the training examples that is held out to choose on. 0 "
        "chooses on the test examples, which is choosing on the test set.",
        default=Search.holdout,
    )
    seeds: str = _search(
        "Seeds to try each value with; their mean counts. How many, counted "
        "from 0, or the seeds themselves, with commas.",
        default="1",
    )
    out_dir: str | None = _search(
        "A new or empty directory, or that of the same search, which then "
        "goes on. Default: runs/tune-<dataset>-<method>.",
    )


def build_flags() -> command.FlagSet:
    """Returns the flags: those of a run that fit, and its own."""
    return config_flags.build(
        "tf-gnc tune",
        _SUMMARY,
        RunConfig,
        config_flags.OwnFlags,
        TuneFlags,
        LogTo,
        run_many.JobsFlag,
        without=["seed"],
        deterministic="on",
        epochs=config_flags.per_data_set(lambda d: _shortened(d.epochs)),
    )


def search_of(given: Mapping[str, Any]) -> Search:
    """Returns the search that the given flags ask for."""
    flags, chosen = values_of(TuneFlags, given), run_many.chosen_for_many(given)
    kind, method = flags.search, chosen.get("method", "gnc")
    check_method("method", method)
    usual = next(iter(coefficients(method)), "alpha")
    coefficient = flags.coefficient or usual
    coefficient = names_of_settings(method).get(coefficient, coefficient)
    texts = {coefficient: flags.alphas or _ALPHAS[kind]}
    if flags.learning_rates is not None:
        texts["learning_rate"] = flags.learning_rates
    fields, own = split(chosen)
    fixed = fields | settings_for([method], own)[method]
    for name in texts:
        if name in fixed:
            raise command.UsageError(
                f"--{name} is what is searched, got --{name}={fixed[name]}. "
                f"Say where to search by {flag_of(name)}."
            )
    space = {name: read_values(name, t, kind) for name, t in texts.items()}
    if coefficient in coefficients(method):  # Else `Search` will say so.
        chosen[coefficient] = space[coefficient][0]
    base = make_config(**chosen)
    if "epochs" not in chosen:
        base = make_config(**chosen, epochs=_shortened(base.epochs))
    return Search(
        base,
        space,
        seeds=tuple(parse_seeds(flags.seeds)),
        kind=kind,
        trials=flags.trials,
        objective=flags.objective,
        holdout=flags.holdout,
    )


def _shortened(epochs: int) -> int:
    """Returns how many epochs a run of a search has, for the usual ones."""
    return max(2, epochs // _SHORT)


def _prepare(call: command.Call) -> command.Work:
    search = search_of(call.given)
    name = as_file_name(f"tune-{search.base.dataset}-{search.base.method}")
    tuning = Tuning(search, call.given.get("out_dir") or Path("runs", name))
    runner = run_many.RunMany(call, tuning)

    def work() -> int:
        with tuning.claimed(call.line):
            return _show(tuning, _search_through(tuning, runner), runner)

    return work


def _search_through(tuning: Tuning, runner: run_many.RunMany) -> list[Trial]:
    """Does the runs that are missing; returns what was tried, in order."""
    search = tuning.search
    trials: dict[Point, Trial] = {}
    total = search.trials * len(search.seeds)
    left = max(0, total - tuning.num_done())
    amount = f"{total} runs of {search.base.epochs} epochs"
    with runner.into(tuning, left, amount) as run_them:

        def evaluate(points: Sequence[Point]) -> list[float | None]:
            runs: dict[str, RunConfig] = {}
            for point in points:
                runs |= search.runs(point)
            run_them(runs)
            run_many.check_all_done(runs, tuning)
            found = [tuning.trial(point) for point in points]
            trials.update(zip(points, found, strict=True))
            return [trial.value(search.objective) for trial in found]

        path = tuning.path("study.journal")
        with _files.local_draft(path) as local:
            explore(search, _new_study(search, local), evaluate)
    return list(trials.values())


def _new_study(search: Search, path: Path) -> optuna.Study:
    """Returns a study in a new file: the runs are what is kept."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    for old in (path, path.with_name(f"{path.name}.lock")):
        old.unlink(missing_ok=True)
    backend = optuna.storages.journal.JournalFileBackend(str(path))
    return optuna.create_study(
        storage=optuna.storages.JournalStorage(backend),
        study_name=f"{search.base.dataset}-{search.kind}",
        direction=OBJECTIVES[search.objective],
        sampler=optuna.samplers.TPESampler(
            # At first at random, in one dimension not for long.
            n_startup_trials=min(4, search.trials),
            seed=search.seeds[0],
        ),
    )


def _show(
    tuning: Tuning, trials: Sequence[Trial], runner: run_many.RunMany
) -> int:
    """Leaves the files, prints the table and the choice; the exit code."""
    search, call, console = tuning.search, runner.call, runner.console
    warnings = report.warnings(trials, search)
    choice = report.chosen(trials, search)
    results = report.results(trials, search)
    _files.write(tuning.path("tune.csv"), csv_of(results))
    _files.write(tuning.path("tune.png"), report.draw(trials, search))
    tuning.write_about(
        {
            "command": call.line,
            "results": results,
            "chosen": choice,
            "warnings": warnings,
        }
    )
    console.say(f"\n{report.make_table(trials, search).to_text()}")
    for warning in warnings:
        console.say(f"Warning: {warning}")
    files = ("tune.csv", "tune.json", "tune.png", "study.journal")
    console.say_files(files, tuning.directory)
    if choice is None:
        call.say(
            f"error: all {len(trials)} values diverged. Try a lower range "
            "(--alphas) or a lower --learning_rate, in another --out_dir."
        )
        return 1
    console.say(f"\nChosen:\n  {choice['flags']}\n  {choice['python']}")
    return 0


COMMAND = command.Command(
    build_flags, _prepare, (ValueError, OSError, run_many.RunsFailed)
)
