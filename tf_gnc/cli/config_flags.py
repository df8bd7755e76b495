"""The flags of `tf-gnc train`, with their defaults as text.

Those for what is recorded on the way are in measurement_flags.py.
"""

from collections.abc import Callable, Mapping
from typing import Any

from tf_gnc.cli.command import FlagSet, UsageError
from tf_gnc.data import DATASETS, DatasetDefaults
from tf_gnc.distribute.strategies import STRATEGIES
from tf_gnc.experiments import METHODS, RunConfig
from tf_gnc.experiments.config import (
    DTYPES,
    LARS_VARIANTS,
    NOISE_RATES,
    OPTIMIZERS,
    SCHEDULES,
)
from tf_gnc.models import MODELS

# Where a flag's name isn't the configuration's.
_FIELDS = {"workers": "num_workers", "data_fn": "dataset", "model_fn": "model"}

USAGE = "tf-gnc train"
_SUMMARY = (
    "Trains a model and leaves config.json, metrics.jsonl, summary.json, "
    "curves.png and model.keras in a new directory. With no flags: gradient "
    "noise convolution on handwritten digits that need no download."
)


def build_flags() -> FlagSet:
    """Returns the flags for what to run and where."""
    flag_set = FlagSet(USAGE, _SUMMARY)
    with flag_set.group("Data"):
        _define_data(flag_set)
    with flag_set.group("Model and method"):
        _define_method(flag_set)
    with flag_set.group("Size of the run"):
        _define_size(flag_set)
    with flag_set.group("Optimizer"):
        _define_optimizer(flag_set)
    with flag_set.group("Learning rate over the run"):
        _define_schedule(flag_set)
    with flag_set.group("Noise"):
        _define_noise(flag_set)
    with flag_set.group("This run"):
        _define_run(flag_set)
    # Error messages about a configuration use its own name.
    flag_set.alias("num_workers", "workers")
    return flag_set


def to_fields(given: Mapping[str, Any]) -> dict[str, Any]:
    """Returns given flags by the names of `RunConfig`'s fields.

    Raises:
        UsageError: If two of them say the same thing.
    """
    if "recipe" in given and {"dataset", "data_fn"} & set(given):
        raise UsageError(
            "--recipe brings its data set, got --dataset or --data_fn too. "
            "Leave one out."
        )
    for own, ours in (("data_fn", "dataset"), ("model_fn", "model")):
        if own in given and ours in given:
            raise UsageError(
                f"--{own} stands in the place of --{ours}, got both. Leave "
                "one out."
            )
        if own in given and ":" not in given[own]:
            raise UsageError(
                f"--{own} must be module:function, as in mymodel:build, got "
                f"{given[own]!r}."
            )
    return {_FIELDS.get(name, name): value for name, value in given.items()}


def _define_data(flag_set: FlagSet) -> None:
    flag_set.text(
        "recipe",
        "An experiment by name: `tf-gnc reproduce --list` has them. It brings "
        "its data set; other flags change it.",
    )
    flag_set.choice("dataset", DATASETS, "What to train on.", "digits")
    flag_set.text(
        "data_fn",
        "Your own data instead: module:function, where the function returns "
        "((x_train, y_train), (x_test, y_test)), arrays or tf.data.Datasets. "
        "Defaults are then 8 workers of 32 examples, 20 epochs, rate 0.1 for "
        "each 128 examples and the digits' noise.",
    )
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
    flag_set.switch(
        "erasing",
        "Random erasing as part of it (CIFAR).",
        RunConfig.erasing,
    )


def _define_method(flag_set: FlagSet) -> None:
    flag_set.choice(
        "model", MODELS, "Which network. " + _default(lambda d: d.model), None
    )
    flag_set.text(
        "model_fn",
        "Your own network instead: module:function, where the function "
        "returns a keras.Model.",
    )
    flag_set.switch(
        "batch_norm",
        "Batch normalization in the networks for small pictures.",
        RunConfig.batch_norm,
    )
    flag_set.integer(
        "image_size",
        "Height and width to which ImageNet's pictures are scaled. Default: "
        "224.",
        minimum=1,
    )
    flag_set.choice("dtype", DTYPES, "Keras's dtype policy.", RunConfig.dtype)
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
    flag_set.integer(
        "max_steps",
        "Cut each epoch short after so many updates, and its evaluation after "
        "as many batches. For trying out.",
        minimum=1,
    )


