"""`tf-gnc train`: turns flags into a configuration, and a run into words.

All of what a run does is in tf_gnc.experiments, its flags are in
train_flags.py and measurement_flags.py; here is only what to say and return
when something is wrong.
"""

import os
import shlex
import sys
import traceback
from collections.abc import Mapping, Sequence
from typing import Any

import tensorflow as tf
from rich.console import Console

from tf_gnc import _check
from tf_gnc.cli import errors, progress, startup
from tf_gnc.cli.command import FlagSet, UsageError
from tf_gnc.cli.config_flags import USAGE, to_fields
from tf_gnc.cli.config_flags import build_flags as build_train_flags
from tf_gnc.cli.measurement_flags import (
    MEASUREMENTS,
    define_measurements,
    recording_of,
)
from tf_gnc.experiments import (
    METHODS,
    Placement,
    PreparedRun,
    RunConfig,
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


def main(arguments: Sequence[str]) -> int:
    """Runs the subcommand and returns its exit code.

    Args:
        arguments: The words after `tf-gnc train`.
    """
    flag_set = build_flags()
    if {"-h", "--help", "-help"} & set(arguments):
        print(flag_set.help())
        return 0
    verbose = "--verbose" in arguments
    try:
        given = flag_set.parse(arguments)
        verbose = given.get("verbose", False)
        config = config_of(given)
        save_freq = _save_freq(given.get("backup"))
        recording = recording_of(given)
        strategy = startup.start_tensorflow(
            config.threads, verbose, given.get("strategy", "auto")
        )
        # Started again by the launcher, a command goes on where it was.
        again = int(os.environ.get("TF_GNC_RESTART", "0")) > 0
        resume = given.get("resume", False) or again
        placement = Placement(strategy, save_freq, resume, recording)
        command = shlex.join(["tf-gnc", "train", *arguments])
        prepared = prepare(config, given.get("run_dir"), command, placement)
    except (ValueError, OSError) as error:
        errors.say(USAGE, error, verbose)
        return 2
    kept = f"What was written is kept in {prepared.workspace.directory}."
    try:
        _train(prepared)
    except _FAILURES as error:
        errors.say(USAGE, error, verbose, kept)
        return 1
    except _LOST as error:
        if verbose:
            traceback.print_exception(error)
        print(
            f"{USAGE}: the connection to another process is lost. {kept}",
            file=sys.stderr,
        )
        return RESTART_EXIT_CODE
    except KeyboardInterrupt:
        print(f"\n{USAGE}: interrupted. {kept}", file=sys.stderr)
        return 130
    return 0


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
    if not prepared.workspace.is_chief:
        train(prepared)
        return
    config, files = prepared.config, prepared.files
    console = Console()
    console.print(
        f"{config.dataset}, {config.model}, {config.method}: "
        f"{config.num_workers} workers x {config.examples_per_worker} "
        f"examples, epochs={config.epochs}, "
        f"steps_per_epoch={prepared.steps_per_epoch}",
        highlight=False,
        soft_wrap=True,
    )
    with progress.show_progress(console) as callback:
        summary = train(prepared, [callback])
    progress.print_summary(
        console, summary, str(files.directory), files.names()
    )
