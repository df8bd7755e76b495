"""What a run is made of: data, rates, optimizer, model; from its configuration.

Nothing here trains or writes a file.
"""

import contextlib
import dataclasses
from collections.abc import Iterator
from typing import Any

import keras
import tensorflow as tf

from tf_gnc import data, models
from tf_gnc.distribute.sharding import make_own_rows
from tf_gnc.experiments.config import RunConfig
from tf_gnc.experiments.user_code import (
    check_fit,
    is_own,
    load_data,
    load_model,
)
from tf_gnc.losses import SmoothedCrossentropy
from tf_gnc.optimizers import LARS, MomentumSGD
from tf_gnc.schedules import FinalCollapse, PolynomialDecay, StepDecay, WarmUp
from tf_gnc.step.train_step import GNCModel, GNCTrainStep

# Appendix A.5: T = 4,120, and the steps of its 90 epochs of 32,768 examples.
_DECAY_STEPS, _WHOLE_RUN = 4_120, 3_519


def load_images(config: RunConfig, holdout: float = 0.0) -> data.Source:
    """Returns the data set of a run.

    A share `holdout` of the training examples, if not 0, stands for the test
    examples.

    Raises:
        DatasetNotFoundError: If it has not been prepared.
        ValueError: If a function of the user's doesn't give one, or nothing
            can be held out.
    """
    if is_own(config.dataset):
        source = load_data(config.dataset)
    else:
        source = data.load(config.dataset, config.data_dir, config.download)
    if config.image_size is not None:
        source = dataclasses.replace(source, image_size=config.image_size)
    others = {}
    if config.erasing_fill != "random":
        others["erase_fill"] = config.erasing_fill
    if config.color_jitter:
        others["jitter"] = True
    if others:
        preprocess = dataclasses.replace(source.preprocess, **others)
        source = dataclasses.replace(source, preprocess=preprocess)
    return data.hold_out(source, holdout, config.seed) if holdout else source


def updates_of(config: RunConfig, images: data.Source) -> data.Updates:
    """Returns which updates each epoch of a run has.

    A batch larger than the data set is a ValueError.
    """
    return data.Updates(
        images.num_train, config.batch_size, carries(config), config.max_steps
    )


def carries(config: RunConfig) -> bool:
    """Tells whether a run leaves out no example of an epoch."""
    return config.remainder == "carry" and config.max_steps is None


