"""`tf-gnc compare`: turns flags into a plan, and runs into a table."""

import dataclasses
import functools
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tf_gnc import _files
from tf_gnc._settings import setting
from tf_gnc.cli import command, config_flags
from tf_gnc.cli.runs import run_many
from tf_gnc.experiments.compare.page import to_html
from tf_gnc.experiments.compare.plan import Comparison, Plan, make_plan
from tf_gnc.experiments.compare.statistics import make_columns
from tf_gnc.experiments.compare.table import make_table, to_csv
from tf_gnc.experiments.config import RunConfig
from tf_gnc.experiments.loggers.run_log import LogTo
from tf_gnc.experiments.methods.registry import PAPER_METHODS
from tf_gnc.experiments.run.directory import as_file_name

_SUMMARY = (
    "Trains with several methods and seeds and compares the test accuracies. "
    "All runs of a seed start from the same weights and see the same examples "
    "in the same order with the same augmentation. Leaves table.txt, "
    "table.csv, table.md and report.html in a directory, and each run's own "
    "files in its `runs`. Killed and started again, it goes on where it was. "
    "With no flags: four methods and three seeds on handwritten digits."
)

_comparison = functools.partial(setting, default=None, group="This comparison")


@dataclasses.dataclass(frozen=True, kw_only=True)
class CompareFlags:
    """Flags that a comparison has beside those of its runs."""

    methods: str | None = _comparison(
        "With commas between them. Default: "
        f"{','.join(PAPER_METHODS)}. What --method of `tf-gnc train` takes, "
        "module:function too.",
    )
    seeds: str = _comparison(
        "How many, counted from 0; or the seeds themselves, with commas "
        "(`7,` for only that one).",
        default="3",
    )
    baseline: str | None = _comparison(
        "The method that the others are compared to. Default: dpsgd, or "
        "the first one if that isn't among them.",
    )
    out_dir: str | None = _comparison(
        "A new or empty directory, or that of the same comparison, which "
        "then goes on. Default: runs/compare-<dataset>.",
    )


def _prepare(call: command.Call) -> command.Work:
    given = call.given
    plan = _plan(given)
    name = plan.title or as_file_name(plan.runs[0].dataset)
    out_dir = given.get("out_dir") or Path("runs", f"compare-{name}")
    recording = config_flags.recording_of(given)
    return work_of(call, [Comparison(plan, out_dir, recording)])


def work_of(
    call: command.Call, comparisons: Sequence[Comparison]
) -> command.Work:
    """Returns the work that does one comparison after another."""
    runner = run_many.RunMany(call, *comparisons)

    def work() -> int:
        code = 0
        for comparison in comparisons:
            try:
                with comparison.claimed(call.line):
                    _compare(comparison, runner)
            except (ValueError, OSError, run_many.RunsFailed) as error:
                call.say_error(error)
                code = 1
        return code

    return work


def build_flags() -> command.FlagSet:
    """Returns the flags: those of a run that fit, and its own."""
    return config_flags.build(
        "tf-gnc compare",
        _SUMMARY,
        config_flags.RecipeFlag,
        RunConfig,
        config_flags.OwnFlags,
        config_flags.ProbeFlags,
        CompareFlags,
        LogTo,
        run_many.JobsFlag,
        without=("method", "seed"),
        deterministic="on",
    )


def _plan(given: Mapping[str, Any]) -> Plan:
    """Returns the plan that the given flags ask for."""
    chosen = run_many.chosen_for_many(given)
    own = {"baseline": given.get("baseline"), **methods_and_seeds(given)}
    recipe = config_flags.recipe_of(given)
    if recipe is not None:
        return recipe.plan(**own, **chosen)
    defaults = {
        "methods": PAPER_METHODS,
        "seeds": parse_seeds(CompareFlags.seeds),
    }
    return make_plan(**{**defaults, **own}, **chosen)


def methods_and_seeds(given: Mapping[str, Any]) -> dict[str, Any]:
    """Returns what `--methods` and `--seeds` ask for, if they are given."""
    readers = {"methods": command.comma_list, "seeds": parse_seeds}
    return {n: read(given[n]) for n, read in readers.items() if n in given}


def parse_seeds(text: str) -> list[int]:
    """Returns the seeds that `--seeds` asks for."""
    words = command.comma_list(text)
    if len(words) > 1 and not words[-1]:
        words.pop()
    numbers = [int(w) for w in words if w.isascii() and w.isdecimal()]
    if len(numbers) < len(words) or numbers == [0] and "," not in text:
        raise command.UsageError(
            "--seeds must be a number of seeds, 1 or more, or several seeds "
            f"with commas between them, got {text!r}. Write, for instance, "
            "--seeds=3 or --seeds=0,1,2."
        )
    return numbers if "," in text else list(range(numbers[0]))


def _compare(comparison: Comparison, runner: run_many.RunMany) -> None:
    """Does what is still to do and shows the table."""
    plan, runs = comparison.plan, comparison.configs
    left = len(run_many.missing(runs, comparison))
    with runner.into(comparison, left, f"{len(runs)} runs") as run_them:
        run_them(runs)
    columns = make_columns(plan, comparison.results())
    table = make_table(plan, columns)
    files = {
        "table.txt": table.to_text(),
        "table.csv": to_csv(plan, columns),
        "table.md": table.to_markdown(),
        "report.html": to_html(plan, columns, table, runner.call.line),
    }
    for name, content in files.items():
        _files.write(comparison.path(name), content)
    runner.console.say(f"\n{files['table.txt']}")
    runner.console.say_files(files, comparison.directory)
    if comparison.recording.measures:
        runner.console.say(
            "What was measured: tf-gnc analyze "
            f"{shlex.quote(str(comparison.path('runs')))}/*"
        )
    run_many.check_all_done(runs, comparison)


COMMAND = command.Command(build_flags, _prepare)
