"""Everything that decides a run, in one frozen and validated object.

Two equal configurations make the same run. Where to write, how to show
progress and what the defaults of a data set are isn't decided here.
"""

import dataclasses
import functools
import os
from collections.abc import Callable, Mapping
from typing import Any

from tf_gnc import _check
from tf_gnc.data import DATASETS
from tf_gnc.experiments.methods import METHODS
from tf_gnc.experiments.user_code import check_own, is_own
from tf_gnc.models import MODELS

SCHEDULES = ("steps", "polynomial", "constant")
OPTIMIZERS = ("momentum", "lars", "model")
NOISE_RATES = ("global", "layer")
LARS_VARIANTS = ("paper", "tf_models", "mlperf", "larc")
DTYPES = ("float32", "mixed_bfloat16", "mixed_float16", "float64")

_at_least_0 = functools.partial(_check.real, minimum=0)
_count = functools.partial(_check.integer, minimum=1)


def _optional(check: Callable[..., Any]) -> Callable[..., Any]:
    """Returns `check` for a value that may also be None."""
    return lambda name, value: None if value is None else check(name, value)


def _known_or_own(
    choices: Mapping[str, Any],
) -> Callable[..., Any]:
    """Returns a check for a name of ours or a function of the user's."""

    def check(name: str, value: str) -> str:
        if is_own(value):
            return check_own(name, value)
        return _check.choice(name, value, choices)

    return check


def _path(name: str, value: str | os.PathLike) -> str:
    """Returns a directory's name as a string."""
    if not isinstance(value, str | os.PathLike) or not os.fspath(value):
        raise ValueError(
            f"`{name}` must be the name of a directory or None, got "
            f"{name}={value!r}."
        )
    return os.fspath(value)


_CHECKS: Mapping[str, Callable[..., Any]] = {
    "dataset": _known_or_own(DATASETS),
    "data_dir": _optional(_path),
    "download": _check.boolean,
    "augment": _check.boolean,
    "erasing": _check.boolean,
    "model": _known_or_own(MODELS),
    "batch_norm": _check.boolean,
    "image_size": _optional(_count),
    "dtype": functools.partial(_check.choice, choices=DTYPES),
    "label_smoothing": functools.partial(_check.real, minimum=0, maximum=1),
    "method": functools.partial(_check.choice, choices=METHODS),
    "num_workers": _count,
    "batch_size": _count,
    "epochs": _count,
    "max_steps": _optional(_count),
    "learning_rate": _at_least_0,
    "warmup": functools.partial(_check.real, minimum=0, maximum=1),
    "start_rate": _optional(_at_least_0),
    "schedule": functools.partial(_check.choice, choices=SCHEDULES),
    "decay_steps": _optional(_count),
    "collapse_epoch": _optional(_count),
    "optimizer": functools.partial(_check.choice, choices=OPTIMIZERS),
    "noise_rate": functools.partial(_check.choice, choices=NOISE_RATES),
    "lars_variant": functools.partial(_check.choice, choices=LARS_VARIANTS),
    "momentum": functools.partial(_check.real, minimum=0, maximum=1),
    "weight_decay": _at_least_0,
    "alpha": _at_least_0,
    "alpha_rnc": _at_least_0,
    "switch_epoch": _optional(_count),
    "scaling": functools.partial(_check.choice, choices=("filter", "none")),
    "include_vectors": _check.boolean,
    "max_displacement": _optional(functools.partial(_check.real, above=0)),
    # What Keras, NumPy and the random rule can all be seeded with.
    "seed": functools.partial(_check.integer, minimum=0, maximum=2**31 - 1),
    "deterministic": _check.boolean,
    "threads": _optional(_count),
}


