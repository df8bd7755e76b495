"""`tf-gnc reproduce`: a table or a figure of the paper, from its recipes.

One comparison for each row, in a directory of its own; the published values
stand beside ours. A figure is drawn of its rows' runs.
"""

import dataclasses
import functools
import os
from collections.abc import Sequence
from fractions import Fraction

from tf_gnc import _check, _files
from tf_gnc._settings import setting, values_of
from tf_gnc.cli import command
from tf_gnc.cli.compare import methods_and_seeds, work_of
from tf_gnc.cli.config_flags import ProbeFlags, asked_of
from tf_gnc.cli.progress import Console
from tf_gnc.cli.runs import run_many
from tf_gnc.experiments import RunConfig
from tf_gnc.experiments.compare.plan import Comparison
from tf_gnc.experiments.figures.page import AnalysisFiles, write_analysis
from tf_gnc.experiments.figures.recorded_runs import read_runs
from tf_gnc.experiments.figures.registry import DRAWINGS, View
from tf_gnc.experiments.loggers.run_log import LogTo
from tf_gnc.experiments.recipes import RECIPES, TABLES
from tf_gnc.experiments.recipes.figures import FIGURES, Part
from tf_gnc.experiments.recipes.table_7 import table_7
from tf_gnc.experiments.run.recording import Recording

_SUMMARY = (
    "Runs rows of a table from their recipes and sets the published values "
    f"beside ours. WHAT is {', '.join(TABLES)}; or table7, which is printed "
    f"and trains nothing; or a figure: {', '.join(FIGURES)}, of one seed, "
    "whose runs are measured as they train, and which is then drawn. --list "
    "shows what they hold, with cost and published numbers. Killed and started "
    "again, it goes on where it was."
)

_what = functools.partial(setting, default=None, group="What")


@dataclasses.dataclass(frozen=True, kw_only=True)
class ReproduceFlags:
    """Which rows, and how much of each."""

    rows: str | None = _what("With commas between them. Default: all.")
    recipe: str | None = _what(
        "Draw a figure of another recipe's runs: `--recipe=digits`. Default: "
        "the paper's.",
    )
    methods: str | None = _what("Some of the recipe's. Default: all.")
    seeds: str | None = _what(
        "How many, or the seeds themselves with commas. Default: the "
        "recipe's; 1 for a figure.",
    )
    scale: str = _what(
        "Share of the epochs, as in 0.1 or 1/10, or `debug`: a few steps "
        "with tiny batches.",
        default="1",
    )
    list: bool = _what("Only say what there is.", default=False)
    out_dir: str | None = _what(
        "A directory for the rows' own. Default: runs/reproduce-<WHAT>; for "
        "table7, where the runs of table2 are: runs/reproduce-table2.",
    )


# What of a recipe's runs may be changed.
_FIELDS = ("data_dir", "download", "model")


def _prepare(call: command.Call) -> command.Work:
    flags, words = values_of(ReproduceFlags, call.given), call.words
    if len(words) > 1:
        raise command.UsageError(
            "only one table or figure can be run at a time, got "
            f"{', '.join(words)}. Run the command once for each."
        )
    what = words[0] if words else None
    if what == "table7":
        return _table_7(flags)
    parts = _parts(what, flags)
    if flags.list:
        texts = [_describe(part) for part in parts]
        if what is None:
            texts.append(f"Figures: {', '.join(FIGURES)}. Printed: table7.")
        return lambda: print("\n\n".join(texts))
    out_dir = flags.out_dir or f"runs/reproduce-{what}"
    comparisons = {
        row: _comparison(call, flags, part, row, out_dir)
        for part in parts
        for row in part.rows
    }
    if what not in FIGURES:
        return work_of(call, list(comparisons.values()))
    drawn = []
    for part in parts:
        own = [comparisons[row] for row in part.rows]
        folder = _files.as_path(out_dir) / "figures" / part.name
        drawn.append((part, own, AnalysisFiles(folder, _run_dirs(own))))
    work = work_of(call, list(comparisons.values()))

    def train_and_draw() -> int:
        if code := work():
            return code
        for part, own, files in drawn:
            _draw(call, part, own, files)
        return 0

    return train_and_draw


def build_flags() -> command.FlagSet:
    """Returns the flags of `tf-gnc reproduce`."""
    flag_set = command.FlagSet("tf-gnc reproduce", _SUMMARY, words="WHAT")
    flag_set.add(ReproduceFlags)
    flag_set.add(RunConfig, *_FIELDS, "threads")
    flag_set.add(ProbeFlags)
    flag_set.add(LogTo)
    flag_set.add(run_many.JobsFlag)
    flag_set.add(command.VerboseFlag)
    return flag_set


