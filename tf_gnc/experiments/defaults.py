r"""A run's configuration when only the data set and the method are given.

What suits a data set is written in its own file, in tf_gnc.data.sets. Values
that follow from others (the rate from the batch size, the batch size from the
workers, the switch from the epochs) are computed, so that changing one on the
command line carries the others along.
"""

import math
from collections.abc import Mapping
from typing import Any

from tf_gnc import _check
from tf_gnc.data import DATASETS, DatasetDefaults
from tf_gnc.experiments.config import RunConfig
from tf_gnc.experiments.methods import METHODS
from tf_gnc.experiments.user_code import is_own
from tf_gnc.schedules import linear_scaling

_OWN = DatasetDefaults(
    model="",
    num_workers=8,
    examples_per_worker=32,
    epochs=20,
    base_rate=0.1,
    methods=DATASETS["digits"].defaults.methods,
)
"""For data of the user's own, of which nobody knows: guesses."""


def make_config(
    dataset: str = "digits", method: str = "gnc", **chosen: Any
) -> RunConfig:
    """Returns a configuration: what was chosen, the rest by default.

    Args:
        dataset: A key of `tf_gnc.data.DATASETS`, or a function of your own as
            "module:function"; `model` must then be chosen.
        method: A key of `METHODS`.
        **chosen: Fields of `RunConfig`; None means "not chosen".

    Raises:
        ValueError: If a value is out of its range or two don't go together.

    Example:
        >>> config = make_config("cifar10", batch_size=4096)
        >>> config.num_workers, config.learning_rate, config.epochs
        (128, 3.2, 160)
    """
    defaults = _OWN
    if not is_own(dataset):
        dataset = _check.choice("dataset", dataset, DATASETS)
        defaults = DATASETS[dataset].defaults
    _check.choice("method", method, METHODS)
    values = {name: v for name, v in chosen.items() if v is not None}
    num_workers, batch_size = _workers_and_batch(values, defaults)
    epochs = values.setdefault("epochs", defaults.epochs)
    epochs = _check.integer("epochs", epochs, minimum=1)
    values = {**defaults.settings, **values}
    values = {**defaults.derive(values, batch_size), **values}
    values.setdefault("learning_rate", _rate(defaults, batch_size))
    values.setdefault("model", defaults.model)
    if not values["model"]:
        raise ValueError(
            f"`model` (--model or --model_fn) must be chosen with {dataset}: "
            "there is no default for data of your own."
        )
    for name, value in defaults.methods.get(method, {}).items():
        values.setdefault(name, _nearest(value, batch_size))
    if METHODS[method].switches:
        # Rounded down, to lie inside a run of two epochs too. A run of one has
        # no room for a switch, which RunConfig will say.
        part, whole = defaults.switch
        values.setdefault("switch_epoch", part * epochs // whole or None)
    if "gnc" in defaults.methods:
        values.setdefault("alpha", defaults.methods["gnc"]["alpha"])
    values.update(num_workers=num_workers, batch_size=batch_size)
    return RunConfig(dataset=dataset, method=method, **values)


def _rate(defaults: DatasetDefaults, batch_size: int) -> float:
    """Returns the highest learning rate for a batch size."""
    scaled = linear_scaling(defaults.base_rate, 128, batch_size)
    return defaults.rates.get(batch_size, scaled)


def _nearest(value: float | Mapping[int, float], batch_size: int) -> float:
    """Returns a value, or that for the batch size that is nearest by ratio.

    The paper tuned two batch sizes; at any other this is a first guess.
    """
    if not isinstance(value, Mapping):
        return value
    return value[min(value, key=lambda b: abs(math.log(b / batch_size)))]


def _workers_and_batch(
    values: dict[str, Any], defaults: DatasetDefaults
) -> tuple[int, int]:
    """Returns both; one of them follows from the other if it's left open."""
    small = defaults.examples_per_worker
    workers, batch = values.get("num_workers"), values.get("batch_size")
    if workers is not None:
        workers = _check.integer("num_workers", workers, minimum=1)
        return workers, workers * small if batch is None else batch
    if batch is None:
        return defaults.num_workers, defaults.num_workers * small
    batch = _check.integer("batch_size", batch, minimum=1)
    if batch % small:
        raise ValueError(
            f"`batch_size` must be a multiple of {small}, the examples per "
            "worker, unless `num_workers` (--workers) is given too, got "
            f"batch_size={batch}."
        )
    return batch // small, batch
