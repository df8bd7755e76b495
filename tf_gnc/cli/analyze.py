"""`tf-gnc analyze`: figures of what runs have recorded, as PNGs and a page.

Which figures and how they are drawn is in tf_gnc.experiments; here are only
the flags, and what to say and return when something is wrong.
"""

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import tensorflow as tf
from rich.console import Console

from tf_gnc.callbacks.measures import FULL
from tf_gnc.cli import errors, startup
from tf_gnc.cli.command import FlagSet, UsageError
from tf_gnc.cli.measurement_flags import measures_of
from tf_gnc.experiments.figures.page import AnalysisFiles, missing, to_html
from tf_gnc.experiments.figures.recorded_runs import RecordedRun, read_runs
from tf_gnc.experiments.figures.registry import View, draw_all
from tf_gnc.experiments.run.measure import check_measures, find_models, measure

_USAGE = "tf-gnc analyze"
_SUMMARY = (
    "Draws the paper's figures from what runs have recorded: RUN is the "
    "directory of `tf-gnc train` or one of those in the `runs` of `tf-gnc "
    "compare`; several are drawn together. Leaves a PNG for each figure and a "
    "page with all of them, index.html, which says what is missing and how to "
    "record it: `tf-gnc train --probe=...`."
)


def main(arguments: Sequence[str]) -> int:
    """Runs the subcommand and returns its exit code.

    Args:
        arguments: The words after `tf-gnc analyze`.
    """
    flag_set = build_flags()
    if {"-h", "--help", "-help"} & set(arguments):
        print(flag_set.help().replace("[--flags]", "RUN [RUN ...] [--flags]"))
        return 0
    verbose = "--verbose" in arguments
    try:
        words, paths = _split(flag_set, arguments)
        given = flag_set.parse(words)
        measures = measures_of(given.get("measure", ""))
        check_measures(measures)
        if not paths:
            raise UsageError(
                "a RUN must be named, the directory of a run, got none. "
                f"`{_USAGE} --help` says more."
            )
        runs = read_runs(paths)
        files = AnalysisFiles(
            _out_dir(runs, given), [run.directory for run in runs]
        )
        view = View(given.get("layer"), given.get("around"))
        if measures:
            startup.start_tensorflow(given.get("threads"), verbose)
            for run in runs:
                find_models(run)
    except (ValueError, OSError) as error:
        errors.say(_USAGE, error, verbose)
        return 2
    console = Console()
    try:
        if measures:
            _measure(console, runs, measures, given.get("data_dir"))
            runs = read_runs(paths)
        command = shlex.join(["tf-gnc", "analyze", *arguments])
        _draw(console, runs, view, files, command)
    except (ValueError, OSError, tf.errors.ResourceExhaustedError) as error:
        errors.say(_USAGE, error, verbose)
        return 1
    return 0


def build_flags() -> FlagSet:
    """Returns the flags of `tf-gnc analyze`."""
    flag_set = FlagSet(_USAGE, _SUMMARY)
    with flag_set.group("What to draw"):
        flag_set.text(
            "layer",
            "The weight whose noise's eigenvalues are drawn, such as "
            "stem_conv/kernel. Default: a convolution in the middle.",
        )
        flag_set.number(
            "around",
            "Draw the workers' losses once more, an epoch before and after "
            "this one, as the paper does.",
        )
        flag_set.text(
            "out_dir",
            "A new or empty directory, or that of an analysis of the same "
            "runs, which is drawn anew. Default: RUN/analysis; for several, "
            "`analysis` beside the first one, or beside `runs` if that is "
            "where it lies.",
        )
    with flag_set.group("What to measure first"):
        flag_set.text(
            "measure",
            f"With commas between them: {', '.join(FULL)}. Measures all "
            "models that a run has kept, those of `tf-gnc train "
            "--checkpoint_every=EPOCHS` and the one at its end, with the batch "
            "and the data that --probe takes, and keeps the rows in "
            "RUN/analysis/measured.jsonl. No model holds the workers' "
            "gradients that make the noise of GNC: they are computed anew, on "
            "the batch of the step before, at the model's own weights, so that "
            "GNC's numbers come close to those of --probe and aren't the same: "
            "while weights move fast, condition numbers by a factor of two. "
            "Where a step was recorded too, the record is drawn.",
        )
        flag_set.text(
            "data_dir",
            "Where prepared data sets lie. Default: where they lay when the "
            "run trained.",
        )
        flag_set.integer("threads", "Cores to use. Default: all.", minimum=1)
    with flag_set.group("Messages"):
        flag_set.switch(
            "verbose",
            "Show TensorFlow's messages, and tracebacks of errors.",
            default=False,
        )
    return flag_set


def _split(
    flag_set: FlagSet, arguments: Sequence[str]
) -> tuple[list[str], list[str]]:
    """Returns the words that are flags, or their values, and the others."""
    words, paths = [], []
    value_follows = False
    for word in arguments:
        if not value_follows and not word.startswith("-"):
            paths.append(word)
            continue
        words.append(word)
        name = word.lstrip("-")
        value_follows = (
            not value_follows
            and name in flag_set.values
            and not flag_set.values[name].boolean
        )
    return words, paths


def _out_dir(runs: Sequence[RecordedRun], given: Mapping[str, Any]) -> Path:
    if "out_dir" in given:
        return Path(given["out_dir"]).expanduser()
    first = runs[0].directory
    if len(runs) == 1:
        return first / "analysis"
    beside = first.resolve().parent
    if beside.name == "runs":  # Only runs are to lie there.
        beside = beside.parent
    return beside / "analysis"


def _measure(
    console: Console,
    runs: Sequence[RecordedRun],
    measures: Sequence[str],
    data_dir: str | None,
) -> None:
    for run in runs:

        def report(epoch: int, step: int, label: str = run.label) -> None:
            _print(
                console,
                f"{label}: epoch {epoch}, step {step}: {', '.join(measures)}",
            )

        measure(run, measures, data_dir, report)


def _draw(
    console: Console,
    runs: Sequence[RecordedRun],
    view: View,
    files: AnalysisFiles,
    command: str,
) -> None:
    figures = draw_all(runs, view)
    names = files.write(figures, to_html(runs, figures, command), command)
    _print(console, f"{', '.join(names)}\nin {files.directory}")
    absent = [name for name in missing(runs, figures) if name not in figures]
    if absent:
        _print(
            console,
            f"Not drawn for want of data: {', '.join(absent)}; index.html "
            "says how to record them.",
        )


def _print(console: Console, text: str) -> None:
    console.print(text, highlight=False, markup=False, soft_wrap=True)
