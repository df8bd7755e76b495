"""`tf-gnc compare`: turns flags into a plan, and runs into a table.

What is compared is in tf_gnc.experiments; each run is a process of its own, see
`run_many`. Here are the flags, and what is said on the way.
"""

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tf_gnc import _check, _files
from tf_gnc._settings import setting
from tf_gnc.cli import config_flags
from tf_gnc.cli.command import (
    Call,
    Command,
    FlagSet,
    UsageError,
    Work,
    comma_list,
)
from tf_gnc.cli.progress import Console
from tf_gnc.cli.run_many import (
    JobsFlag,
    RunMany,
    RunsFailed,
    check_all_done,
    missing,
    prepare_many,
)
from tf_gnc.experiments.compare.page import to_html
from tf_gnc.experiments.compare.plan import Comparison, Plan, make_plan
from tf_gnc.experiments.compare.statistics import make_columns
from tf_gnc.experiments.compare.table import make_table, to_csv
from tf_gnc.experiments.config import RunConfig
from tf_gnc.experiments.methods.registry import PAPER_METHODS
from tf_gnc.experiments.recipes import RECIPES
from tf_gnc.experiments.run.directory import as_file_name

_USAGE = "tf-gnc compare"
_SUMMARY = (
    "Trains with several methods and seeds and compares the test accuracies. "
    "All runs of a seed start from the same weights and see the same examples "
    "in the same order with the same augmentation. Leaves table.txt, "
    "table.csv, table.md and report.html in a directory, and each run's own "
    "files in its `runs`. Killed and started again, it goes on where it was. "
    "With no flags: four methods and three seeds on handwritten digits."
)


_comparison = functools.partial(setting, group="This comparison")


@dataclasses.dataclass(frozen=True, kw_only=True)
class CompareFlags:
    """Flags that a comparison has beside those of its runs."""

    methods: str | None = _comparison(
        "With commas between them. Default: "
        f"{','.join(PAPER_METHODS)}. What --method of `tf-gnc train` takes, "
        "module:function too.",
        None,
    )
    seeds: str = _comparison(
        "How many, counted from 0; or the seeds themselves, with commas "
        "(`7,` for only that one).",
        "3",
    )
    baseline: str | None = _comparison(
        "The method that the others are compared to. Default: dpsgd, or "
        "the first one if that isn't among them.",
        None,
    )
    out_dir: str | None = _comparison(
        "A new or empty directory, or that of the same comparison, which "
        "then goes on. Default: runs/compare-<dataset>.",
        None,
    )


def _prepare(call: Call) -> Work:
    given = call.given
    plan = _plan(given)
    name = plan.title or as_file_name(plan.runs[0].dataset)
    out_dir = given.get("out_dir") or Path("runs", f"compare-{name}")
    return work_of(call, [Comparison(plan, out_dir)])


def work_of(call: Call, comparisons: Sequence[Comparison]) -> Work:
    """Returns the work that does one comparison after another.

    Args:
        call: The call that asks for them.
        comparisons: What to do; `tf-gnc reproduce` has several.

    Raises:
        ValueError: If they can't be carried out.
    """
    run_many = prepare_many(call, comparisons)

    def work() -> int:
        code = 0
        for comparison in comparisons:
            try:
                with comparison.claimed(call.line):
                    _compare(call, comparison, run_many)
            except (ValueError, OSError, RunsFailed) as error:
                call.say_error(error)
                code = 1
        return code

    return work


def build_flags() -> FlagSet:
    """Returns the flags: those of a run that fit, and its own."""
    return config_flags.build(
        _USAGE,
        _SUMMARY,
        config_flags.RecipeFlag,
        RunConfig,
        config_flags.OwnFlags,
        CompareFlags,
        JobsFlag,
        without=("method", "seed"),
        words={"deterministic": "on"},
    )


def _plan(given: Mapping[str, Any]) -> Plan:
    """Returns the plan that the given flags ask for."""
    chosen = config_flags.chosen_of(given)
    chosen.pop("threads", None)  # For all runs together.
    baseline = given.get("baseline")
    methods, seeds = given.get("methods"), given.get("seeds")
    if methods is not None:
        methods = comma_list(methods)
    if seeds is not None:
        seeds = parse_seeds(seeds)
    if "recipe" in given:
        recipe = RECIPES[_check.choice("recipe", given["recipe"], RECIPES)]
        return recipe.plan(methods, seeds, baseline, **chosen)
    # Without it a run that was cut short would end a little differently.
    chosen.setdefault("deterministic", True)
    return make_plan(
        methods or PAPER_METHODS, seeds or [0, 1, 2], baseline, **chosen
    )


def parse_seeds(text: str) -> list[int]:
    """Returns the seeds that `--seeds` asks for."""
    words = comma_list(text)
    if len(words) > 1 and not words[-1]:
        words.pop()
    numbers = [int(w) for w in words if w.isascii() and w.isdecimal()]
    if len(numbers) < len(words) or numbers == [0] and "," not in text:
        raise UsageError(
            "--seeds must be a number of seeds, 1 or more, or several seeds "
            f"with commas between them, got {text!r}. Write, for instance, "
            "--seeds=3 or --seeds=0,1,2."
        )
    return numbers if "," in text else list(range(numbers[0]))


def _compare(call: Call, comparison: Comparison, run_many: RunMany) -> None:
    """Does what is still to do and shows the table."""
    console, runs = Console(), comparison.configs
    to_do = len(missing(runs, comparison))
    amount = f"{to_do} of {len(runs)} runs"
    with run_many.show(console, to_do, amount, comparison) as display:
        run_many(runs, comparison, call.line, display)
    _show_table(console, comparison, call.line)
    check_all_done(runs, comparison)


def _show_table(console: Console, comparison: Comparison, command: str) -> None:
    plan = comparison.plan
    columns = make_columns(plan, comparison.results())
    table = make_table(plan, columns)
    text = table.to_text()
    written = {
        "table.txt": text,
        "table.csv": to_csv(plan, columns),
        "table.md": table.to_markdown(),
        "report.html": to_html(plan, columns, table, command),
    }
    for name, content in written.items():
        _files.write(comparison.path(name), content)
    console.say(f"\n{text}\n{', '.join(written)}\nin {comparison.directory}")


COMMAND = Command(build_flags, _prepare)
