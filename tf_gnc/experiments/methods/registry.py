"""The methods by name, and what the settings of each come to.

Settings travel by bare names where one method is meant, `alpha`, and as
`gnc.alpha` where they are one method's among several. Functions that take a
method want a name that `check_method` has let pass.
"""

import functools
import inspect
import types
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from tf_gnc._settings import REQUIRED, Setting, settings_of_call
from tf_gnc.experiments.methods.combination import (
    Combination,
    gnc_to_rnc,
    no_noise,
)
from tf_gnc.experiments.methods.variant import Variant
from tf_gnc.experiments.user_code import choice_or_own, is_own, load_rule
from tf_gnc.noise import (
    GradientNoise,
    MomentumNoise,
    NoiseRule,
    RandomNoise,
    SharpnessAware,
)

METHODS: dict[str, Callable[..., NoiseRule | Combination | None]] = {
    "dpsgd": no_noise,
    "rnc": RandomNoise,
    "gnc": GradientNoise,
    "gnc_to_rnc": gnc_to_rnc,
    "extrapolation": Variant(
        GradientNoise,
        "Extrapolation (Lin et al. 2020): GNC with the mean left in.",
        center=False, current=False, uphill=False,
    ),
    "gnc_current": Variant(
        GradientNoise,
        "GNC of this step's gradients instead of the last one's; two passes.",
        current=True, center=True, uphill=False, noise_dtype="float32",
    ),
    "gnc_uphill": Variant(
        GradientNoise,
        "GNC with the sign turned, as SAM has it.",
        uphill=True, center=True, current=False,
    ),
    "sam": Variant(
        SharpnessAware,
        "SAM of the whole batch; two passes.",
        group="all", adaptive=False,
    ),
    "worker_sam": Variant(
        SharpnessAware,
        "SAM of each worker or group by itself (m-SAM); two passes.",
        adaptive=False,
    ),
    "asam": Variant(
        SharpnessAware,
        "Adaptive SAM of the whole batch; two passes.",
        {"rho": 0.5},
        group="all", adaptive=True,
    ),
    "momentum_sam": MomentumNoise,
}  # fmt: skip
"""What makes the noise of each method."""

# Whose defaults a data set has for a method that it doesn't name.
_LIKE = dict.fromkeys(("extrapolation", "gnc_current", "gnc_uphill"), "gnc")

COEFFICIENTS = ("alpha", "rho")
"""Settings that `relative` stands in the place of."""

PAPER_METHODS = ("dpsgd", "rnc", "gnc", "gnc_to_rnc")
"""Those that the paper compares, in the order of its tables."""

# By method: names of settings as flags and configurations once had them.
_OLDER: Mapping[str, Mapping[str, str]] = types.MappingProxyType(
    {"rnc": {"alpha_rnc": "alpha"}}
)

check_method = functools.partial(choice_or_own, choices=METHODS)


def settings_of_method(method: str) -> dict[str, Setting]:
    """Returns a method's own settings by name; a run's seed isn't one."""
    if is_own(method):
        return {}
    make = METHODS[method]
    if isinstance(make, Variant):
        return make.settings()
    return settings_of_call(make, without=["seed"])


def defaults_of(
    method: str, by_method: Mapping[str, Mapping[str, Any]]
) -> Mapping[str, Any]:
    """Returns what a data set has for a method, or for one that is alike.

    Example:
        >>> defaults_of("gnc_uphill", {"gnc": {"alpha": 0.1}})
        {'alpha': 0.1}
    """
    return by_method.get(method, by_method.get(_LIKE.get(method, ""), {}))


def names_of_settings(method: str) -> dict[str, str]:
    """Returns each name that a method's setting has, and what it is called now.

    Of several names of one setting the last is the most exact.
    """
    found = {}
    for name in settings_of_method(method):
        older = [o for o, n in _OLDER.get(method, {}).items() if n == name]
        found |= dict.fromkeys((name, *older, f"{method}.{name}"), name)
    return found


def complete(method: str, chosen: Mapping[str, Any]) -> dict[str, Any]:
    """Returns all settings of a method as plain values.

    Raises a ValueError if one is unknown, or missing and without a default.
    """
    chosen = settings_for([method], chosen)[method]
    values = {}
    free = COEFFICIENTS if chosen.get("relative") is not None else ()
    for name, setting in settings_of_method(method).items():
        value = chosen.get(name, None if name in free else setting.default)
        needed = name in COEFFICIENTS and not free
        if value is REQUIRED or (
            value is None and (needed or not setting.optional)
        ):
            raise ValueError(
                f"`{name}` (--{name}) must be given with method={method!r}: "
                "it has no default here."
            )
        # What is illegal must reach the rule, whose error is the better one.
        if setting.kind is float and isinstance(value, int):
            value = value if isinstance(value, bool) else float(value)
        values[name] = value
    return values


def make_noise(
    method: str, settings: Mapping[str, Any], seed: int
) -> Combination:
    """Returns the noise of a run with that seed, from all of its settings."""
    if is_own(method):
        return Combination(load_rule(method))
    make = METHODS[method]
    settings = dict(settings)
    if "seed" in inspect.signature(make).parameters:
        settings["seed"] = seed
    made = make(**settings)
    return made if isinstance(made, Combination) else Combination(made)


def settings_for(
    methods: Sequence[str], chosen: Mapping[str, Any]
) -> dict[str, dict[str, Any]]:
    """Returns, by method, what each takes of the settings that were chosen.

    A bare name is for all methods that have such a setting, `gnc.alpha` for
    one, whatever the bare name says.

    Raises:
        ValueError: If one does nothing with these methods.

    Example:
        >>> settings_for(["dpsgd", "rnc", "gnc"], {"alpha": 1, "gnc.alpha": 2})
        {'dpsgd': {}, 'rnc': {'alpha': 1}, 'gnc': {'alpha': 2}}
    """
    names = {method: names_of_settings(method) for method in methods}
    for name in chosen:
        if not any(name in known for known in names.values()):
            users = [m for m in METHODS if name in names_of_settings(m)]
            if not users:
                raise ValueError(
                    f"`{name}` (--{name}) is no setting of a run, nor of "
                    f"{', '.join(methods)}. `tf-gnc train --help` lists what "
                    "can be set."
                )
            raise ValueError(
                f"`{name}` (--{name}) does nothing with {', '.join(methods)}. "
                f"Leave it out, or use {'|'.join(users)}."
            )
    return {
        method: {n: chosen[name] for name, n in known.items() if name in chosen}
        for method, known in names.items()
    }


def flat(
    method: str, settings: Mapping[str, Any], taken: Collection[str]
) -> dict[str, Any]:
    """Returns settings by bare names, or `gnc.alpha` where those are taken."""
    return {
        f"{method}.{name}" if name in taken else name: value
        for name, value in settings.items()
    }
