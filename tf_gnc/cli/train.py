"""`tf-gnc train`: turns flags into a configuration, and a run into words.

All of what a run does is in tf_gnc.experiments; here are only its flags, its
defaults as text, and what to say and return when something is wrong.

Floor 5: may import from all floors.
"""

import os
import shlex
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import tensorflow as tf
from rich.console import Console

from tf_gnc.cli import progress, startup
from tf_gnc.cli.flagset import FlagSet, UsageError
from tf_gnc.distribute.cluster import RESTART_EXIT_CODE
from tf_gnc.distribute.strategies import STRATEGIES
from tf_gnc.experiments import (
    DEFAULTS,
    METHODS,
    Placement,
    PreparedRun,
    RunConfig,
    make_config,
    prepare,
    train,
)
from tf_gnc.experiments.defaults import DatasetDefaults
from tf_gnc.models import MODELS

__all__ = ["build_flags", "main"]

_USAGE = "tf-gnc train"
_SUMMARY = (
    "Trains a model and leaves config.json, metrics.jsonl, summary.json, "
    "curves.png and model.keras in a new directory. With no flags: gradient "
    "noise convolution on handwritten digits that need no download."
)

# Flags that say where and how, not what to run.
_NOT_CONFIG = ("backup", "resume", "run_dir", "strategy", "verbose")

# Where a flag's name isn't the configuration's.
_FIELDS = {"workers": "num_workers"}

# What can go wrong in a run without anything being wrong in the program.
_FAILURES = (FloatingPointError, OSError, tf.errors.ResourceExhaustedError)

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
        config = _config(given)
        save_freq = _save_freq(given.get("backup"))
        strategy = startup.start_tensorflow(
            config.threads, verbose, given.get("strategy", "auto")
        )
        # Started again by the launcher, a command goes on where it was.
        again = int(os.environ.get("TF_GNC_RESTART", "0")) > 0
        placement = Placement(
            strategy, save_freq, given.get("resume", False) or again
        )
        command = shlex.join(["tf-gnc", "train", *arguments])
        prepared = prepare(config, given.get("run_dir"), command, placement)
    except (ValueError, OSError) as error:
        _say(error, verbose)
        return 2
    kept = f"What was written is kept in {prepared.place.directory}."
    try:
        _train(prepared)
    except _FAILURES as error:
        _say(error, verbose, kept)
        return 1
    except _LOST as error:
        if verbose:
            traceback.print_exception(error)
        print(
            f"{_USAGE}: the connection to another process is lost. {kept}",
            file=sys.stderr,
        )
        return RESTART_EXIT_CODE
    except KeyboardInterrupt:
        print(f"\n{_USAGE}: interrupted. {kept}", file=sys.stderr)
        return 130
    return 0


def build_flags() -> FlagSet:
    """Returns the flags of `tf-gnc train`."""
    flag_set = FlagSet(_USAGE, _SUMMARY)
    with flag_set.group("Data"):
        _define_data(flag_set)
    with flag_set.group("Model and method"):
        _define_method(flag_set)
    with flag_set.group("Size of the run"):
        _define_size(flag_set)
    with flag_set.group("Optimizer"):
        _define_optimizer(flag_set)
    with flag_set.group("Noise"):
        _define_noise(flag_set)
    with flag_set.group("This run"):
        _define_run(flag_set)
    # Error messages about a configuration use its own name.
    flag_set.alias("num_workers", "workers")
    return flag_set


def _define_data(flag_set: FlagSet) -> None:
    flag_set.choice("dataset", DEFAULTS, "What to train on.", "digits")
    flag_set.text(
        "data_dir",
        "Where prepared data sets lie. Default: ~/tensorflow_datasets.",
    )
    flag_set.switch(
        "download",
        "Download the data set if it isn't there. The digits never need it.",
        default=False,
    )
    flag_set.switch("augment", "Augment the training pictures.", default=True)


def _define_method(flag_set: FlagSet) -> None:
    flag_set.choice(
        "model", MODELS, "Which network. " + _default(lambda d: d.model), None
    )
    methods = "; ".join(f"{name}: {m.summary}" for name, m in METHODS.items())
    flag_set.choice("method", METHODS, f"What noise. {methods}.", "gnc")


def _define_size(flag_set: FlagSet) -> None:
    small = _per_dataset(lambda d: d.examples_per_worker)
    flag_set.integer(
        "workers",
        "The paper's M, among whom each batch is split. Default: one for "
        f"each {small} examples of the batch.",
        minimum=1,
    )
    flag_set.integer(
        "batch_size",
        "Examples per update, over all workers. "
        + _default(lambda d: d.num_workers * d.examples_per_worker),
        minimum=1,
    )
    flag_set.integer(
        "epochs",
        "Passes over the training data; what is left of it after the last "
        "whole batch waits for the next shuffle. "
        + _default(lambda d: d.epochs),
        minimum=1,
    )


