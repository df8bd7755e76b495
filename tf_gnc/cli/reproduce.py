"""`tf-gnc reproduce`: a table or a figure of the paper, from its recipes.

One comparison for each row, in a directory of its own; the published values
stand beside ours. A figure is drawn of its rows' runs.
"""

import dataclasses
import functools
import os
from collections.abc import Sequence
from fractions import Fraction

from tf_gnc import _check
from tf_gnc._settings import setting, values_of
from tf_gnc.cli import command, run_many
from tf_gnc.cli.compare import methods_and_seeds, work_of
from tf_gnc.cli.config_flags import ProbeFlags, recording_of
from tf_gnc.cli.progress import Console
from tf_gnc.experiments import RunConfig
from tf_gnc.experiments.compare.plan import Comparison
from tf_gnc.experiments.figures.page import AnalysisFiles, write_analysis
from tf_gnc.experiments.figures.recorded_runs import read_runs
from tf_gnc.experiments.figures.registry import View
from tf_gnc.experiments.recipes import RECIPES, TABLES
from tf_gnc.experiments.recipes.figures import FIGURES, Part
from tf_gnc.experiments.recipes.table_7 import table_7

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
        "A directory for the rows' own. Default: runs/reproduce-<WHAT>.",
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
        return functools.partial(_print_table_7, flags.out_dir)
    parts = _parts(what, flags)
    if flags.list:
        texts = [_describe(part) for part in parts]
        return lambda: print("\n\n".join(texts))
    out_dir = flags.out_dir or f"runs/reproduce-{what}"
    comparisons = {
        row: _comparison(call, flags, part, row, out_dir)
        for part in parts
        for row in part.rows
    }
    work = work_of(call, list(comparisons.values()))
    if what not in FIGURES:
        return work

    def train_and_draw() -> int:
        if code := work():
            return code
        for part in parts:
            _draw(call, part, [comparisons[row] for row in part.rows], out_dir)
        return 0

    return train_and_draw


def build_flags() -> command.FlagSet:
    """Returns the flags of `tf-gnc reproduce`."""
    flag_set = command.FlagSet("tf-gnc reproduce", _SUMMARY, words="WHAT")
    flag_set.add(ReproduceFlags)
    flag_set.add(RunConfig, *_FIELDS, "threads")
    flag_set.add(ProbeFlags)
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
    asked = recording_of(call.given)
    own = part.recording(plan)
    recording = dataclasses.replace(
        own,
        measures=[*dict.fromkeys([*own.measures, *asked.measures])],
        every=asked.every or own.every,
        around=asked.around or own.around,
    )
    return Comparison(plan, os.path.join(out_dir, row), recording)


def _draw(
    call: command.Call,
    part: Part,
    comparisons: Sequence[Comparison],
    out_dir: str,
) -> None:
    """Draws a part of a figure."""
    runs = read_runs(c.run_dir(name) for c in comparisons for name in c.configs)
    around = comparisons[0].recording.around
    directories = [run.directory for run in runs]
    files = AnalysisFiles(
        os.path.join(out_dir, "figures", part.name), directories
    )
    names, absent = write_analysis(
        runs, files, View(around=around or None), call.line, part.drawings
    )
    Console().say_files(names, files.directory)
    if absent:
        raise ValueError(
            f"not drawn, since nothing was recorded: {', '.join(absent)}. "
            "Were the runs' probe.jsonl removed?"
        )


def _print_table_7(out_dir: str | None) -> None:
    row = "imagenet-32768"
    directory = os.path.join(out_dir or "runs/reproduce-table2", row)
    plan = RECIPES[row].plan()
    print(table_7(Comparison(plan, directory), RECIPES[row].command).to_text())


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
