"""Runs one configuration and leaves the result in a directory.

The only training loop of the experiments. It has two halves, since their
failures mean different things: `prepare` finds out all that can be wrong before
training, and only then makes the directory; `train` does the rest, and keeps
what was written if it fails.
"""

import dataclasses
import math
import os
import time
from collections.abc import Callable, Iterable
from typing import Any

import keras
import tensorflow as tf

from tf_gnc import _files, _keras_compat, data
from tf_gnc.experiments.config import RunConfig
from tf_gnc.experiments.figures import curves
from tf_gnc.experiments.loggers.run_log import RunLog, steps_between
from tf_gnc.experiments.run import environment
from tf_gnc.experiments.run.building import (
    build_datasets,
    build_model,
    learning_rates,
    load_images,
    updates_of,
)
from tf_gnc.experiments.run.directory import RunFiles
from tf_gnc.experiments.run.epoch_steps import EpochSteps
from tf_gnc.experiments.run.metrics import MetricsLog, Summary, summarize
from tf_gnc.experiments.run.placement import Placement, Workspace
from tf_gnc.experiments.run.saving import save_result
from tf_gnc.step.train_step import GNCTrainStep


@dataclasses.dataclass(frozen=True)
class PreparedRun:
    """A run that is ready to start; made by `prepare`.

    Attributes:
        config: What to run.
        workspace: Its directory, claimed, its strategy and its backups.
        images: The data set, in memory or in its files.
        updates: Which updates each epoch has.
        schedule: The learning rate as a function of the update.
        model: Built and compiled.
    """

    config: RunConfig
    workspace: Workspace
    images: data.Source
    updates: data.Updates
    schedule: Callable[[int], Any]
    model: GNCTrainStep

    @property
    def files(self) -> RunFiles:
        """The files of the run's directory."""
        return self.workspace.files


def run(
    config: RunConfig,
    run_dir: str | os.PathLike | None = None,
    callbacks: Iterable[keras.callbacks.Callback] = (),
    command: str | None = None,
    placement: Placement | None = None,
) -> Summary:
    """Prepares and trains; see `prepare` and `train`."""
    return train(prepare(config, run_dir, command, placement), callbacks)


def prepare(
    config: RunConfig,
    run_dir: str | os.PathLike | None = None,
    command: str | None = None,
    placement: Placement | None = None,
    images: data.Source | None = None,
) -> PreparedRun:
    """Makes all that a run needs, its directory and its config.json.

    The weights at the start, the order of the examples and their
    augmentation follow from the seed, the same for all methods.

    Args:
        config: What to run. If it is deterministic, TensorFlow stays so for
            the rest of the process; it can't be told otherwise.
        run_dir: A new or empty directory. Default: a new one in `runs`,
            named after the data set, the method and the time.
        command: The command that asked for the run, kept in config.json.
        placement: Where the run happens. Default: the strategy in whose
            scope the call is made, and no backups.
        images: Stand for the data set.

    Raises:
        DatasetNotFoundError: If the data set has not been prepared.
        ValueError: If the batch is larger than the data set, the replicas
            don't divide the workers, the run to be taken up is another, or
            what is to be measured needs more workers.
        OSError: If the directory is taken, can't be made, or the disk is
            full.
    """
    placement = placement or Placement(tf.distribute.get_strategy())
    placement.recording.check(config)
    workspace = Workspace(config, run_dir, placement)
    images = images or load_images(config)
    updates = updates_of(config, images)
    if config.deterministic:
        tf.config.experimental.enable_op_determinism()
    # The model is the first to draw, so that no method's draws come before.
    _keras_compat.set_random_seed(config.seed)
    schedule = learning_rates(config, updates)
    with placement.strategy.scope():
        model = build_model(config, schedule, images)
        if _keras_compat.is_built(model):
            _ = model.step_plan  # It refuses a rule that doesn't fit.
    if config.optimizer == "model":  # Its own rate, at its next step.

        def schedule(step: int) -> tf.Tensor:
            # A MultiOptimizer has none.
            rate = getattr(model.optimizer, "learning_rate", math.nan)
            return tf.convert_to_tensor(rate)

    workspace.claim(
        {
            "config": config.to_dict(),
            "command": command,
            "steps_per_epoch": updates.per_epoch,
            "environment": environment.environment(),
        }
    )
    return PreparedRun(config, workspace, images, updates, schedule, model)


def train(
    prepared: PreparedRun,
    callbacks: Iterable[keras.callbacks.Callback] = (),
) -> Summary:
    """Trains, and leaves the results in the run's directory.

    Writes metrics.jsonl (a row as each epoch ends), model.keras, curves.png
    and, when all is well, summary.json; and, as the run goes, what the
    placement's recording asks for. A run that is taken up after it has ended is
    left as it is.

    Args:
        prepared: What `prepare` returned; good for one call.
        callbacks: Go to `fit`, after the runner's own.

    Raises:
        FloatingPointError: If a gradient or an epoch's loss isn't finite.
        OSError: If a file can't be written.
    """
    config, workspace = prepared.config, prepared.workspace
    files = prepared.files
    if workspace.summary is not None:
        workspace.end()
        return Summary.from_dict(workspace.summary)
    began = time.perf_counter()
    log = MetricsLog(files, prepared.schedule)
    with _run_log(prepared, log) as run_log:
        _fit(prepared, log, [*run_log.callbacks(), *callbacks])
        save_result(prepared.model, files.path("model.keras"))
        title = (
            f"{config.dataset}, {config.model}, {config.method}: "
            f"{config.num_workers} workers x {config.examples_per_worker}, "
            f"seed {config.seed}"
        )
        figure = curves.draw_curves(log.rows, title)
        _files.write(files.path("curves.png"), figure.savefig)
        summary = summarize(
            config,
            log,
            prepared.updates,
            num_replicas=workspace.strategy.num_replicas_in_sync,
            seconds=time.perf_counter() - began,
            resumed_steps=tuple(workspace.resumed_steps()),
        )
        run_log.finish(summary.to_dict(), files.path("curves.png"))
    # The last: it says that nothing is left to do.
    _files.write_json(files.path("summary.json"), summary.to_dict())
    workspace.end()
    return summary


def _run_log(prepared: PreparedRun, log: MetricsLog) -> RunLog:
    """Returns what gives the run's numbers to other places."""
    every = prepared.workspace.placement.log_to.log_every
    return RunLog(
        prepared.workspace.records(),
        lambda: log.rows[-1],
        prepared.schedule,
        steps_between(every, prepared.updates.per_epoch),
    )


def _fit(
    prepared: PreparedRun,
    log: MetricsLog,
    callbacks: Iterable[keras.callbacks.Callback],
) -> None:
    """Trains, from where the last backup is if there is one."""
    config, workspace = prepared.config, prepared.workspace
    backups = workspace.backups()
    first_step = sum(backup.first_step() for backup in backups)
    workspace.note_start(first_step)
    training, test = build_datasets(
        config, prepared.images, workspace.strategy, first_step
    )
    recording = workspace.placement.recording
    run_dir, updates = workspace.files.directory, prepared.updates
    steps = EpochSteps(updates)
    probes = recording.probes(
        config, prepared.images, run_dir, updates, first_step
    )
    prepared.model.fit(
        training,
        epochs=config.epochs,
        steps_per_epoch=steps,
        validation_data=test,
        shuffle=False,  # The pipeline has done so.
        verbose=0,
        callbacks=[
            steps,
            *config.noise().callbacks(),
            *probes,  # Before the log, which writes down their numbers.
            log,
            *recording.checkpoints(run_dir),
            *callbacks,
            *backups,
        ],
    )