def _define_optimizer(flag_set: FlagSet) -> None:
    base_rate = _per_dataset(lambda d: d.base_rate)
    flag_set.choice(
        "optimizer",
        OPTIMIZERS,
        "momentum: the paper's for CIFAR; lars: the paper's for ImageNet; "
        "model: what your own network was compiled with, its rate included. "
        "Default: lars for imagenet2012, else momentum.",
        None,
    )
    flag_set.choice(
        "lars_variant",
        LARS_VARIANTS,
        "Which published form of LARS.",
        RunConfig.lars_variant,
    )
    flag_set.number(
        "learning_rate",
        f"Highest learning rate. Default: {base_rate} for each 128 examples "
        "of the batch.",
    )
    flag_set.choice(
        "noise_rate",
        NOISE_RATES,
        "The noise's rate under LARS: the global one, or each layer's own of "
        "the step before.",
        RunConfig.noise_rate,
    )
    flag_set.number("momentum", "Momentum, 0 to 1.", RunConfig.momentum)
    flag_set.number(
        "weight_decay", "L2 in the gradient, 0 or more.", RunConfig.weight_decay
    )


def _define_schedule(flag_set: FlagSet) -> None:
    flag_set.number(
        "warmup",
        "Fraction of the run during which the rate climbs, 0 to 1. Default: "
        "5/90 for imagenet2012, else 1/16.",
    )
    flag_set.number(
        "start_rate",
        "Rate at which the warm-up starts. Default: --learning_rate over the "
        "number of workers; 1.0 for the paper's imagenet2012.",
    )
    flag_set.choice(
        "schedule",
        SCHEDULES,
        "After the warm-up. steps: divided by 10 after 1/2 and after 3/4 of "
        "the run; polynomial: (1 - t/T)^2. Default: polynomial for "
        "imagenet2012, else steps.",
        None,
    )
    flag_set.integer(
        "decay_steps",
        "T of the polynomial, in steps after the warm-up. Default: 4120/3519 "
        "of the run.",
        minimum=1,
    )
    flag_set.integer(
        "collapse_epoch",
        "Epochs after which the polynomial is divided by 5. Default: 8/9 of "
        "the run for imagenet2012, else never.",
        minimum=1,
    )
    flag_set.number(
        "label_smoothing",
        "Share of each label that is spread over all classes, 0 to 1.",
        RunConfig.label_smoothing,
    )


def _define_noise(flag_set: FlagSet) -> None:
    flag_set.number(
        "alpha",
        "Coefficient of the gradient noise, 0 or more. "
        + _default(lambda d: d.methods["gnc"]["alpha"]),
    )
    flag_set.number(
        "alpha_rnc",
        "Coefficient of the random noise, 0 or more. Default: the paper's, "
        "by data set, method and batch size.",
    )
    flag_set.integer(
        "switch_epoch",
        "Epochs before gnc_to_rnc switches. Default: 3/4 of the run, 8/9 for "
        "imagenet2012.",
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


def _default(value: Callable[[DatasetDefaults], Any]) -> str:
    return f"Default: {_per_dataset(value)}."


def _per_dataset(value: Callable[[DatasetDefaults], Any]) -> str:
    """Returns, for instance, "40 (digits), 160 (cifar10, cifar100)"."""
    names: dict[Any, list[str]] = {}
    for name, settings in DATASETS.items():
        names.setdefault(value(settings.defaults), []).append(name)
    if len(names) == 1:
        return str(next(iter(names)))
    return ", ".join(f"{v} ({', '.join(n)})" for v, n in names.items())
