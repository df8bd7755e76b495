"""`tf-gnc reproduce`: a table of the paper from its recipes.

One comparison for each row, in a directory of its own; the published values
stand beside ours. Here are only the flags.
"""

import dataclasses
import functools
import os
from collections.abc import Sequence
from fractions import Fraction

from tf_gnc._settings import setting, values_of
from tf_gnc.cli.command import (
    Call,
    Command,
    FlagSet,
    UsageError,
    VerboseFlag,
    Work,
    comma_list,
)
from tf_gnc.cli.compare import parse_seeds, work_of
from tf_gnc.cli.run_many import JobsFlag
from tf_gnc.experiments import RunConfig
from tf_gnc.experiments.compare.plan import Comparison
from tf_gnc.experiments.recipes import RECIPES, TABLES

_USAGE = "tf-gnc reproduce"
_SUMMARY = (
    "Runs rows of a table from their recipes and sets the published values "
    f"beside ours. TABLE is {', '.join(TABLES)}; --list shows what they hold, "
    "with cost and published numbers. Killed and started again, it goes on "
    "where it was."
)


_what = functools.partial(setting, group="What")


@dataclasses.dataclass(frozen=True, kw_only=True)
class ReproduceFlags:
    """Which rows, and how much of each."""

    rows: str | None = _what("With commas between them. Default: all.", None)
    methods: str | None = _what("Some of the recipe's. Default: all.", None)
    seeds: str | None = _what(
        "How many, or the seeds themselves with commas. Default: the recipe's.",
        None,
    )
    scale: str = _what(
        "Share of the epochs, as in 0.1 or 1/10, or `debug`: a few steps "
        "with tiny batches.",
        "1",
    )
    list: bool = _what("Only say what there is.", False)
    out_dir: str | None = _what(
        "A directory for the rows' own. Default: runs/reproduce-<table>.",
        None,
    )


# What of a recipe's runs may be changed.
_FIELDS = ("data_dir", "download", "model")


def _prepare(call: Call) -> Work:
    flags, words = values_of(ReproduceFlags, call.given), call.words
    if len(words) > 1:
        raise UsageError(
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
            None if flags.methods is None else comma_list(flags.methods),
            None if flags.seeds is None else parse_seeds(flags.seeds),
            scale=scale,
            **chosen,
        )
        out_dir = flags.out_dir or f"runs/reproduce-{table}"
        comparisons.append(Comparison(plan, os.path.join(out_dir, row)))
    return work_of(call, comparisons)


def build_flags() -> FlagSet:
    """Returns the flags of `tf-gnc reproduce`."""
    flag_set = FlagSet(_USAGE, _SUMMARY, words="TABLE")
    flag_set.add(ReproduceFlags)
    flag_set.add(RunConfig, *_FIELDS, "threads")
    flag_set.add(JobsFlag)
    flag_set.add(VerboseFlag)
    return flag_set


def _rows(table: str | None, flags: ReproduceFlags) -> Sequence[str]:
    """Returns the names of the recipes that are asked for."""
    if table is None and flags.list:
        table_rows = list(RECIPES)
    elif table in TABLES:
        table_rows = list(TABLES[table])
    else:
        raise UsageError(
            f"a table must be named, one of {', '.join(TABLES)}, got "
            f"{table!r}. `{_USAGE} --list` says what they hold."
        )
    if flags.rows is None:
        return table_rows
    rows = comma_list(flags.rows)
    for row in rows:
        if row not in table_rows:
            raise UsageError(
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
        raise UsageError(
            "--scale must be above 0 and at most 1, as in 0.1 or 1/10, or "
            f"`debug`, got {text!r}."
        )
    return share


COMMAND = Command(build_flags, _prepare)
