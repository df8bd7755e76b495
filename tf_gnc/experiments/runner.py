"""Runs one configuration and leaves the result in a directory.

The only training loop of the experiments: variation comes in through the
configuration. It reads no command line, keeps nothing between runs, and may
be called many times in a process and under any distribution strategy.

Two halves, since their failures mean different things: `prepare` finds out
all that can be wrong before training, and only then makes the directory;
`train` does the rest, and keeps what was written if it fails.

Floor 4: may import from floors 0 to 3 and from this folder.
"""

import dataclasses
import math
import os
import time
from collections.abc import Iterable

import keras
import tensorflow as tf

from tf_gnc import data, models
from tf_gnc.experiments import provenance, report
from tf_gnc.experiments.config import RunConfig
from tf_gnc.experiments.files import RunFiles, new_run_dir
from tf_gnc.experiments.methods import METHODS
from tf_gnc.experiments.metrics import MetricsLog
from tf_gnc.experiments.summary import Summary, summarize
from tf_gnc.optimizers import MomentumSGD
from tf_gnc.schedules import StepDecay, WarmUp
from tf_gnc.train_step import GNCModel

__all__ = [
    "PreparedRun",
    "Summary",
    "learning_rates",
    "prepare",
    "run",
    "train",
]

_EVALUATION_BATCH = 1000  # Examples; any number gives the same result.


@dataclasses.dataclass(frozen=True)
class PreparedRun:
    """A run that is ready to start; made by `prepare`.

    Attributes:
        config: What to run.
        files: The run's directory, claimed.
        images: The data set in memory.
        steps_per_epoch: Updates in one pass over the training data.
        schedule: The learning rate as a function of the update.
        model: Built and compiled.
    """

    config: RunConfig
    files: RunFiles
    images: data.Images
    steps_per_epoch: int
    schedule: WarmUp
    model: GNCModel


def run(
    config: RunConfig,
    run_dir: str | os.PathLike | None = None,
    callbacks: Iterable[keras.callbacks.Callback] = (),
    command: str | None = None,
) -> Summary:
    """Prepares and trains; see `prepare` and `train`."""
    return train(prepare(config, run_dir, command), callbacks)


def prepare(
    config: RunConfig,
    run_dir: str | os.PathLike | None = None,
    command: str | None = None,
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

    Raises:
        DatasetNotFoundError: If the data set has not been prepared.
        ValueError: If the batch is larger than the data set, or the
            replicas don't divide the workers.
        OSError: If the directory is taken, can't be made, or the disk is
            full.
    """
    if run_dir is None:
        run_dir = new_run_dir(config.dataset, config.method)
    files = RunFiles(run_dir)
    images = data.load(config.dataset, config.data_dir, config.download)
    steps = data.steps_per_epoch(len(images.train_images), config.batch_size)
    if config.deterministic:
        tf.config.experimental.enable_op_determinism()
    # The model is the first to draw, so that no method's draws come before.
    keras.utils.set_random_seed(config.seed)
    schedule = learning_rates(config, steps)
    model = _build_model(config, schedule)
    files.claim()
    files.write_json(
        "config.json",
        {
            "config": config.to_dict(),
            "command": command,
            "steps_per_epoch": steps,
            "environment": provenance.environment(),
        },
    )
    return PreparedRun(config, files, images, steps, schedule, model)


def train(
    prepared: PreparedRun,
    callbacks: Iterable[keras.callbacks.Callback] = (),
) -> Summary:
    """Trains, and leaves the results in the run's directory.

    Writes metrics.jsonl (a row as each epoch ends), model.keras, curves.png
    and, when all is well, summary.json.

    Args:
        prepared: What `prepare` returned; good for one call.
        callbacks: Go to `fit`, after the runner's own.

    Raises:
        FloatingPointError: If a gradient or an epoch's loss isn't finite.
        OSError: If a file can't be written.
    """
    config, files = prepared.config, prepared.files
    began = time.perf_counter()
    log = MetricsLog(files, prepared.schedule)
    training, test = build_datasets(config, prepared.images)
    prepared.model.fit(
        training,
        epochs=config.epochs,
        steps_per_epoch=prepared.steps_per_epoch,
        validation_data=test,
        shuffle=False,  # The pipeline has done so.
        verbose=0,
        callbacks=[*METHODS[config.method].callbacks(config), log, *callbacks],
    )
    files.write("model.keras", prepared.model.save)
    title = (
        f"{config.dataset}, {config.model}, {config.method}: "
        f"{config.num_workers} workers x {config.examples_per_worker}, "
        f"seed {config.seed}"
    )
    files.write(
        "curves.png", lambda path: report.draw_curves(log.rows, title, path)
    )
    summary = summarize(
        config,
        log,
        num_replicas=prepared.model.distribute_strategy.num_replicas_in_sync,
        steps_per_epoch=prepared.steps_per_epoch,
        seconds=time.perf_counter() - began,
    )
    files.write_json("summary.json", summary.to_dict())
    return summary


def learning_rates(config: RunConfig, steps_per_epoch: int) -> WarmUp:
    r"""Returns the learning rate of a run as a function of the step.

    Paper: Haruki et al. (2019), arXiv:1906.10822, appendix A.4; with
    `warmup=1/16` and `decay=True` it is `tf_gnc.schedules.cifar_schedule`.
    Deviation from the paper: none. It prints its start rate of 0.025 as a
    number; linear scaling gives the same for both of its batch sizes.

    Args:
        config: What to run.
        steps_per_epoch: Updates in one pass over the training data.

    Raises:
        ValueError: If the run is too short to hold both decays.
    """
    total = config.epochs * steps_per_epoch
    decays = (math.ceil(total / 2), math.ceil(3 * total / 4))
    if config.decay and total < 2:
        raise ValueError(
            "A run with `decay` must have at least two steps, got "
            f"epochs={config.epochs} with {steps_per_epoch} steps per epoch. "
            "Train longer, lower `batch_size`, or set decay=False (--nodecay)."
        )
    return WarmUp(
        start=config.learning_rate / config.num_workers,
        steps=math.ceil(total * config.warmup),
        then=StepDecay(config.learning_rate, decays if config.decay else ()),
    )


def _build_model(config: RunConfig, schedule: WarmUp) -> GNCModel:
    """Returns the model, compiled, with the weights that the seed gives."""
    settings = data.DATASETS[config.dataset]
    model = models.build(
        config.model,
        settings.num_classes,
        settings.input_shape,
        model_class=GNCModel,
    )
    model.compile(
        optimizer=MomentumSGD(
            schedule,
            momentum=config.momentum,
            weight_decay=config.weight_decay,
        ),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
        noise=METHODS[config.method].first(config),
        num_workers=config.num_workers,
    )
    return model


def build_datasets(
    config: RunConfig, images: data.Images
) -> tuple[tf.data.Dataset, tf.data.Dataset]:
    """Returns the endless training data and the test data of a run."""
    preprocess = data.DATASETS[config.dataset].preprocess
    if not config.augment:
        preprocess = preprocess.without_augmentation()
    training = data.training_dataset(
        images.train_images,
        images.train_labels,
        batch_size=config.batch_size,
        seed=config.seed,
        preprocess=preprocess,
    )
    test = data.evaluation_dataset(
        images.test_images,
        images.test_labels,
        batch_size=_EVALUATION_BATCH,
        preprocess=preprocess,
    )
    return training, test
