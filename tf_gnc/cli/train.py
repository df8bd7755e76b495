"""`tf-gnc train`: turns flags into a configuration, and a run into words."""

import dataclasses
import functools
import os
from collections.abc import Collection, Mapping
from typing import Any

import tensorflow as tf
from rich.table import Table

from tf_gnc._settings import setting, values_of
from tf_gnc.cli import command, config_flags, dry_run, progress
from tf_gnc.cli.tensorflow_start import start_tensorflow
from tf_gnc.distribute.strategies import STRATEGIES
from tf_gnc.experiments import (
    Placement,
    PreparedRun,
    RunConfig,
    Summary,
    make_config,
    prepare,
    train,
)
from tf_gnc.experiments.loggers.run_log import LogTo
from tf_gnc.launch.addresses import RESTART_EXIT_CODE

_SUMMARY = (
    "Trains a model and leaves config.json, metrics.jsonl, summary.json, "
    "curves.png and model.keras in a new directory. With no flags: gradient "
    "noise convolution on handwritten digits that need no download."
)

# What a run may raise without anything being wrong in the program.
_FAILURES = (
    FloatingPointError,
    OSError,
    tf.errors.DataLossError,
    tf.errors.ResourceExhaustedError,
)

_run = functools.partial(setting, default=None, group="This run")
_measurement = functools.partial(setting, default=None, group="Measurements")


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainFlags:
    """Flags that say where and how, and change nothing in the results."""

    run_dir: str | None = _run(
        "A new or empty directory for the results, also gs://bucket/name or "
        "s3://bucket/name. Default: runs/<dataset>-<method>-<time>.",
    )
    backup: str = _run(
        "When to back the run up: `epoch`, a number of steps, `never`, or "
        "`auto`: as epochs end, but not twice within 30 seconds.",
        default="auto",
    )  # fmt: skip
    backup_required: bool | None = _run(
        "End the run if a backup can't be written, rather than say so and go "
        "on. Default: on a disk yes, in a bucket no.",
    )  # fmt: skip
    resume: bool = _run(
        "Take up the run in --run_dir where its last backup is, if there is "
        "one. `tf-gnc launch` asks for it by itself when it starts again.",
        default=False,
    )  # fmt: skip
    strategy: str = _run(
        "Which devices to use. auto: several processes where TF_CONFIG or "
        "Slurm say so, else a TPU, else several GPUs, else one device.",
        default="auto", choices=STRATEGIES,
    )  # fmt: skip
    logical_devices: int | None = _run(
        "Divide the GPU, or the CPU if there is none, into so many replicas "
        "that run side by side, each with its share of the memory. Default: "
        "undivided.",
        minimum=2,
    )  # fmt: skip
    dry_run: bool = _run(
        "Only print the configuration, each value with where it comes from.",
        default=False,
    )  # fmt: skip
    log_dir: str | None = _measurement(
        "The directory of TensorBoard's files. Default: `tensorboard` in "
        "--run_dir with --log=tensorboard; else nowhere. Without --log it gets "
        "the numbers of --probe by step, and nothing else.",
    )
    checkpoint_every: int | None = _measurement(
        "Keep the whole model each time so many epochs have ended, as "
        "checkpoints/epoch-0010.keras and so on, to be measured "
        "afterwards: `tf-gnc analyze RUN --measure=...`. Default: never.",
        minimum=1,
    )  # fmt: skip

    def save_freq(self) -> str | int | None:
        """Returns when the run is to be backed up, as `Placement` takes it."""
        if self.backup in ("auto", "epoch"):
            return self.backup
        if self.backup == "never":
            return None
        if not self.backup.isdecimal() or not int(self.backup):
            raise command.UsageError(
                "--backup must be `auto`, `epoch`, `never` or a number of "
                f"steps, got {self.backup!r}."
            )
        return int(self.backup)


def _prepare(call: command.Call) -> command.Work:
    flags = values_of(TrainFlags, call.given)
    config = config_of(call.given)
    if flags.dry_run:
        return lambda: print(dry_run.describe(config, call.given))
    save_freq = flags.save_freq()
    log_to = dataclasses.replace(
        values_of(LogTo, call.given), folder=flags.log_dir
    )
    recording = dataclasses.replace(
        config_flags.recording_of(call.given),
        checkpoint_every=flags.checkpoint_every,
        # Else the probes' numbers go there with all others.
        log_dir=None if "tensorboard" in log_to.names else flags.log_dir,
    )
    strategy = start_tensorflow(
        config.threads, call.verbose, flags.strategy, flags.logical_devices
    )
    # Started again by the launcher, a command goes on where it was.
    again = int(os.environ.get("TF_GNC_RESTART", "0")) > 0
    placement = Placement(
        strategy,
        save_freq,
        flags.resume or again,
        recording,
        flags.backup_required,
        log_to,
    )
    prepared = prepare(config, flags.run_dir, call.line, placement)
    call.kept = f"What was written is kept in {prepared.workspace.directory}."
    return functools.partial(_train, prepared)


def build_flags() -> command.FlagSet:
    """Returns the flags of `tf-gnc train`."""
    return config_flags.build(
        "tf-gnc train",
        _SUMMARY,
        config_flags.RecipeFlag,
        RunConfig,
        config_flags.OwnFlags,
        config_flags.ProbeFlags,
        LogTo,
        TrainFlags,
    )


def config_of(given: Mapping[str, Any]) -> RunConfig:
    """Returns the configuration that the given flags ask for."""
    chosen = config_flags.chosen_of(given)
    recipe = config_flags.recipe_of(given)
    if recipe is None:
        return make_config(**chosen)
    return recipe.config(**{"method": recipe.methods[-1], **chosen})


def _train(prepared: PreparedRun) -> None:
    """Trains; the chief shows what goes on and what came out."""
    config, files = prepared.config, prepared.files
    try:
        if not prepared.workspace.is_chief:
            train(prepared)
            return
        console = progress.Console()
        console.say(
            f"{config.dataset}, {config.model}, {config.method}: "
            f"{config.num_workers} workers x {config.examples_per_worker} "
            f"examples, epochs={config.epochs}, "
            f"steps_per_epoch={prepared.updates.per_epoch:g}"
        )
        with progress.show_progress(console) as callback:
            summary = train(prepared, [callback])
    # What TensorFlow raises if another process of the run has ended.
    except (tf.errors.UnavailableError, tf.errors.AbortedError) as error:
        raise command.Stopped(
            "the connection to another process is lost", RESTART_EXIT_CODE
        ) from error
    print_summary(console, summary, str(files.directory), files.names())


def print_summary(
    console: progress.Console,
    summary: Summary,
    run_dir: str,
    files: Collection[str],
) -> None:
    """Prints the result and the files it is in."""
    table = Table.grid(padding=(0, 2))
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    last = progress.percent(summary.val_accuracy)
    best = progress.percent(summary.best_val_accuracy)
    table.add_row("test accuracy", f"[bold]{last}[/bold]  (best {best})")
    table.add_row("training loss", progress.number(summary.train_loss))
    speed = f"{summary.examples_per_second:,.0f} examples a second"
    table.add_row("time", f"{summary.seconds:.1f} s, {speed}")
    if summary.peak_memory_bytes is not None:
        mebibytes = summary.peak_memory_bytes / 2**20
        table.add_row("peak memory", f"{mebibytes:,.0f} MiB")
    table.add_row("files", ", ".join(files))
    console.print(table, highlight=False)
    # By itself and unwrapped, so that it can be copied from a narrow window.
    console.say(f"in {run_dir}")


COMMAND = command.Command(build_flags, _prepare, _FAILURES)
