"""`tf-gnc compare`: turns flags into a plan, and runs into a table.

What is compared is in tf_gnc.experiments; each run is a process of its own, see
`run_many`. Here are the flags, and what is said on the way.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tf_gnc import _check
from tf_gnc.cli import train
from tf_gnc.cli.command import Call, Command, FlagSet, UsageError, Work
from tf_gnc.cli.config_flags import to_fields
from tf_gnc.cli.progress import Console, show_runs
from tf_gnc.cli.run_many import (
    HOW,
    RunMany,
    RunsFailed,
    check_all_done,
    define_jobs,
    missing,
    prepare_many,
)
from tf_gnc.experiments.compare.page import to_html
from tf_gnc.experiments.compare.plan import Comparison, Plan, make_plan
from tf_gnc.experiments.compare.statistics import make_columns
from tf_gnc.experiments.compare.table import make_table, to_csv
from tf_gnc.experiments.methods import METHODS
from tf_gnc.experiments.recipes import RECIPES

_USAGE = "tf-gnc compare"
_SUMMARY = (
    "Trains with several methods and seeds and compares the test accuracies. "
    "All runs of a seed start from the same weights and see the same examples "
    "in the same order with the same augmentation. Leaves table.txt, "
    "table.csv, table.md and report.html in a directory, and each run's own "
    "files in its `runs`. Killed and started again, it goes on where it was. "
    "With no flags: four methods and three seeds on handwritten digits."
)

# Flags of `tf-gnc train` that are up to the comparison.
_LEFT_OUT = (
    "backup", "method", "resume", "run_dir", "seed", "strategy",
    *train.MEASUREMENTS,
)  # fmt: skip

# Flags that aren't part of a run's configuration.
_NOT_CONFIG = ("baseline", "methods", "seeds", *HOW)


def _prepare(call: Call) -> Work:
    given = call.given
    plan = _plan(given)
    name = plan.title or plan.runs[0].dataset.replace(":", "-")
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
    """Returns the flags: those of `tf-gnc train` that fit, and its own."""
    flag_set = train.build_flags()
    flag_set.usage, flag_set.summary = _USAGE, _SUMMARY
    flag_set.leave_out(_LEFT_OUT)
    flag_set.values.set_default("deterministic", True)
    with flag_set.group("This comparison"):
        flag_set.text(
            "methods",
            f"With commas between them. Default: {','.join(METHODS)}.",
        )
        flag_set.text(
            "seeds",
            "How many, counted from 0; or the seeds themselves, with commas "
            "(`7,` for only that one). Default: 3.",
        )
        flag_set.text(
            "baseline",
            "The method that the others are compared to. Default: dpsgd, or "
            "the first one if that isn't among them.",
        )
        define_jobs(flag_set)
        flag_set.text(
            "out_dir",
            "A new or empty directory, or that of the same comparison, which "
            "then goes on. Default: runs/compare-<dataset>.",
        )
    return flag_set


def _plan(given: Mapping[str, Any]) -> Plan:
    """Returns the plan that the given flags ask for."""
    chosen = to_fields(
        {n: value for n, value in given.items() if n not in _NOT_CONFIG}
    )
    baseline = given.get("baseline")
    methods, seeds = given.get("methods"), given.get("seeds")
    if methods is not None:
        methods = [method.strip() for method in methods.split(",")]
    if seeds is not None:
        seeds = parse_seeds(seeds)
    if "recipe" in chosen:
        recipe = RECIPES[_check.choice("recipe", chosen.pop("recipe"), RECIPES)]
        return recipe.plan(methods, seeds, baseline, **chosen)
    # Without it a run that was cut short would end a little differently.
    chosen.setdefault("deterministic", True)
    return make_plan(
        methods or list(METHODS), seeds or [0, 1, 2], baseline, **chosen
    )


def parse_seeds(text: str) -> list[int]:
    """Returns the seeds that `--seeds` asks for."""
    words = [word.strip() for word in text.split(",")]
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
    if to_do:
        console.say(
            f"{to_do} of {len(runs)} runs to do, on {len(run_many.cores)} "
            f"cores, in {comparison.directory}"
        )
    with show_runs(console, to_do, comparison.describe) as display:
        run_many(runs, comparison, call.line, display)
    _show_table(console, comparison, call.line)
    check_all_done(runs, comparison)


def _show_table(console: Console, comparison: Comparison, command: str) -> None:
    plan = comparison.plan
    columns = make_columns(plan, comparison.results())
    table = make_table(plan, columns)
    text = table.to_text()
    comparison.write("table.txt", text)
    comparison.write("table.csv", to_csv(plan, columns))
    comparison.write("table.md", table.to_markdown())
    comparison.write("report.html", to_html(plan, columns, table, command))
    console.say(
        f"\n{text}\ntable.txt, table.csv, table.md, report.html\n"
        f"in {comparison.directory}"
    )


COMMAND = Command(build_flags, _prepare)
