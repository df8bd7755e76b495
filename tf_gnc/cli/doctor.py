"""`tf-gnc doctor`: says where a run would live, and whether its noise is on.

The checks are in tf_gnc.doctor; here are the flags, a model as `tf-gnc train`
would make it, random pictures in the shape of the data set, and the words.
"""

import functools
from collections.abc import Mapping
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tf_gnc import doctor, models
from tf_gnc.cli.command import Call, Command, FlagSet, UsageError, Work
from tf_gnc.cli.tensorflow_start import start_tensorflow
from tf_gnc.data import DATASETS
from tf_gnc.distribute.strategies import STRATEGIES, is_chief
from tf_gnc.experiments import (
    METHODS,
    RunConfig,
    build_model,
    make_config,
)
from tf_gnc.experiments.run.environment import environment
from tf_gnc.noise.rule import NoiseRule
from tf_gnc.step.train_step import GNCModel

_USAGE = "tf-gnc doctor"
_SUMMARY = (
    "Says on what a run would run and how much memory its noise would take, "
    "then takes a few steps on random pictures to see that the noise is on "
    "and right. Needs no data set and writes nothing. Flags have the defaults "
    "of `tf-gnc train`; the learning rate is the run's highest."
)

# Flags that say where, not what.
_NOT_CONFIG = ("strategy", "verbose")

# What can go wrong in a step without anything being wrong in the program.
_FAILURES = (OSError, tf.errors.OpError)


def _prepare(call: Call) -> Work:
    config = _config(call.given)
    strategy = start_tensorflow(
        config.threads, call.verbose, call.given.get("strategy", "auto")
    )
    keras.utils.set_random_seed(config.seed)
    with strategy.scope():
        model = build_model(config, config.learning_rate)
    return functools.partial(_examine, config, model)


def build_flags() -> FlagSet:
    """Returns the flags of `tf-gnc doctor`."""
    flag_set = FlagSet(_USAGE, _SUMMARY)
    with flag_set.group("The run"):
        flag_set.choice(
            "dataset", DATASETS, "Whose shape the pictures have.", "digits"
        )
        flag_set.choice("model", models.MODELS, "Which network.", None)
        flag_set.choice("method", METHODS, "What noise.", "gnc")
        flag_set.integer("workers", "The paper's M.", minimum=1)
        flag_set.integer(
            "batch_size", "Examples per update, over all workers.", minimum=1
        )
        flag_set.number("learning_rate", "Highest learning rate.")
        flag_set.number("alpha", "Coefficient of the gradient noise.")
        flag_set.number("alpha_rnc", "Coefficient of the random noise.")
    with flag_set.group("This machine"):
        flag_set.choice(
            "strategy",
            STRATEGIES,
            "How the work is distributed; auto: as the machine and its "
            "environment suggest.",
            "auto",
        )
        flag_set.integer("threads", "Cores to use. Default: all.", minimum=1)
        flag_set.switch(
            "verbose",
            "Show TensorFlow's messages, and tracebacks of errors.",
            default=False,
        )
    # Error messages about a configuration use its own name.
    flag_set.alias("num_workers", "workers")
    return flag_set


def _config(given: Mapping[str, Any]) -> RunConfig:
    """Returns the configuration that the given flags ask for."""
    chosen = {k: v for k, v in given.items() if k not in _NOT_CONFIG}
    config = make_config(num_workers=chosen.pop("workers", None), **chosen)
    for name in ("alpha", "alpha_rnc"):
        users = [m for m in METHODS if name in METHODS[m].settings]
        if name in chosen and config.method not in users:
            raise UsageError(
                f"--{name} does nothing with --method={config.method}. Leave "
                f"it out, or use --method={'|'.join(users)}."
            )
    return config


def _examine(config: RunConfig, model: GNCModel) -> int:
    """Looks at everything, prints it and returns the exit code."""
    say = print if is_chief(model.distribute_strategy) else _ignore
    for line in _describe(config, model):
        say(line)
    settings = DATASETS[config.dataset]
    rng = np.random.default_rng(config.seed)
    x = rng.normal(size=(config.batch_size, *settings.input_shape))
    y = rng.integers(settings.num_classes, size=config.batch_size)
    checks = []
    for rule in _rules(config):
        model.noise_rule = rule
        checks.append(doctor.check_memory(model))
        say(f"\n{rule or 'no noise'}\n{checks[-1]}")
        if checks[-1].ok:  # Else the steps would fill the memory.
            report = doctor.check(model, x.astype("float32"), y)
            checks += report.checks
            say(report)
    failed = sum(not check.ok for check in checks)
    if failed:
        say(f"\n{failed} of {len(checks)} checks failed.")
    else:
        say("\nAll is well.")
    return 1 if failed else 0


def _rules(config: RunConfig) -> list[NoiseRule | None]:
    """Returns the rules that a run goes through."""
    method = METHODS[config.method]
    rules = [method.first(config)]
    return [*rules, method.then(config)] if method.then else rules


def _describe(config: RunConfig, model: GNCModel) -> list[str]:
    """Returns what the run would be and where, as lines."""
    versions = environment()["versions"]
    here = doctor.setup_of(model)
    weights = doctor.memory_forecast(model).num_weights
    inter = here.inter_op_threads or "TensorFlow's choice"
    intra = here.intra_op_threads or "TensorFlow's choice"
    return [
        ", ".join(f"{name} {version}" for name, version in versions.items()),
        f"{config.dataset}, {config.model} with {weights:,} weights, "
        f"{config.method}, learning rate {config.learning_rate:g}",
        f"strategy: {here.strategy}, replicas: {here.num_replicas}, "
        f"processes: {here.num_processes}",
        f"workers: {here.num_workers} x {config.examples_per_worker} "
        f"examples, per replica: {here.workers_per_replica}, side by side: "
        f"{here.side_by_side}",
        f"cores: {here.num_cores}, threads: {inter} inter-op, {intra} intra-op",
    ]


def _ignore(text: object) -> None:
    del text


COMMAND = Command(build_flags, _prepare, _FAILURES)
