"""`tf-gnc analyze`: figures of what runs have recorded, as PNGs and a page."""

import dataclasses
import functools
from collections.abc import Sequence

import tensorflow as tf

from tf_gnc import _files
from tf_gnc._settings import setting, values_of
from tf_gnc.callbacks.measures import FULL
from tf_gnc.cli import command
from tf_gnc.cli.config_flags import epochs_of, measures_of
from tf_gnc.cli.progress import Console
from tf_gnc.cli.tensorflow_start import start_tensorflow
from tf_gnc.experiments import RunConfig
from tf_gnc.experiments.figures.page import AnalysisFiles, write_analysis
from tf_gnc.experiments.figures.recorded_runs import RecordedRun, read_runs
from tf_gnc.experiments.figures.registry import View
from tf_gnc.experiments.run.measure import check_measures, find_models, measure

_SUMMARY = (
    "Draws the paper's figures from what runs have recorded: RUN is the "
    "directory of `tf-gnc train` or one of those in the `runs` of `tf-gnc "
    "compare`; several are drawn together. Leaves a PNG for each figure and a "
    "page with all of them, index.html, which says what is missing and how to "
    "record it: `tf-gnc train --probe=...`."
)

_drawing = functools.partial(setting, default=None, group="What to draw")
_measuring = functools.partial(
    setting, default=None, group="What to measure first"
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class AnalyzeFlags:
    """What to draw, and what to measure first."""

    layer: str | None = _drawing(
        "The weight whose noise's eigenvalues are drawn, such as "
        "stem_conv/kernel. Default: a convolution in the middle.",
    )
    around: str = _drawing(
        "Epochs, with commas between them: draw the workers' losses once more, "
        "an epoch before and after each, as the paper does.",
        default="",
    )
    out_dir: str | None = _drawing(
        "A new or empty directory, or that of an analysis of the same "
        "runs, which is drawn anew. Default: RUN/analysis; for several, "
        "`analysis` beside the first one, or beside `runs` if that is "
        "where it lies.",
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
        default="",
    )
    data_dir: str | None = _measuring(
        "Where prepared data sets lie. Default: where they lay when the "
        "run trained.",
    )


def _prepare(call: command.Call) -> command.Work:
    flags, paths = values_of(AnalyzeFlags, call.given), call.words
    measures = measures_of(flags.measure)
    view = View(flags.layer, epochs_of("around", flags.around) or None)
    check_measures(measures)
    if not paths:
        raise command.UsageError(
            "a RUN must be named, the directory of a run, got none. "
            f"`{call.usage} --help` says more."
        )
    runs = read_runs(paths)
    files = AnalysisFiles(
        _out_dir(runs, flags.out_dir), [run.directory for run in runs]
    )
    if measures:
        start_tensorflow(call.given.get("threads"), call.verbose)
        for run in runs:
            find_models(run)

    def work() -> None:
        console, found = Console(), runs

        def report(label: str, epoch: int, step: int) -> None:
            names = ", ".join(measures)
            console.say(f"{label}: epoch {epoch}, step {step}: {names}")

        if measures:
            for run in runs:
                labelled = functools.partial(report, run.label)
                measure(run, measures, flags.data_dir, labelled)
            found = read_runs(paths)
        names, absent = write_analysis(found, files, view, call.line)
        console.say_files(names, files.directory)
        if absent:
            console.say(
                f"Not drawn, since nothing was recorded: {', '.join(absent)}. "
                "index.html says how to record them."
            )

    return work


def build_flags() -> command.FlagSet:
    """Returns the flags of `tf-gnc analyze`."""
    flag_set = command.FlagSet(
        "tf-gnc analyze", _SUMMARY, words="RUN [RUN ...]"
    )
    flag_set.add(AnalyzeFlags)
    flag_set.add(RunConfig, "threads")
    flag_set.add(command.VerboseFlag)
    return flag_set


def _out_dir(runs: Sequence[RecordedRun], chosen: str | None) -> _files.AnyPath:
    if chosen is not None:
        return _files.as_path(chosen)
    first = runs[0].directory
    if len(runs) == 1:
        return first / "analysis"
    beside = first.resolve().parent
    if beside.name == "runs":  # Only runs are to lie there.
        beside = beside.parent
    return beside / "analysis"


COMMAND = command.Command(
    build_flags,
    _prepare,
    (ValueError, OSError, tf.errors.ResourceExhaustedError),
)
