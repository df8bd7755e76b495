"""Everything that decides a run, in one frozen and validated object.

Two equal configurations make the same run. Where to write, how to show
progress and what the defaults of a data set are isn't decided here.
"""

import dataclasses
import functools
import types
from collections.abc import Iterator, Mapping
from typing import Any

from tf_gnc import _check
from tf_gnc._settings import REQUIRED, setting, settings_of
from tf_gnc.data import DATASETS
from tf_gnc.experiments.methods import registry as methods
from tf_gnc.experiments.user_code import choice_or_own, is_own
from tf_gnc.models import MODELS
from tf_gnc.optimizers import exclusion
from tf_gnc.optimizers.trust import VARIANTS

# Settings of methods that every configuration once had, used or not.
_FORMER = (
    "alpha", "alpha_rnc", "switch_epoch", "scaling", "include_vectors",
    "max_displacement",
)  # fmt: skip

_data = functools.partial(setting, group="Data")
_model = functools.partial(setting, group="Model and method")
_size = functools.partial(setting, group="Size of the run")
_optimizer = functools.partial(setting, group="Optimizer")
_rate = functools.partial(setting, group="Learning rate over the run")
_run = functools.partial(setting, group="This run")

_SIZED = {"dataset": lambda: [n for n, d in DATASETS.items() if d.any_size]}
_ERASED = {"dataset": lambda: [n for n, d in DATASETS.items() if d.erases]}
_LARS, _POLYNOMIAL = {"optimizer": ("lars",)}, {"schedule": ("polynomial",)}


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunConfig:
    r"""One training run; each field's help says what it is.

    Use `tf_gnc.experiments.make_config` for the values that suit a data set;
    the defaults here are only those that hold for all of them. `dataset`,
    `model` and `method` may be functions of your own as "module:function", see
    `tf_gnc.experiments.user_code`.

    Attributes:
        settings: What the method alone has to be told, by name: the
            arguments of what makes its noise. Those left out have their
            default.

    Raises:
        ValueError: If a value is out of its range or two don't go together.

    Example:
        >>> config = RunConfig(
        ...     dataset="digits", model="resnet8", method="gnc",
        ...     num_workers=4, batch_size=64, epochs=2, learning_rate=0.1,
        ...     settings={"alpha": 0.1})
        >>> config.examples_per_worker
        16
        >>> RunConfig.from_dict(config.to_dict()) == config
        True
    """

    dataset: str = _data(
        "What to train on.",
        choices=DATASETS,
        check=functools.partial(choice_or_own, choices=DATASETS),
    )
    data_dir: str | None = _data(
        "Where prepared data sets lie. Default: ~/tensorflow_datasets.",
        None, check=_check.path, indifferent=True,
    )  # fmt: skip
    download: bool = _data(
        "Download the data set if it isn't there. The digits never need it.",
        False, indifferent=True,
    )  # fmt: skip
    augment: bool = _data("Augment the training pictures.", True)
    erasing: bool = _data("Random erasing as part of it (CIFAR).", True)
    erasing_fill: str = _data(
        "What stands in an erased rectangle: random bytes, as in the paper of "
        "random erasing, or the mean colour, as in much other code.",
        "random", choices=("random", "mean"),
        only_with={**_ERASED, "augment": (True,), "erasing": (True,)},
    )  # fmt: skip
    color_jitter: bool = _data(
        "Vary brightness, contrast, saturation and lighting, which the paper "
        "doesn't mention and fb.resnet.torch does, the code of its recipe.",
        False, only_with={**_SIZED, "augment": (True,)},
    )  # fmt: skip
    model: str = _model(
        "Which network.",
        choices=MODELS,
        check=functools.partial(choice_or_own, choices=MODELS),
    )
    batch_norm: bool = _model(
        "Batch normalization in the networks for small pictures.",
        True, only_with={"model": ("resnet8", "resnet20", "resnet32")},
    )  # fmt: skip
    image_size: int | None = _model(
        "Height and width to which ImageNet's pictures are scaled. Default: "
        "224.",
        None, minimum=1, only_with=_SIZED,
    )  # fmt: skip
    dtype: str = _model(
        "Keras's dtype policy.", "float32",
        choices=("float32", "mixed_bfloat16", "mixed_float16", "float64"),
    )  # fmt: skip
    method: str = _model("What noise.", check=methods.check_method)
    num_workers: int = _size(
        "The paper's M, among whom each batch is split; a divisor of "
        "--batch_size.",
        minimum=1, flag="workers",
    )  # fmt: skip
    batch_size: int = _size("Examples per update, over all workers.", minimum=1)
    epochs: int = _size("Passes over the training data.", minimum=1)
    remainder: str = _size(
        "What is left of an epoch after its last whole batch. drop: it waits "
        "for the next shuffle. carry: it begins the next epoch's first batch, "
        "as in the recipes of the paper; with --max_steps it is dropped.",
        "drop", choices=("drop", "carry"),
    )  # fmt: skip
    max_steps: int | None = _size(
        "Cut each epoch short after so many updates, and its evaluation after "
        "as many batches. For trying out.",
        None, minimum=1,
    )  # fmt: skip
    optimizer: str = _optimizer(
        "momentum: the paper's for CIFAR; lars: the paper's for ImageNet; "
        "model: what your own network was compiled with, its rate included.",
        "momentum", choices=("momentum", "lars", "model"),
    )  # fmt: skip
    lars_variant: str = _optimizer(
        "Which published form of LARS.", "paper",
        choices=tuple(VARIANTS), only_with=_LARS,
    )  # fmt: skip
    lars_exclude: str | None = _optimizer(
        "Weights that LARS neither adapts nor decays: a regular expression for "
        "their paths, or none for no weight. Default: biases and "
        "normalization; none for chainer.",
        None, check=exclusion.pattern, only_with=_LARS,
    )  # fmt: skip
    learning_rate: float = _optimizer("Highest learning rate.", minimum=0)
    noise_rate: str = _optimizer(
        "The noise's rate under LARS: the global one, or each layer's own of "
        "the step before.",
        "global", choices=("global", "layer"), only_with=_LARS,
    )  # fmt: skip
    momentum: float = _optimizer("Momentum, 0 to 1.", 0.9, minimum=0, maximum=1)
    weight_decay: float = _optimizer(
        "L2 in the gradient, 0 or more.", 1e-4, minimum=0
    )
    warmup: float = _rate(
        "Fraction of the run during which the rate climbs, 0 to 1.",
        1 / 16, minimum=0, maximum=1,
    )  # fmt: skip
    start_rate: float | None = _rate(
        "Rate at which the warm-up starts. Default: --learning_rate over the "
        "number of workers, as linear scaling gives to one worker's examples; "
        "1.0 for the paper's imagenet2012.",
        None, minimum=0,
    )  # fmt: skip
    schedule: str = _rate(
        "After the warm-up. steps: divided by 10 after 1/2 and after 3/4 of "
        "the run; polynomial: (1 - t/T)^2; constant.",
        "steps", choices=("steps", "polynomial", "constant"),
    )  # fmt: skip
    decay_steps: int | None = _rate(
        "T of the polynomial, in steps after the warm-up. Default: 4120/3519 "
        "of the run.",
        None, minimum=1, only_with=_POLYNOMIAL,
    )  # fmt: skip
    collapse_epoch: int | None = _rate(
        "Epochs after which the polynomial is divided by 5; 0 for never. "
        "Default: 8/9 of the run for imagenet2012, else never.",
        None, minimum=0, only_with=_POLYNOMIAL,
    )  # fmt: skip
    label_smoothing: float = _rate(
        "Share of each label that is spread over all classes, 0 to 1.",
        0.0, minimum=0, maximum=1,
    )  # fmt: skip
    # What Keras, NumPy and the random rule can all be seeded with.
    seed: int = _run(
        "Decides weights, order, augmentation and random noise.",
        0, minimum=0, maximum=2**31 - 1,
    )  # fmt: skip
    deterministic: bool = _run(
        "Give the same weights, bit for bit, each time.", False
    )
    jit_compile: bool | None = _run(
        "Compile the training step with XLA. Default: Keras decides; on a "
        "TPU the step is compiled in any case.",
        None,
    )
    steps_per_execution: int = _run(
        "Updates that TensorFlow makes before it comes back to Python; an "
        "epoch's last call makes those that are left. A TPU wants dozens.",
        1, minimum=1,
    )  # fmt: skip
    threads: int | None = _run(
        "Cores to use. Default: all.", None, minimum=1, indifferent=True
    )
    settings: Mapping[str, Any] = dataclasses.field(
        default_factory=dict, hash=False
    )

    def __post_init__(self) -> None:
        """Validates each value, then those that depend on each other."""
        values = dict(vars(self))
        described = settings_of(type(self))
        for name, field in described.items():
            # Kept as plain Python types, so that the JSON file takes them.
            values[name] = field.checked(values[name])
        own = methods.complete(self.method, self.settings)
        values["settings"] = types.MappingProxyType(own)
        for name, value in values.items():
            object.__setattr__(self, name, value)
        for field in described.values():
            field.check_idle(values)
        _check.multiple(values, "batch_size", "num_workers")
        if self.optimizer == "model" and not is_own(self.model):
            raise ValueError(
                "`optimizer` must be 'momentum' or 'lars' for one of our "
                f"models, got optimizer='model' with model={self.model!r}. A "
                "model of your own (--model_fn) may bring its optimizer."
            )
        if not is_own(self.method):  # That is looked at as the run begins.
            self.noise().check(self.method, self)

    @property
    def examples_per_worker(self) -> int:
        """The paper's small-batch size."""
        return self.batch_size // self.num_workers

    def noise(self) -> methods.Combination:
        """Returns the method's rules, made anew."""
        return methods.make_noise(self.method, self.settings, self.seed)

    def to_dict(self) -> dict[str, Any]:
        """Returns all values as JSON can hold them, the settings beside."""
        values = {name: getattr(self, name) for name in settings_of(type(self))}
        return values | methods.flat(self.method, self.settings, values)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "RunConfig":
        """Makes the configuration that `to_dict` was called on.

        `values` may be the entry "config" of a run's config.json. What it
        doesn't have has its default.

        Raises:
            ValueError: If names are missing or unknown, or a value is wrong.
        """
        described = settings_of(cls)
        values = dict(values)
        fields = {n: values.pop(n) for n in described if n in values}
        missing = [
            name
            for name, field in described.items()
            if field.default is REQUIRED and name not in fields
        ]
        unknown = []
        if not missing:
            known = methods.names_of_settings(fields["method"])
            unknown = sorted(set(values) - {*known, *_FORMER})
            values = {n: v for n, v in values.items() if n in known}
        if unknown or missing:
            raise ValueError(
                "A run's configuration must hold the fields of RunConfig and "
                f"its method's settings, got unknown={unknown} and "
                f"missing={missing}. Was it written by another version of "
                "tf_gnc?"
            )
        return cls(**fields, settings=values)

    def replace(self, **changes: Any) -> "RunConfig":
        """Returns a copy with other values of fields or settings."""
        return self.from_dict({**self.to_dict(), **changes})

    def differences(
        self, other: Mapping[str, Any]
    ) -> Iterator[tuple[str, Any, Any]]:
        """Yields what would make another run of this one.

        That is each name with the value here and the value in `other`, which
        `to_dict` returned, perhaps in another version.
        """
        theirs = type(self).from_dict(other).to_dict()
        indifferent = indifferent_settings(type(self))
        for name, value in self.to_dict().items():
            if name not in indifferent and theirs.get(name) != value:
                yield name, value, theirs.get(name)


def indifferent_settings(cls: type[RunConfig] = RunConfig) -> set[str]:
    """Returns the names of the settings that change no result."""
    return {n for n, field in settings_of(cls).items() if field.indifferent}
