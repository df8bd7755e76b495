"""`tf-gnc reproduce`: a table of the paper from its recipes.

One comparison for each row, in a directory of its own; the published values
stand beside ours. Here are only the flags.
"""

import os
from collections.abc import Mapping
from fractions import Fraction
from typing import Any

from tf_gnc.cli.command import Call, Command, FlagSet, UsageError, Work
from tf_gnc.cli.compare import parse_seeds, work_of
from tf_gnc.cli.run_many import define_jobs
from tf_gnc.experiments.compare.plan import Comparison
from tf_gnc.experiments.recipes import RECIPES, TABLES
from tf_gnc.models import MODELS

_USAGE = "tf-gnc reproduce"
_SUMMARY = (
    "Runs rows of a table from their recipes and sets the published values "
    f"beside ours. TABLE is {', '.join(TABLES)}; --list shows what they hold, "
    "with cost and published numbers. Killed and started again, it goes on "
    "where it was."
)


def _prepare(call: Call) -> Work:
    given, words = call.given, call.words
    if len(words) > 1:
        raise UsageError(
            f"only one table can be run at a time, got {', '.join(words)}. "
            "Run the command once for each."
        )
    table = words[0] if words else None
    if given.get("list"):
        headers = [RECIPES[name].header() for name in _rows(table, given)]
        return lambda: print("\n\n".join(headers))
    return work_of(call, _comparisons(table, given))


def build_flags() -> FlagSet:
    """Returns the flags of `tf-gnc reproduce`."""
    flag_set = FlagSet(_USAGE, _SUMMARY, words="TABLE")
    with flag_set.group("What"):
        flag_set.text("rows", "With commas between them. Default: all.")
        flag_set.text("methods", "Some of the recipe's. Default: all.")
        flag_set.text(
            "seeds",
            "How many, or the seeds themselves with commas. Default: the "
            "recipe's.",
        )
        flag_set.text(
            "scale",
            "Share of the epochs, as in 0.1 or 1/10, or `debug`: a few steps "
            "with tiny batches. Default: 1.",
        )
        flag_set.choice("model", MODELS, "Another network.", None)
        flag_set.switch("list", "Only say what there is.", False)
    with flag_set.group("How"):
        flag_set.text("data_dir", "Where prepared data sets lie.")
        flag_set.switch("download", "Download what isn't there.", False)
        define_jobs(flag_set)
        flag_set.integer("threads", "Cores to use. Default: all.", minimum=1)
        flag_set.text(
            "out_dir",
            "A directory for the rows' own. Default: runs/reproduce-<table>.",
        )
        flag_set.switch("verbose", "Show tracebacks of errors.", False)
    return flag_set


def _rows(table: str | None, given: Mapping[str, Any]) -> list[str]:
    """Returns the names of the recipes that are asked for."""
    if table is None and given.get("list"):
        table_rows = list(RECIPES)
    elif table in TABLES:
        table_rows = list(TABLES[table])
    else:
        raise UsageError(
            f"a table must be named, one of {', '.join(TABLES)}, got "
            f"{table!r}. `{_USAGE} --list` says what they hold."
        )
    if "rows" not in given:
        return table_rows
    rows = [row.strip() for row in given["rows"].split(",")]
    for row in rows:
        if row not in table_rows:
            raise UsageError(
                f"--rows must be some of {', '.join(table_rows)}, got {row!r}."
            )
    return list(dict.fromkeys(rows))


def _comparisons(
    table: str | None, given: Mapping[str, Any]
) -> list[Comparison]:
    """Returns one comparison for each row."""
    rows = _rows(table, given)
    out_dir = given.get("out_dir") or f"runs/reproduce-{table}"
    chosen = {
        name: given[name]
        for name in ("data_dir", "download", "model")
        if name in given
    }
    seeds = parse_seeds(given["seeds"]) if "seeds" in given else None
    methods = given.get("methods")
    if methods is not None:
        methods = [method.strip() for method in methods.split(",")]
    comparisons = []
    for row in rows:
        recipe, scale = RECIPES[row], 1.0
        if given.get("scale") == "debug":
            recipe = recipe.debug()
        elif "scale" in given:
            scale = _share(given["scale"])
        plan = recipe.plan(methods, seeds, scale=scale, **chosen)
        comparisons.append(Comparison(plan, os.path.join(out_dir, row)))
    return comparisons


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