def _parts(what: str | None, flags: ReproduceFlags) -> Sequence[Part]:
    """Returns what is asked for; of a table, each row is a part."""
    if what in FIGURES:
        parts = FIGURES[what]
        if flags.recipe is not None:
            recipe = _check.choice("recipe", flags.recipe, RECIPES)
            parts = [parts[0].of(recipe)]
    elif what in TABLES or what is None and flags.list:
        names = RECIPES if what is None else TABLES[what]
        parts = [Part((name,), RECIPES[name].methods, ()) for name in names]
    else:
        raise command.UsageError(
            f"a table or figure must be named, one of {', '.join(TABLES)}, "
            f"table7, {', '.join(FIGURES)}, got {what!r}. `tf-gnc reproduce "
            "--list` says what the tables hold."
        )
    if flags.recipe is not None and what not in FIGURES:
        raise command.UsageError(
            "--recipe stands for the runs of a figure, got "
            f"--recipe={flags.recipe} with {what}. Choose rows with --rows, or "
            f"run `tf-gnc compare --recipe={flags.recipe}`."
        )
    if flags.rows is None:
        return parts
    known = [row for part in parts for row in part.rows]
    rows = dict.fromkeys(command.comma_list(flags.rows))
    for row in rows:
        if row not in known:
            raise command.UsageError(
                f"--rows must be some of {', '.join(known)}, got {row!r}."
            )
    chosen = [[r for r in part.rows if r in rows] for part in parts]
    return [
        dataclasses.replace(part, rows=kept)
        for part, kept in zip(parts, chosen, strict=True)
        if kept
    ]


def _describe(part: Part) -> str:
    """Returns what there is to know of a part before one runs it."""
    headers = [RECIPES[name].header() for name in part.rows]
    if part.drawings:
        measures = ", ".join(part.measures)
        headers.append(
            f"  Drawn:      {', '.join(part.drawings)} of "
            f"{', '.join(part.methods)}\n  Measured:   {measures}"
        )
    return "\n\n".join(headers)


def _comparison(
    call: command.Call,
    flags: ReproduceFlags,
    part: Part,
    row: str,
    out_dir: str,
) -> Comparison:
    """Returns a row's runs, and what is to be measured as they train."""
    recipe, chosen = RECIPES[row], methods_and_seeds(call.given)
    chosen |= {n: v for n, v in call.given.items() if n in _FIELDS}
    if part.drawings:
        chosen = {"methods": part.methods, "seeds": [0], **chosen}
    scale = 1.0 if flags.scale == "debug" else _share(flags.scale)
    if flags.scale == "debug":
        recipe = recipe.debug()
    plan = recipe.plan(scale=scale, **chosen)
    _check_fewest(part, len(plan.runs) * len(part.rows))
    asked = asked_of(call.given)
    recording = Recording(
        [*dict.fromkeys([*part.measures, *asked["measures"]])],
        asked["every"] or part.every,
        around=asked["around"] or part.around_in(plan),
    )
    return Comparison(plan, os.path.join(out_dir, row), recording)


def _check_fewest(part: Part, count: int) -> None:
    """Refuses a figure that so many runs don't make."""
    for name in part.drawings:
        fewest = DRAWINGS[name].fewest
        if count < fewest:
            raise command.UsageError(
                f"the figure {name} compares {fewest} runs or more, got "
                f"{count}. Name more --methods, or leave the flag out."
            )


def _draw(
    call: command.Call,
    part: Part,
    comparisons: Sequence[Comparison],
    files: AnalysisFiles,
) -> None:
    """Draws a part of a figure, of the runs that have recorded anything."""
    directories = _run_dirs(comparisons)
    console = Console()
    silent = [d for d in directories if not (d / "metrics.jsonl").exists()]
    for directory in silent:
        console.say(f"Not drawn, since it diverged at once: {directory}")
    runs = read_runs(d for d in directories if d not in silent)
    around = comparisons[0].recording.around
    names, absent = write_analysis(
        runs, files, View(around=around or None), call.line, part.drawings
    )
    console.say_files(names, files.directory)
    if absent:
        raise ValueError(
            f"not drawn, since nothing was recorded: {', '.join(absent)}. "
            "Were the runs' probe.jsonl removed?"
        )


def _run_dirs(comparisons: Sequence[Comparison]) -> list[_files.AnyPath]:
    return [c.run_dir(name) for c in comparisons for name in c.configs]


def _table_7(flags: ReproduceFlags) -> command.Work:
    """Returns the work of printing table 7, which trains nothing."""
    unused = ("rows", "recipe", "methods", "seeds")
    chosen = [n for n in unused if getattr(flags, n) is not None]
    if chosen or flags.scale != "1":
        raise command.UsageError(
            "table7 is only printed and takes --out_dir alone, got "
            f"--{', --'.join(chosen or ['scale'])}. Leave it out."
        )
    out_dir = flags.out_dir or "runs/reproduce-table2"
    return lambda: print(table_7(_files.as_path(out_dir)).to_text())


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
