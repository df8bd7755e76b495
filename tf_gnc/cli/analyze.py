"""`tf-gnc analyze`: figures of what runs have recorded, as PNGs and a page.

Which figures and how they are drawn is in tf_gnc.experiments; here are only
the flags, and what to say and return when something is wrong.
"""

import dataclasses
import functools
from collections.abc import Sequence
from pathlib import Path

import tensorflow as tf

from tf_gnc._settings import setting, values_of
from tf_gnc.callbacks.measures import FULL
from tf_gnc.cli.command import (
    Call,
    Command,
    FlagSet,
    UsageError,
    VerboseFlag,
    Work,
)
from tf_gnc.cli.progress import Console
from tf_gnc.cli.tensorflow_start import start_tensorflow
from tf_gnc.cli.train import measures_of
from tf_gnc.experiments import RunConfig
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


_drawing = functools.partial(setting, group="What to draw")
_measuring = functools.partial(setting, group="What to measure first")


@dataclasses.dataclass(frozen=True, kw_only=True)
class AnalyzeFlags:
    """What to draw, and what to measure first."""

    layer: str | None = _drawing(
        "The weight whose noise's eigenvalues are drawn, such as "
        "stem_conv/kernel. Default: a convolution in the middle.",
        None,
    )
    around: float | None = _drawing(
        "Draw the workers' losses once more, an epoch before and after "
        "this one, as the paper does.",
        None,
    )
    out_dir: str | None = _drawing(
        "A new or empty directory, or that of an analysis of the same "
        "runs, which is drawn anew. Default: RUN/analysis; for several, "
        "`analysis` beside the first one, or beside `runs` if that is "
        "where it lies.",
        None,
    )
    measure: str = _measuring(
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
        "",
    )
    data_dir: str | None = _measuring(
        "Where prepared data sets lie. Default: where they lay when the "
        "run trained.",
        None,
    )


def _prepare(call: Call) -> Work:
    flags, paths = values_of(AnalyzeFlags, call.given), call.words
    measures = measures_of(flags.measure)
    check_measures(measures)
    if not paths:
        raise UsageError(
            "a RUN must be named, the directory of a run, got none. "
            f"`{_USAGE} --help` says more."
        )
    runs = read_runs(paths)
    files = AnalysisFiles(
        _out_dir(runs, flags.out_dir), [run.directory for run in runs]
    )
    view = View(flags.layer, flags.around)
    if measures:
        start_tensorflow(call.given.get("threads"), call.verbose)
        for run in runs:
            find_models(run)

    def work() -> None:
        console, found = Console(), runs
        if measures:
            _measure(console, runs, measures, flags.data_dir)
            found = read_runs(paths)
        _draw(console, found, view, files, call.line)

    return work


def build_flags() -> FlagSet:
    """Returns the flags of `tf-gnc analyze`."""
    flag_set = FlagSet(_USAGE, _SUMMARY, words="RUN [RUN ...]")
    flag_set.add(AnalyzeFlags)
    flag_set.add(RunConfig, "threads")
    flag_set.add(VerboseFlag)
    return flag_set


def _out_dir(runs: Sequence[RecordedRun], chosen: str | None) -> Path:
    if chosen is not None:
        return Path(chosen).expanduser()
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
            console.say(
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
    console.say(f"{', '.join(names)}\nin {files.directory}")
    absent = [name for name in missing(runs, figures) if name not in figures]
    if absent:
        console.say(
            f"Not drawn, since nothing was recorded: {', '.join(absent)}. "
            "index.html says how to record them."
        )


COMMAND = Command(
    build_flags,
    _prepare,
    (ValueError, OSError, tf.errors.ResourceExhaustedError),
)
