"""`tf-gnc reproduce`: a table of the paper from its recipes.

One comparison for each row, in a directory of its own; the published values
stand beside ours.
"""

import dataclasses
import functools
import os
from collections.abc import Sequence
from fractions import Fraction

from tf_gnc._settings import setting, values_of
from tf_gnc.cli import command, run_many
from tf_gnc.cli.compare import methods_and_seeds, work_of
from tf_gnc.experiments import RunConfig
from tf_gnc.experiments.compare.plan import Comparison
from tf_gnc.experiments.recipes import RECIPES, TABLES

_SUMMARY = (
    "Runs rows of a table from their recipes and sets the published values "
    f"beside ours. TABLE is {', '.join(TABLES)}; --list shows what they hold, "
    "with cost and published numbers. Killed and started again, it goes on "
    "where it was."
)

_what = functools.partial(setting, default=None, group="What")


@dataclasses.dataclass(frozen=True, kw_only=True)
class ReproduceFlags:
    """Which rows, and how much of each."""

    rows: str | None = _what("With commas between them. Default: all.")
    methods: str | None = _what("Some of the recipe's. Default: all.")
    seeds: str | None = _what(
        "How many, or the seeds themselves with commas. Default: the recipe's.",
    )
    scale: str = _what(
        "Share of the epochs, as in 0.1 or 1/10, or `debug`: a few steps "
        "with tiny batches.",
        default="1",
    )
    list: bool = _what("Only say what there is.", default=False)
    out_dir: str | None = _what(
        "A directory for the rows' own. Default: runs/reproduce-<table>.",
    )


# What of a recipe's runs may be changed.
_FIELDS = ("data_dir", "download", "model")


def _prepare(call: command.Call) -> command.Work:
    flags, words = values_of(ReproduceFlags, call.given), call.words
    if len(words) > 1:
        raise command.UsageError(
            f"only one table can be run at a time, got {', '.join(words)}. "
            "Run the command once for each."
        )
    table = words[0] if words else None
    rows = _rows(table, flags)
    if flags.list:
        headers = [RECIPES[name].header() for name in rows]
        return lambda: print("\n\n".join(headers))
    chosen = {n: v for n, v in call.given.items() if n in _FIELDS}
    scale = 1.0 if flags.scale == "debug" else _share(flags.scale)
    comparisons = []
    for row in rows:
        recipe = RECIPES[row]
        if flags.scale == "debug":
            recipe = recipe.debug()
        plan = recipe.plan(
            **methods_and_seeds(call.given), scale=scale, **chosen
        )
        out_dir = flags.out_dir or f"runs/reproduce-{table}"
        comparisons.append(Comparison(plan, os.path.join(out_dir, row)))
    return work_of(call, comparisons)


def build_flags() -> command.FlagSet:
    """Returns the flags of `tf-gnc reproduce`."""
    flag_set = command.FlagSet("tf-gnc reproduce", _SUMMARY, words="TABLE")
    flag_set.add(ReproduceFlags)
    flag_set.add(RunConfig, *_FIELDS, "threads")
    flag_set.add(run_many.JobsFlag)
    flag_set.add(command.VerboseFlag)
    return flag_set


def _rows(table: str | None, flags: ReproduceFlags) -> Sequence[str]:
    """Returns the names of the recipes that are asked for."""
    if table is None and flags.list:
        table_rows = list(RECIPES)
    elif table in TABLES:
        table_rows = list(TABLES[table])
    else:
        raise command.UsageError(
            f"a table must be named, one of {', '.join(TABLES)}, got "
            f"{table!r}. `tf-gnc reproduce --list` says what they hold."
        )
    if flags.rows is None:
        return table_rows
    rows = command.comma_list(flags.rows)
    for row in rows:
        if row not in table_rows:
            raise command.UsageError(
                f"--rows must be some of {', '.join(table_rows)}, got {row!r}."
            )
    return list(dict.fromkeys(rows))


def _share(text: str) -> float:
    """Returns the number that `--scale` asks for."""
    try:
        share = float(Fraction(text) if "/" in text else text)
    except (OverflowError, ValueError, ZeroDivisionError):
        share = 0.0
    if not 0 < share <= 1:
        raise command.UsageError(
            "--scale must be above 0 and at most 1, as in 0.1 or 1/10, or "
            f"`debug`, got {text!r}."
        )
    return share


COMMAND = command.Command(build_flags, _prepare)
