"""`tf-gnc train`: turns flags into a configuration, and a run into words.

All of what a run does is in tf_gnc.experiments, its flags are in
train_flags.py and measurement_flags.py; here is only what to say and return
when something is wrong.
"""

import functools
import os
from collections.abc import Mapping, Sequence
from typing import Any

import tensorflow as tf
from rich.table import Table

from tf_gnc import _check
from tf_gnc.cli import progress
from tf_gnc.cli.command import (
    Call,
    Command,
    FlagSet,
    Stopped,
    UsageError,
    Work,
)
from tf_gnc.cli.config_flags import build_flags as build_train_flags
from tf_gnc.cli.config_flags import to_fields
from tf_gnc.cli.measurement_flags import (
    MEASUREMENTS,
    define_measurements,
    recording_of,
)
from tf_gnc.cli.tensorflow_start import start_tensorflow
from tf_gnc.experiments import (
    METHODS,
    Placement,
    PreparedRun,
    RunConfig,
    Summary,
    make_config,
    prepare,
    train,
)
from tf_gnc.experiments.recipes import RECIPES
from tf_gnc.launch.addresses import RESTART_EXIT_CODE

# Flags that say where and how, not what to run.
_NOT_CONFIG = (
    "backup", "resume", "run_dir", "strategy", "verbose", *MEASUREMENTS,
)  # fmt: skip

# What can go wrong in a run without anything being wrong in the program.
_FAILURES = (
    FloatingPointError,
    OSError,
    tf.errors.DataLossError,
    tf.errors.ResourceExhaustedError,
)

# What TensorFlow raises if another process of the run has ended.
_LOST = (tf.errors.UnavailableError, tf.errors.AbortedError)


def _prepare(call: Call) -> Work:
    given = call.given
    config = config_of(given)
    save_freq = _save_freq(given.get("backup"))
    recording = recording_of(given)
    strategy = start_tensorflow(
        config.threads, call.verbose, given.get("strategy", "auto")
    )
    # Started again by the launcher, a command goes on where it was.
    again = int(os.environ.get("TF_GNC_RESTART", "0")) > 0
    resume = given.get("resume", False) or again
    placement = Placement(strategy, save_freq, resume, recording)
    prepared = prepare(config, given.get("run_dir"), call.line, placement)
    call.kept = f"What was written is kept in {prepared.workspace.directory}."
    return functools.partial(_train, prepared)


def build_flags() -> FlagSet:
    """Returns the flags of `tf-gnc train`."""
    flag_set = build_train_flags()
    define_measurements(flag_set)
    return flag_set


def config_of(given: Mapping[str, Any]) -> RunConfig:
    """Returns the configuration that the given flags ask for."""
    chosen = to_fields(
        {n: value for n, value in given.items() if n not in _NOT_CONFIG}
    )
    if "recipe" in chosen:
        name = _check.choice("recipe", chosen.pop("recipe"), RECIPES)
        method = chosen.pop("method", RECIPES[name].methods[-1])
        return RECIPES[name].config(method, chosen.pop("seed", 0), **chosen)
    config = make_config(**chosen)
    depends = {name for m in METHODS.values() for name in m.settings}
    idle = depends - set(METHODS[config.method].settings)
    for name in sorted(idle & set(chosen)):
        users = [m for m in METHODS if name in METHODS[m].settings]
        raise UsageError(
            f"--{name} does nothing with --method={config.method}. Leave it "
            f"out, or use --method={'|'.join(users)}."
        )
    return config


def _save_freq(word: str | None) -> str | int | None:
    """Returns what `--backup` asks for."""
    if word in (None, "auto", "epoch"):
        return word or "auto"
    if word == "never":
        return None
    if not word.isdecimal() or not int(word):
        raise UsageError(
            "--backup must be `auto`, `epoch`, `never` or a number of steps, "
            f"got {word!r}."
        )
    return int(word)


def _train(prepared: PreparedRun) -> None:
    """Trains, showing what goes on and what came out."""
    try:
        if prepared.workspace.is_chief:
            _train_and_show(prepared)
        else:
            train(prepared)
    except _LOST as error:
        raise Stopped(
            "the connection to another process is lost", RESTART_EXIT_CODE
        ) from error


def _train_and_show(prepared: PreparedRun) -> None:
    config, files = prepared.config, prepared.files
    console = progress.Console()
    console.say(
        f"{config.dataset}, {config.model}, {config.method}: "
        f"{config.num_workers} workers x {config.examples_per_worker} "
        f"examples, epochs={config.epochs}, "
        f"steps_per_epoch={prepared.steps_per_epoch}"
    )
    with progress.show_progress(console) as callback:
        summary = train(prepared, [callback])
    print_summary(console, summary, str(files.directory), files.names())


def print_summary(
    console: progress.Console,
    summary: Summary,
    run_dir: str,
    files: Sequence[str],
) -> None:
    """Prints the result and the files it is in.

    Args:
        console: Where to print.
        summary: What came out.
        run_dir: Where the files lie.
        files: Their names.
    """
    table = Table.grid(padding=(0, 2))
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    best = progress.percent(summary.best_val_accuracy)
    table.add_row(
        "test accuracy",
        f"[bold]{progress.percent(summary.val_accuracy)}[/bold]  (best {best})",
    )
    table.add_row("training loss", progress.number(summary.train_loss))
    table.add_row(
        "time",
        f"{summary.seconds:.1f} s, {summary.examples_per_second:,.0f} "
        "examples a second",
    )
    if summary.peak_memory_bytes is not None:
        mebibytes = summary.peak_memory_bytes / 2**20
        table.add_row("peak memory", f"{mebibytes:,.0f} MiB")
    table.add_row("files", ", ".join(files))
    console.print(table, highlight=False)
    # By itself and unwrapped, so that it can be copied from a narrow window.
    console.say(f"in {run_dir}")


COMMAND = Command(build_flags, _prepare, _FAILURES)
