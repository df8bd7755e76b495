"""`tf-gnc doctor`: what a run would use, and whether its noise is on.

Its model is as `tf-gnc train` would make it, its data random pictures in the
shape of the data set.
"""

import functools

import numpy as np
import tensorflow as tf

from tf_gnc import _keras_compat, doctor
from tf_gnc._settings import settings_of, values_of
from tf_gnc.cli import command, config_flags
from tf_gnc.cli.tensorflow_start import start_tensorflow
from tf_gnc.cli.train import TrainFlags
from tf_gnc.data import DATASETS
from tf_gnc.distribute.strategies import is_chief
from tf_gnc.experiments import RunConfig, build_model, make_config
from tf_gnc.experiments.run.environment import environment
from tf_gnc.step.train_step import GNCModel

_SUMMARY = (
    "Says which devices a run would use and how much memory its noise would "
    "take, then takes a few steps on random pictures to see that the noise is "
    "on and right. Needs no data set and writes nothing. Its flags have the "
    "defaults of `tf-gnc train`; the learning rate is the run's highest."
)

# What of a run matters to its noise.
_FLAGS = {
    "dataset", "model", "dtype", "method", "num_workers", "batch_size",
    "learning_rate", "threads", "strategy", "logical_devices",
}  # fmt: skip


def _prepare(call: command.Call) -> command.Work:
    config = make_config(**config_flags.chosen_of(call.given))
    flags = values_of(TrainFlags, call.given)
    strategy = start_tensorflow(
        config.threads, call.verbose, flags.strategy, flags.logical_devices
    )
    _keras_compat.set_random_seed(config.seed)
    with strategy.scope():
        model = build_model(config, config.learning_rate)
    return functools.partial(_examine, config, model)


def build_flags() -> command.FlagSet:
    """Returns the flags of `tf-gnc doctor`."""
    sets = (RunConfig, TrainFlags)
    without = set().union(*map(settings_of, sets)) - _FLAGS
    return config_flags.build("tf-gnc doctor", _SUMMARY, *sets, without=without)


def _examine(config: RunConfig, model: GNCModel) -> int:
    """Looks at everything, prints it and returns the exit code."""
    quiet = not is_chief(model.distribute_strategy)
    say = (lambda text: None) if quiet else print
    for line in _describe(config, model):
        say(line)
    settings = DATASETS[config.dataset]
    rng = np.random.default_rng(config.seed)
    x = rng.normal(size=(config.batch_size, *settings.input_shape))
    y = rng.integers(settings.num_classes, size=config.batch_size)
    checks = []
    for rule in config.noise().rules:
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
        *doctor.speed_advice(model),
    ]


# What a step may raise without anything being wrong in the program.
COMMAND = command.Command(build_flags, _prepare, (OSError, tf.errors.OpError))
