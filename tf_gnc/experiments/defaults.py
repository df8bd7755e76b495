r"""A run's configuration when only the data set and the method are given.

What suits a data set is written in its own file, in tf_gnc.data.sets. Values
that follow from others (the rate from the batch size, the batch size from the
workers, the switch from the epochs) are computed, so that changing one on the
command line carries the others along.
"""

import math
from collections.abc import Mapping
from fractions import Fraction
from typing import Any

from tf_gnc import _check
from tf_gnc._settings import settings_of
from tf_gnc.data import DATASETS, DatasetDefaults
from tf_gnc.experiments.config import RunConfig
from tf_gnc.experiments.methods import registry as methods
from tf_gnc.experiments.user_code import choice_or_own, is_own
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
        method: A key of `METHODS`, or a function of your own.
        **chosen: Fields of `RunConfig` and settings of the method; None means
            "not chosen".

    Raises:
        ValueError: If a value is out of its range or does nothing, or two
            don't go together.

    Example:
        >>> config = make_config("cifar10", batch_size=4096, alpha=0.2)
        >>> config.num_workers, config.learning_rate, config.epochs
        (128, 3.2, 160)
        >>> config.settings["alpha"]
        0.2
    """
    chosen = {name: v for name, v in chosen.items() if v is not None}
    values = {**decided_by_data(dataset, method, chosen), **chosen}
    fields, own = split(values)
    return RunConfig(dataset=dataset, method=method, settings=own, **fields)


def split(
    values: Mapping[str, Any],
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Returns the fields of `RunConfig` among values, and the others."""
    fields = settings_of(RunConfig)
    return (
        {name: v for name, v in values.items() if name in fields},
        {name: v for name, v in values.items() if name not in fields},
    )


def decided_by_data(
    dataset: str, method: str, chosen: Mapping[str, Any]
) -> dict[str, Any]:
    """Returns what follows from the data set, as far as nobody chose it.

    The arguments are as for `make_config`, but none chosen is None.
    """
    choice_or_own("dataset", dataset, DATASETS)
    defaults = _OWN if is_own(dataset) else DATASETS[dataset].defaults
    methods.check_method("method", method)
    num_workers, batch_size = _workers_and_batch(chosen, defaults)
    epochs = chosen.get("epochs", defaults.epochs)
    epochs = _check.integer("epochs", epochs, minimum=1)
    scaled = linear_scaling(defaults.base_rate, 128, batch_size)
    values = {
        **defaults.settings,
        "num_workers": num_workers,
        "batch_size": batch_size,
        "epochs": epochs,
        "learning_rate": defaults.rates.get(batch_size, scaled),
        "model": defaults.model,
    }
    settings = {**defaults.settings, "epochs": epochs, **chosen}
    values |= defaults.derive(settings, batch_size)
    if not chosen.get("model", defaults.model):
        raise ValueError(
            f"`model` (--model or --model_fn) must be chosen with {dataset}: "
            "there is no default for data of your own."
        )
    values |= methods.flat(
        method,
        {
            name: _in_run(value, batch_size, epochs)
            for name, value in methods.defaults_of(
                method, defaults.methods
            ).items()
        },
        settings_of(RunConfig),
    )
    taken = names_in_config(method, chosen)
    return {name: v for name, v in values.items() if name not in taken}


def names_in_config(method: str, values: Mapping[str, Any]) -> set[str]:
    """Returns what a configuration calls the settings that values are for.

    A setting of the method may be given under several names.
    """
    fields, own = split(values)
    own = methods.settings_for([method], own)[method]
    if own.get("relative") is not None:
        fields |= dict.fromkeys(methods.COEFFICIENTS)
    return {*fields, *methods.flat(method, own, settings_of(RunConfig))}


def _in_run(
    value: float | Mapping[int, float] | Fraction, batch_size: int, epochs: int
) -> float | int:
    """Returns what a setting of a data set's is in one run.

    A value is that for the batch size that is nearest by ratio. The paper tuned
    two batch sizes; at any other this is a first guess.
    """
    if isinstance(value, Mapping):
        return value[min(value, key=lambda b: abs(math.log(b / batch_size)))]
    if isinstance(value, Fraction):
        # Rounded down, to lie inside a run of two epochs too. A run of one has
        # no room for a switch, which RunConfig will say.
        return int(value * epochs)
    return value


def _workers_and_batch(
    values: Mapping[str, Any], defaults: DatasetDefaults
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
