"""The methods that the paper compares, by name.

A method is a noise rule, and for one of them a second rule to switch to. It
knows nothing of data, models or files; a new method is a new entry here.
"""

import dataclasses
import types
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from tf_gnc.callbacks import SwitchNoise
from tf_gnc.noise import GradientNoise, NoiseRule, RandomNoise

if TYPE_CHECKING:
    from tf_gnc.experiments.config import RunConfig


def _no_noise(config: "RunConfig") -> None:
    del config


def _gradient_noise(config: "RunConfig") -> GradientNoise:
    return GradientNoise(
        alpha=config.alpha,
        scaling=config.scaling,
        include_vectors=config.include_vectors,
        max_displacement=config.max_displacement,
    )


def _random_noise(config: "RunConfig") -> RandomNoise:
    return RandomNoise(
        alpha=config.alpha_rnc,
        scaling=config.scaling,
        include_vectors=config.include_vectors,
        seed=config.seed,
    )


_NOISE_SETTINGS = ("include_vectors", "scaling")
_GNC_SETTINGS = ("alpha", "max_displacement", *_NOISE_SETTINGS)


@dataclasses.dataclass(frozen=True)
class Method:
    """How one method makes its noise.

    Attributes:
        summary: One line for people.
        first: Makes the rule to start with; None stands for no noise.
        then: Makes the rule after `switch_epoch`, if the method switches.
        settings: Which fields of a configuration matter to this method and
            not to all of them.
    """

    summary: str
    first: Callable[["RunConfig"], NoiseRule | None]
    then: Callable[["RunConfig"], NoiseRule] | None = None
    settings: tuple[str, ...] = ()

    @property
    def switches(self) -> bool:
        """Whether the method changes its rule during the run."""
        return self.then is not None

    def callbacks(self, config: "RunConfig") -> list[SwitchNoise]:
        """Returns what `fit` needs for this method."""
        if self.then is None:
            return []
        return [SwitchNoise(config.switch_epoch, self.then(config))]


METHODS: Mapping[str, Method] = types.MappingProxyType(
    {
        "dpsgd": Method("data-parallel SGD, no noise", _no_noise),
        "rnc": Method(
            "random noise convolution",
            _random_noise,
            settings=("alpha_rnc", *_NOISE_SETTINGS),
        ),
        "gnc": Method(
            "gradient noise convolution",
            _gradient_noise,
            settings=_GNC_SETTINGS,
        ),
        "gnc_to_rnc": Method(
            "GNC first, RNC after --switch_epoch",
            _gradient_noise,
            then=_random_noise,
            settings=("alpha_rnc", "switch_epoch", *_GNC_SETTINGS),
        ),
    }
)
