r"""What to run when only the data set and the method are given.

One entry per data set. Values that follow from others (the rate from the
batch size, the batch size from the workers, the switch from the epochs) are
computed, so that changing one on the command line carries the others along.

Sources   CIFAR: Haruki et al. (2019), arXiv:1906.10822, Tables 3 to 5 and
          appendix A.4. ImageNet: the same tables and appendix A.5; rates of
          other batch sizes than theirs are scaled from 32,768. Digits: ours,
          found by trying; see the README. Data of your own: guesses.
"""

import dataclasses
import math
import types
from collections.abc import Mapping
from typing import Any

from tf_gnc import _check
from tf_gnc.experiments.config import RunConfig
from tf_gnc.experiments.methods import METHODS
from tf_gnc.experiments.user_code import is_own
from tf_gnc.schedules import linear_scaling


@dataclasses.dataclass(frozen=True)
class DatasetDefaults:
    """What suits one data set.

    Attributes:
        model: A key of `tf_gnc.models.MODELS`.
        num_workers: The paper's M.
        examples_per_worker: The paper's small-batch size.
        epochs: Passes over the training data.
        base_rate: Learning rate at 128 examples per update.
        alpha: Coefficient of the gradient noise.
        alpha_rnc: Per method, coefficients of the random noise at one or
            several batch sizes.
        alpha_before_switch: Coefficient of the gradient noise in the method
            that switches. None for `alpha`.
        switch: Share of the epochs, as a fraction's two numbers, after which
            that method switches.
        rates: Learning rates of the batch sizes for which it isn't scaled.
        settings: Other fields of `RunConfig`.
    """

    model: str
    num_workers: int
    examples_per_worker: int
    epochs: int
    base_rate: float
    alpha: float
    alpha_rnc: Mapping[str, Mapping[int, float]]
    alpha_before_switch: float | None = None
    switch: tuple[int, int] = (3, 4)
    rates: Mapping[int, float] = dataclasses.field(default_factory=dict)
    settings: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def learning_rate(self, batch_size: int) -> float:
        """Returns the highest rate for a batch size."""
        scaled = linear_scaling(self.base_rate, 128, batch_size)
        return self.rates.get(batch_size, scaled)

    def nearest_alpha_rnc(self, method: str, batch_size: int) -> float | None:
        """Returns the coefficient tuned at the batch size nearest by ratio.

        The paper tuned two batch sizes; at any other this is a first guess.
        None if the method has no random noise.
        """
        tuned = self.alpha_rnc.get(method)
        if tuned is None:
            return None
        nearest = min(tuned, key=lambda b: abs(math.log(b / batch_size)))
        return tuned[nearest]


_CIFAR = DatasetDefaults(
    model="resnet32",
    num_workers=256,
    examples_per_worker=32,
    epochs=160,
    base_rate=0.1,
    alpha=0.1,
    alpha_rnc={
        "rnc": {4096: 0.01, 8192: 0.01},
        "gnc_to_rnc": {4096: 4.0, 8192: 2.0},
    },
)

DEFAULTS: Mapping[str, DatasetDefaults] = types.MappingProxyType(
    {
        "digits": DatasetDefaults(
            model="resnet8",
            num_workers=32,
            examples_per_worker=16,
            epochs=120,
            base_rate=0.1,
            alpha=0.1,
            alpha_rnc={"rnc": {512: 0.01}, "gnc_to_rnc": {512: 2.0}},
        ),
        "cifar10": _CIFAR,
        "cifar100": dataclasses.replace(
            _CIFAR,
            alpha_rnc={
                "rnc": {4096: 0.001, 8192: 0.01},
                "gnc_to_rnc": {4096: 2.0, 8192: 4.0},
            },
        ),
        "imagenet2012": DatasetDefaults(
            model="resnet50",
            num_workers=1024,
            examples_per_worker=32,
            epochs=90,
            base_rate=23.0 / 256,
            rates={32768: 23.0, 131072: 42.0},
            settings={
                "optimizer": "lars",
                "schedule": "polynomial",
                "warmup": 5 / 90,
            },
            alpha=0.0001,
            alpha_rnc={"rnc": {32768: 0.01}, "gnc_to_rnc": {32768: 0.01}},
            alpha_before_switch=0.01,
            switch=(8, 9),
        ),
    }
)

_OWN = DatasetDefaults(
    model="",
    num_workers=8,
    examples_per_worker=32,
    epochs=20,
    base_rate=0.1,
    alpha=0.1,
    alpha_rnc={"rnc": {256: 0.01}, "gnc_to_rnc": {256: 2.0}},
)


def make_config(
    dataset: str = "digits", method: str = "gnc", **chosen: Any
) -> RunConfig:
    """Returns a configuration: what was chosen, the rest by default.

    Args:
        dataset: A key of `DEFAULTS`, or a function of your own as
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
        defaults = DEFAULTS[_check.choice("dataset", dataset, DEFAULTS)]
    _check.choice("method", method, METHODS)
    values = {name: v for name, v in chosen.items() if v is not None}
    num_workers, batch_size = _workers_and_batch(values, defaults)
    epochs = values.setdefault("epochs", defaults.epochs)
    epochs = _check.integer("epochs", epochs, minimum=1)
    values = {**defaults.settings, **values}
    _set_rates(values, defaults, dataset, batch_size)
    values.setdefault("model", defaults.model)
    if not values["model"]:
        raise ValueError(
            f"`model` (--model or --model_fn) must be chosen with {dataset}: "
            "there is no default for data of your own."
        )
    alpha_rnc = defaults.nearest_alpha_rnc(method, batch_size)
    if alpha_rnc is not None:
        values.setdefault("alpha_rnc", alpha_rnc)
    if METHODS[method].switches:
        # Rounded down, to lie inside a run of two epochs too. A run of one has
        # no room for a switch, which RunConfig will say.
        part, whole = defaults.switch
        values.setdefault("switch_epoch", part * epochs // whole or None)
        if defaults.alpha_before_switch is not None:
            values.setdefault("alpha", defaults.alpha_before_switch)
    values.setdefault("alpha", defaults.alpha)
    values.update(num_workers=num_workers, batch_size=batch_size)
    return RunConfig(dataset=dataset, method=method, **values)


def _set_rates(
    values: dict[str, Any],
    defaults: DatasetDefaults,
    dataset: str,
    batch_size: int,
) -> None:
    """Sets what follows from the batch size and the schedule."""
    if dataset == "imagenet2012" and values.get("schedule") == "polynomial":
        epochs = values["epochs"]
        if "learning_rate" not in values and batch_size in defaults.rates:
            values.setdefault("start_rate", 1.0)  # Table 4
        if "decay_steps" not in values:  # Another curve doesn't collapse.
            steps = -(-4_120 * 32_768 * epochs // (batch_size * 90))
            values["decay_steps"] = steps
            values.setdefault("collapse_epoch", 80 * epochs // 90 or None)
    values.setdefault("learning_rate", defaults.learning_rate(batch_size))


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