def learning_rates(config: RunConfig, updates: data.Updates) -> WarmUp:
    r"""Returns the learning rate of a run as a function of the step.

    Paper: Haruki et al. (2019), arXiv:1906.10822, appendix A.4; with
    `warmup=1/16` and `schedule="steps"` it is
    `tf_gnc.schedules.cifar_schedule`. With `"polynomial"` it is appendix
    A.5, as `tf_gnc.schedules.imagenet_schedule` reads it.
    Deviation from the paper: none. It prints its start rate of 0.025 as a
    number; linear scaling gives the same for both of its batch sizes.

    Raises:
        ValueError: If the run is too short to hold both decays.
    """
    total = updates.before(config.epochs)
    warm_up = updates.in_part(config.warmup, config.epochs)
    start = config.start_rate
    if start is None:
        start = config.learning_rate / config.num_workers
    if config.schedule == "polynomial":
        steps = config.decay_steps
        if steps is None:
            steps = -(-total * _DECAY_STEPS // _WHOLE_RUN)
        then = PolynomialDecay(config.learning_rate, steps, after=warm_up)
    elif config.schedule == "steps":
        if total < 2:
            raise ValueError(
                "A run with schedule='steps' must have at least two steps, got "
                f"{total}. Train longer, lower `batch_size`, or use "
                "schedule='constant' (--schedule=constant)."
            )
        at = tuple(updates.in_part(s, config.epochs) for s in (1 / 2, 3 / 4))
        then = StepDecay(config.learning_rate, at)
    else:
        then = StepDecay(config.learning_rate, ())
    if config.collapse_epoch:
        then = FinalCollapse(then, updates.before(config.collapse_epoch))
    return WarmUp(start=start, steps=warm_up, then=then)


def build_model(
    config: RunConfig,
    learning_rate: keras.optimizers.schedules.LearningRateSchedule | float,
    images: data.Source | None = None,
) -> GNCTrainStep:
    """Returns the model of a run, compiled, with weights drawn anew.

    Args:
        config: What to run.
        learning_rate: Stands for the run's own schedule.
        images: The data set, if it has been loaded.
    """
    with _dtype_policy(config.dtype):
        if is_own(config.model):
            model = load_model(config.model)
            if images is not None:
                check_fit(config.model, model, images)
        else:
            settings = images or data.DATASETS[config.dataset]
            # Not all models can do without.
            options = {} if config.batch_norm else {"batch_norm": False}
            model = models.build(
                config.model,
                settings.num_classes,
                settings.input_shape,
                model_class=GNCModel,
                **options,
            )
        # What a model of the user's may have been compiled with.
        own = model.optimizer if model.compiled else None
        loss = model.loss if model.compiled else None
        jit = "auto" if config.jit_compile is None else config.jit_compile
        model.compile(
            optimizer=_optimizer(config, learning_rate, own),
            loss=loss or _loss(config, model),
            metrics=["accuracy"],
            noise=config.noise().first,
            num_workers=config.num_workers,
            jit_compile=jit,
            steps_per_execution=config.steps_per_execution,
        )
    return model


@contextlib.contextmanager
def _dtype_policy(name: str) -> Iterator[None]:
    """Sets Keras's policy, and puts the user's own back afterwards."""
    before = keras.config.dtype_policy()
    if name != "float32":
        keras.config.set_dtype_policy(name)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)


def _optimizer(
    config: RunConfig, learning_rate: Any, own: keras.Optimizer | None
) -> keras.Optimizer:
    if config.optimizer == "model":
        if own is None:
            raise ValueError(
                f"{config.model} must return a compiled model for "
                "optimizer='model', got one that isn't. Compile it, or use "
                "--optimizer=momentum."
            )
        return own
    settings = {
        "momentum": config.momentum,
        "weight_decay": config.weight_decay,
    }
    if config.optimizer == "momentum":
        return MomentumSGD(learning_rate, **settings)
    return LARS(
        learning_rate,
        variant=config.lars_variant,
        noise_rate=config.noise_rate,
        exclude=() if config.lars_exclude == "none" else config.lars_exclude,
        **settings,
    )


def _loss(config: RunConfig, model: keras.Model) -> keras.losses.Loss:
    """Returns the cross-entropy that suits the model's output."""
    last = getattr(model.layers[-1], "activation", None)
    from_logits = last is not keras.activations.softmax and not isinstance(
        model.layers[-1], keras.layers.Softmax
    )
    if not config.label_smoothing:
        return keras.losses.SparseCategoricalCrossentropy(from_logits)
    return SmoothedCrossentropy(config.label_smoothing, from_logits)


def build_datasets(
    config: RunConfig,
    images: data.Source,
    strategy: tf.distribute.Strategy | None = None,
    first_step: int = 0,
) -> tuple[Any, tf.data.Dataset]:
    """Returns the endless training data and the test data of a run.

    The training data begin with `first_step`. If the strategy has several
    processes, each makes its own rows only.
    """

    def make_rows(*rows: int) -> tf.data.Dataset:
        return training_data(config, images, first_step, rows=rows)

    training = make_own_rows(make_rows, config.batch_size, strategy)
    test = images.evaluation()
    return training, test.take(config.max_steps) if config.max_steps else test


def training_data(
    config: RunConfig, images: data.Source, first_step: int, **others: Any
) -> tf.data.Dataset:
    """Returns a run's batches from a step on, counted from 0."""
    return images.training(
        batch_size=config.batch_size,
        seed=config.seed,
        augment=config.augment,
        erasing=config.erasing,
        first_step=first_step,
        **({"carry": True} if carries(config) else {}),
        **others,
    )