def _define_optimizer(flag_set: FlagSet) -> None:
    base_rate = _per_dataset(lambda d: d.base_rate)
    flag_set.number(
        "learning_rate",
        f"Highest learning rate. Default: {base_rate} for each 128 examples "
        "of the batch.",
    )
    flag_set.number("momentum", "Momentum, 0 to 1.", RunConfig.momentum)
    flag_set.number(
        "weight_decay", "L2 in the gradient, 0 or more.", RunConfig.weight_decay
    )
    flag_set.number(
        "warmup",
        "Fraction of the run during which the rate climbs, 0 to 1.",
        RunConfig.warmup,
    )
    flag_set.switch(
        "decay",
        "Divide the rate by 10 after 1/2 and after 3/4 of the run.",
        RunConfig.decay,
    )


def _define_noise(flag_set: FlagSet) -> None:
    flag_set.number(
        "alpha",
        "Coefficient of the gradient noise, 0 or more. "
        + _default(lambda d: d.alpha),
    )
    flag_set.number(
        "alpha_rnc",
        "Coefficient of the random noise, 0 or more. Default: the paper's, "
        "by data set, method and batch size.",
    )
    flag_set.integer(
        "switch_epoch",
        "Epochs before gnc_to_rnc switches. Default: 3/4 of the run.",
        minimum=1,
    )
    flag_set.number(
        "max_displacement",
        "Bound a filter's displacement by gradient noise to this multiple of "
        "the filter's norm. Default: no bound, as in the paper.",
    )
    flag_set.choice(
        "scaling",
        ("filter", "none"),
        "Whether noise is scaled by each filter's norm.",
        RunConfig.scaling,
    )
    flag_set.switch(
        "include_vectors",
        "Displace biases and batch normalization's vectors too.",
        RunConfig.include_vectors,
    )


def _define_run(flag_set: FlagSet) -> None:
    flag_set.integer(
        "seed",
        "Decides weights, order, augmentation and random noise. Default: 0.",
        minimum=0,
    )
    flag_set.switch(
        "deterministic",
        "Give the same weights, bit for bit, each time.",
        RunConfig.deterministic,
    )
    flag_set.text(
        "run_dir",
        "A new or empty directory for the results. Default: "
        "runs/<dataset>-<method>-<time>.",
    )
    flag_set.text(
        "backup",
        "When to back the run up: `epoch`, a number of steps, `never`, or "
        "`auto`: as epochs end, but not twice within 30 seconds. Default: "
        "auto.",
    )
    flag_set.switch(
        "resume",
        "Take up the run in --run_dir where its last backup is, if there is "
        "one. `tf-gnc launch` asks for it by itself when it starts again.",
        default=False,
    )
    flag_set.choice(
        "strategy",
        STRATEGIES,
        "Which devices to use. auto: several processes where TF_CONFIG or "
        "Slurm say so, else a TPU, else several GPUs, else one device.",
        "auto",
    )
    flag_set.integer("threads", "Cores to use. Default: all.", minimum=1)
    flag_set.switch(
        "verbose",
        "Show TensorFlow's messages, and tracebacks of errors.",
        default=False,
    )


def _config(given: Mapping[str, Any]) -> RunConfig:
    """Returns the configuration that the given flags ask for."""
    chosen = {
        _FIELDS.get(name, name): value
        for name, value in given.items()
        if name not in _NOT_CONFIG
    }
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
    if not prepared.place.is_chief:
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


def _say(error: Exception, verbose: bool, more: str = "") -> None:
    """Prints an error as one line, after its traceback if asked for."""
    if verbose:
        traceback.print_exception(error)
    message = str(error)
    if isinstance(error, OSError) and error.strerror:
        # Without the number that Python puts in front.
        where = f" ({error.filename})" if error.filename else ""
        message = f"{error.strerror}{where}"
    message = f"{message.rstrip('.')}. {more}"
    message = " ".join(message.split())
    print(f"{_USAGE}: error: {message}", file=sys.stderr)


def _default(value: Callable[[DatasetDefaults], Any]) -> str:
    return f"Default: {_per_dataset(value)}."


def _per_dataset(value: Callable[[DatasetDefaults], Any]) -> str:
    """Returns, for instance, "40 (digits), 160 (cifar10, cifar100)"."""
    names: dict[Any, list[str]] = {}
    for name, defaults in DEFAULTS.items():
        names.setdefault(value(defaults), []).append(name)
    if len(names) == 1:
        return str(next(iter(names)))
    return ", ".join(f"{v} ({', '.join(n)})" for v, n in names.items())
