"""The flags of `tf-gnc tune`, and the search that they ask for."""

from collections.abc import Mapping
from typing import Any

from tf_gnc.cli import run_many, train
from tf_gnc.cli.command import FlagSet, UsageError
from tf_gnc.cli.compare import parse_seeds
from tf_gnc.experiments.tune.search import (
    KINDS,
    OBJECTIVES,
    Search,
    read_values,
)

USAGE = "tf-gnc tune"
_SUMMARY = (
    "Searches alpha, and the learning rate if asked to, on short runs: one for "
    "each value, all from the same weights and with the same examples. The "
    "choice is made on part of the training examples, held out, so that the "
    "test examples have no say; with --holdout=0 it is made on the test "
    "examples, and the chosen value's test accuracy flatters. What is best in "
    "short runs need not be best in long ones. Leaves tune.csv, tune.json, "
    "tune.png and Optuna's study.journal in a directory, and each run's own "
    "files in its `runs`. Killed and started again, it goes on where it was. "
    "With no flags: nine values for GNC on handwritten digits."
)

# Flags of `tf-gnc train` that are up to the search.
_LEFT_OUT = (
    "backup", "recipe", "resume", "run_dir", "seed", "strategy",
    *train.MEASUREMENTS,
)  # fmt: skip

# Flags that aren't part of a run's configuration.
_NOT_CONFIG = (
    "alphas", "coefficient", "holdout", "learning_rates", "objective",
    "search", "seeds", "trials", *run_many.HOW,
)  # fmt: skip

# Where to look, unless somebody says so.
_ALPHAS = {"grid": "1e-3:10:9", "golden": "1e-3:10", "tpe": "1e-3:10"}

# Which part of a data set's usual epochs a short run has.
_SHORT = 4


def build_flags() -> FlagSet:
    """Returns the flags: those of `tf-gnc train` that fit, and its own."""
    flag_set = train.build_flags()
    flag_set.usage, flag_set.summary = USAGE, _SUMMARY
    flag_set.leave_out(_LEFT_OUT)
    flag_set.values.set_default("deterministic", True)
    flag_set.values["epochs"].help += " In a search: a quarter of that."
    with flag_set.group("This search"):
        _define_search(flag_set)
        _define_carrying_out(flag_set)
    return flag_set


def _define_search(flag_set: FlagSet) -> None:
    flag_set.choice(
        "search",
        KINDS,
        "grid: all values. golden: golden section, each run closes in on "
        "the best alpha, if there is a single one. tpe: Optuna's sampler.",
        "grid",
    )
    flag_set.text(
        "alphas",
        "Which alphas: low:high:number of a logarithmic grid, or a list "
        "with commas; for golden and tpe low:high. Default: 1e-3:10:9.",
    )
    flag_set.choice(
        "coefficient",
        ("alpha", "alpha_rnc"),
        "Whose coefficient --alphas are: gradient or random noise. "
        "Default: alpha, but alpha_rnc for --method=rnc.",
        None,
    )
    flag_set.text(
        "learning_rates",
        "Search these too, with each alpha; written as --alphas. For grid "
        "and tpe.",
    )
    flag_set.integer(
        "trials",
        "How many values to try. Default: 8 for golden, 12 for tpe; a "
        "grid has its own number.",
        minimum=1,
    )
    flag_set.choice(
        "objective",
        OBJECTIVES,
        "What decides, after the last epoch. val_ means the examples that "
        "are held out.",
        "val_accuracy",
    )
    flag_set.number(
        "holdout",
        "Share of the training examples that is held out to choose on. 0 "
        "chooses on the test examples, which is choosing on the test set.",
        Search.holdout,
    )


def _define_carrying_out(flag_set: FlagSet) -> None:
    flag_set.text(
        "seeds",
        "How many runs for each value, their mean counts: a number, counted "
        "from 0, or the seeds themselves, with commas. Default: 1.",
    )
    run_many.define_jobs(flag_set)
    flag_set.text(
        "out_dir",
        "A new or empty directory, or that of the same search, which then "
        "goes on. Default: runs/tune-<dataset>-<method>.",
    )


def search_of(given: Mapping[str, Any]) -> Search:
    """Returns the search that the given flags ask for."""
    kind = given.get("search", "grid")
    coefficient = given.get("coefficient")
    if coefficient is None:
        coefficient = "alpha_rnc" if given.get("method") == "rnc" else "alpha"
    texts = {coefficient: given.get("alphas", _ALPHAS[kind])}
    if "learning_rates" in given:
        texts["learning_rate"] = given["learning_rates"]
    for name in texts:
        if name in given:
            flag = "alphas" if name == coefficient else "learning_rates"
            raise UsageError(
                f"--{name} is what is searched, got --{name}={given[name]}. "
                f"Say where to search by --{flag}."
            )
    space = {name: read_values(name, t, kind) for name, t in texts.items()}
    chosen = {n: value for n, value in given.items() if n not in _NOT_CONFIG}
    # Without it a run that was cut short would end a little differently.
    chosen.setdefault("deterministic", True)
    base = train.config_of(chosen)
    if "epochs" not in chosen:
        short = max(2, base.epochs // _SHORT)
        base = train.config_of({**chosen, "epochs": short})
    return Search(
        base,
        space,
        seeds=tuple(parse_seeds(given.get("seeds", "1"))),
        kind=kind,
        trials=given.get("trials"),
        objective=given.get("objective", "val_accuracy"),
        holdout=given.get("holdout", Search.holdout),
    )
