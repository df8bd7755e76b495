"""The flags of `tf-gnc tune`, and the search that they ask for."""

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

from tf_gnc.cli import config_flags
from tf_gnc.cli.command import FlagSet, UsageError
from tf_gnc.cli.compare import parse_seeds
from tf_gnc.cli.run_many import JOBS
from tf_gnc.experiments import RunConfig, make_config
from tf_gnc.experiments.defaults import split
from tf_gnc.experiments.methods import (
    check_method,
    newer_name,
    settings_for,
)
from tf_gnc.experiments.settings import setting
from tf_gnc.experiments.tune.search import (
    KINDS,
    OBJECTIVES,
    Search,
    coefficients,
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

# Where to look, unless somebody says so.
_ALPHAS = {"grid": "1e-3:10:9", "golden": "1e-3:10", "tpe": "1e-3:10"}

# Which part of a data set's usual epochs a short run has.
_SHORT = 4


_search = functools.partial(setting, group="This search")


@dataclasses.dataclass(frozen=True, kw_only=True)
class TuneFlags:
    """Flags that a search has beside those of its runs."""

    search: str = _search(
        "grid: all values. golden: golden section, each run closes in on "
        "the best alpha, if there is a single one. tpe: Optuna's sampler.",
        "grid", choices=KINDS,
    )  # fmt: skip
    alphas: str | None = _search(
        "Which alphas: low:high:number of a logarithmic grid, or a list "
        "with commas; for golden and tpe low:high. Default: 1e-3:10:9.",
        None,
    )
    coefficient: str | None = _search(
        "Which of the method's settings --alphas are: any number. Default: "
        "alpha, or the first one.",
        None,
    )
    learning_rates: str | None = _search(
        "Search these too, with each alpha; written as --alphas. For grid "
        "and tpe.",
        None,
    )
    trials: int | None = _search(
        "How many values to try. Default: 8 for golden, 12 for tpe; a "
        "grid has its own number.",
        None, minimum=1,
    )  # fmt: skip
    objective: str = _search(
        "What decides, after the last epoch. val_ means the examples that "
        "are held out.",
        "val_accuracy", choices=OBJECTIVES,
    )  # fmt: skip
    holdout: float = _search(
        "Share of the training examples that is held out to choose on. 0 "
        "chooses on the test examples, which is choosing on the test set.",
        Search.holdout,
    )
    seeds: str = _search(
        "How many runs for each value, their mean counts: a number, counted "
        "from 0, or the seeds themselves, with commas.",
        "1",
    )
    jobs: int | None = _search(
        JOBS,
        None, minimum=1,
    )  # fmt: skip
    out_dir: str | None = _search(
        "A new or empty directory, or that of the same search, which then "
        "goes on. Default: runs/tune-<dataset>-<method>.",
        None,
    )
    verbose: bool = setting(
        "Show TensorFlow's messages, and tracebacks of errors.",
        False, group="This run",
    )  # fmt: skip


def build_flags() -> FlagSet:
    """Returns the flags: those of a run that fit, and its own."""
    short = config_flags.per_data_set(lambda d: _shortened(d.epochs))
    return config_flags.build(
        USAGE,
        _SUMMARY,
        RunConfig,
        config_flags.OwnFlags,
        TuneFlags,
        without=["seed"],
        words={"deterministic": "on", "epochs": short},
    )


def search_of(given: Mapping[str, Any]) -> Search:
    """Returns the search that the given flags ask for."""
    flags = config_flags.values_of(TuneFlags, given)
    chosen = config_flags.chosen_of(given)
    chosen.pop("threads", None)  # For all runs together.
    # Without it a run that was cut short would end a little differently.
    chosen.setdefault("deterministic", True)
    kind, method = flags.search, chosen.get("method", "gnc")
    check_method("method", method)
    usual = next(iter(coefficients(method)), "alpha")
    coefficient = newer_name(method, flags.coefficient or usual)
    texts = {coefficient: flags.alphas or _ALPHAS[kind]}
    if flags.learning_rates is not None:
        texts["learning_rate"] = flags.learning_rates
    fields, own = split(chosen)
    fixed = fields | settings_for([method], own)[method]
    for name in texts:
        if name in fixed:
            flag = "alphas" if name == coefficient else "learning_rates"
            raise UsageError(
                f"--{name} is what is searched, got --{name}={fixed[name]}. "
                f"Say where to search by --{flag}."
            )
    space = {name: read_values(name, t, kind) for name, t in texts.items()}
    if coefficient in coefficients(method):  # Else `Search` will say so.
        chosen[coefficient] = space[coefficient][0]
    base = make_config(**chosen)
    if "epochs" not in chosen:
        base = make_config(**{**chosen, "epochs": _shortened(base.epochs)})
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