@dataclasses.dataclass(frozen=True)
class RunConfig:
    r"""One training run.

    Use `tf_gnc.experiments.make_config` for the values that suit a data set;
    the defaults here are only those that hold for all of them.

    Attributes:
        dataset: A key of `tf_gnc.data.DATASETS`, or a function of your own
            as "module:function"; see `tf_gnc.experiments.user_code`.
        model: A key of `tf_gnc.models.MODELS`, or a function of your own.
        method: `"dpsgd"` (no noise), `"rnc"` (random noise), `"gnc"`
            (gradient noise) or `"gnc_to_rnc"` (first the one, then the
            other).
        num_workers: The paper's M, a divisor of `batch_size`.
        batch_size: Examples per update, summed over all workers.
        epochs: Passes over the training data.
        max_steps: Cuts an epoch short after so many updates, and its
            evaluation after as many batches of test data. For trying out.
        learning_rate: Highest rate, reached after the warm-up.
        optimizer: `"momentum"` is `tf_gnc.optimizers.MomentumSGD`, `"lars"`
            `tf_gnc.optimizers.LARS`, and `"model"` the one with which your
            own model was compiled, its rate included.
        lars_variant: `variant` of `tf_gnc.optimizers.LARS`.
        noise_rate: What the noise takes for the rate under LARS, as there.
        momentum: m of either.
        weight_decay: lambda of either.
        warmup: Fraction of all steps during which the rate climbs from
            `start_rate` to `learning_rate`. 0 for none.
        start_rate: None for `learning_rate / num_workers`, which is the rate
            that linear scaling gives to one worker's examples.
        schedule: What the rate does after the warm-up: `"steps"`, divided by
            10 after 1/2 and again after 3/4 of all steps; `"polynomial"`,
            (1 - t / T)^2; or `"constant"`.
        decay_steps: T of the polynomial, in steps after the warm-up. None
            for 4,120 / 3,519 of the whole run, as in the paper.
        collapse_epoch: Number of epochs after which the polynomial is
            divided by 5; None for never.
        alpha: Coefficient of the gradient noise.
        alpha_rnc: Coefficient of the random noise.
        switch_epoch: Number of epochs after which `"gnc_to_rnc"` switches;
            the other methods take no notice.
        scaling: `"filter"` or `"none"`, see `tf_gnc.GradientNoise`.
        include_vectors: Whether weights of rank 0 and 1 are displaced.
        max_displacement: Bound on the gradient noise, None for none.
        batch_norm: Whether our own networks for small pictures have batch
            normalization.
        label_smoothing: Share of each label that is spread over all classes.
        image_size: Height and width to which ImageNet's pictures are scaled;
            None for 224.
        dtype: Keras's dtype policy for the model.
        augment: Whether training pictures are augmented.
        erasing: Whether random erasing is part of it, where the data set
            has it.
        seed: Decides the weights at the start, the order of the examples,
            their augmentation and the random noise, alike for all methods.
        deterministic: Whether TensorFlow may use only operations that give
            the same bits each time.
        data_dir: Where prepared data sets lie; None for the usual place.
        download: Whether a missing data set may be downloaded.
        threads: Cores to use; None for all. Whoever starts TensorFlow sets
            them, since nobody can later.

    Raises:
        ValueError: If a value is out of its range or two don't go together.

    Example:
        >>> config = RunConfig(
        ...     dataset="digits", model="resnet8", method="gnc",
        ...     num_workers=4, batch_size=64, epochs=2, learning_rate=0.1)
        >>> config.examples_per_worker
        16
        >>> RunConfig.from_dict(config.to_dict()) == config
        True
    """

    dataset: str
    model: str
    method: str
    num_workers: int
    batch_size: int
    epochs: int
    learning_rate: float
    max_steps: int | None = None
    optimizer: str = "momentum"
    lars_variant: str = "paper"
    noise_rate: str = "global"
    momentum: float = 0.9
    weight_decay: float = 1e-4
    warmup: float = 1 / 16
    start_rate: float | None = None
    schedule: str = "steps"
    decay_steps: int | None = None
    collapse_epoch: int | None = None
    alpha: float = 0.1
    alpha_rnc: float = 0.01
    switch_epoch: int | None = None
    scaling: str = "filter"
    include_vectors: bool = True
    max_displacement: float | None = None
    batch_norm: bool = True
    label_smoothing: float = 0.0
    image_size: int | None = None
    dtype: str = "float32"
    augment: bool = True
    erasing: bool = True
    seed: int = 0
    deterministic: bool = False
    data_dir: str | None = None
    download: bool = False
    threads: int | None = None

    def __post_init__(self) -> None:
        """Validates each value, then those that depend on each other."""
        for name, check in _CHECKS.items():
            # Kept as plain Python types, so that the JSON file takes them.
            object.__setattr__(self, name, check(name, getattr(self, name)))
        if self.batch_size % self.num_workers:
            raise ValueError(_uneven(self.batch_size, self.num_workers))
        if METHODS[self.method].switches:
            _check_switch(self.switch_epoch, self.epochs)
        _check_together(self)

    @property
    def examples_per_worker(self) -> int:
        """The paper's small-batch size."""
        return self.batch_size // self.num_workers

    def to_dict(self) -> dict[str, Any]:
        """Returns all values as JSON can hold them."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "RunConfig":
        """Makes the configuration that `to_dict` was called on.

        Args:
            values: What `to_dict` returned: the entry "config" of a run's
                config.json.

        Raises:
            ValueError: If names are missing or unknown, or a value is wrong.
        """
        known = [field.name for field in dataclasses.fields(cls)]
        unknown = sorted(set(values) - set(known))
        missing = [name for name in known if name not in values]
        if unknown or missing:
            raise ValueError(
                "A run's configuration must hold exactly the fields of "
                f"RunConfig, got unknown={unknown} and missing={missing}. "
                "Was it written by another version of tf_gnc?"
            )
        return cls(**values)


def _uneven(batch_size: int, num_workers: int) -> str:
    fitting = num_workers * max(1, round(batch_size / num_workers))
    divisor = max(m for m in range(1, num_workers + 1) if batch_size % m == 0)
    return (
        "`batch_size` must be a multiple of `num_workers`, got "
        f"batch_size={batch_size} with num_workers={num_workers}. Use a batch "
        f"size of {fitting}, or {divisor} workers."
    )


def _check_together(config: RunConfig) -> None:
    """Refuses settings that would do nothing."""
    idle = {
        "decay_steps": config.schedule != "polynomial",
        "collapse_epoch": config.schedule != "polynomial",
        "image_size": config.dataset != "imagenet2012",
    }
    needs = {
        "decay_steps": "schedule='polynomial'",
        "collapse_epoch": "schedule='polynomial'",
        "image_size": "dataset='imagenet2012'",
    }
    for name, does_nothing in idle.items():
        value = getattr(config, name)
        if does_nothing and value is not None:
            raise ValueError(
                f"`{name}` does something with {needs[name]} only, got "
                f"{name}={value}. Leave it out."
            )
    small = config.model in ("resnet8", "resnet20", "resnet32")
    if not config.batch_norm and not small:
        raise ValueError(
            "`batch_norm` must be True for all but our networks for small "
            f"pictures, got batch_norm=False with model={config.model!r}."
        )
    if config.optimizer == "model" and not is_own(config.model):
        raise ValueError(
            "`optimizer` must be 'momentum' or 'lars' for one of our models, "
            f"got optimizer='model' with model={config.model!r}. A model of "
            "your own (--model_fn) may bring its optimizer."
        )


def _check_switch(switch_epoch: int | None, epochs: int) -> None:
    if switch_epoch is None or switch_epoch >= epochs:
        advice = (
            f"The paper switches after 3/4, here {3 * epochs // 4}."
            if epochs > 1
            else "Train for more than one epoch."
        )
        raise ValueError(
            "`switch_epoch` must lie inside the run, at least 1 and below "
            f"`epochs`, for the method 'gnc_to_rnc', got "
            f"switch_epoch={switch_epoch} with epochs={epochs}. {advice}"
        )
