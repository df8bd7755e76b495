"""Checks of arguments, all with errors of one form.

Every function takes the argument's name, as the user wrote it, and what the
user passed. It raises a ValueError that says what came and what is needed, or
returns the value in the plain Python type that the caller stores, so that a
constructor validates and assigns in one line.
"""

import math
import numbers
import operator
import os
from collections.abc import Collection, Iterable, Mapping
from typing import Any

_HOLDS = {
    "at least": operator.ge,
    "above": operator.gt,
    "at most": operator.le,
}


def real(
    name: str,
    value: float,
    *,
    minimum: float | None = None,
    above: float | None = None,
    maximum: float | None = None,
) -> float:
    """Returns a finite number as a float; `above` is no legal value itself.

    Example:
        >>> real("alpha", 1, minimum=0)
        1.0
    """
    is_real = isinstance(value, numbers.Real) and not isinstance(value, bool)
    try:
        fits = is_real and math.isfinite(value)
    except OverflowError:  # an int that no float can hold
        fits = False
    bounds = {"at least": minimum, "above": above, "at most": maximum}
    _check_number(name, value, "a finite number", fits, bounds)
    return float(value)


def integer(
    name: str,
    value: int,
    *,
    minimum: int | None = None,
    maximum: int | None = None,
) -> int:
    """Returns a whole number as an int.

    Example:
        >>> integer("num_workers", 8, minimum=1)
        8
    """
    fits = isinstance(value, numbers.Integral) and not isinstance(value, bool)
    bounds = {"at least": minimum, "at most": maximum}
    _check_number(name, value, "a whole number", fits, bounds)
    return int(value)


def multiple(values: Mapping[str, Any], name: str, other: str) -> None:
    """Raises a ValueError unless one number is a multiple of the other.

    Example:
        >>> multiple({"rows": 12, "workers": 4}, "rows", "workers")
    """
    value, unit = values[name], values[other]
    if value % unit:
        fitting = unit * max(1, round(value / unit))
        divisor = max(n for n in range(1, unit + 1) if value % n == 0)
        raise ValueError(
            f"`{name}` must be a multiple of `{other}`, got {name}={value} "
            f"with {other}={unit}. Use {name}={fitting}, or "
            f"{other}={divisor}."
        )


def integers(name: str, values: Iterable[int]) -> tuple[int, ...]:
    """Returns whole numbers of at least 1; errors name the one at fault."""
    return tuple(
        integer(f"{name}[{i}]", value, minimum=1)
        for i, value in enumerate(values)
    )


def boolean(name: str, value: bool) -> bool:
    """Returns True or False, which nothing else stands for."""
    if not isinstance(value, bool):
        raise ValueError(
            f"`{name}` must be True or False, got {name}={value!r}."
        )
    return value


def choice(name: str, value: str, choices: Iterable[str]) -> str:
    """Returns one of `choices`; errors list them in their order."""
    choices = tuple(choices)
    if not isinstance(value, str) or value not in choices:
        legal = ", ".join(repr(c) for c in choices)
        raise ValueError(
            f"`{name}` must be one of {legal}, got {name}={value!r}."
        )
    return value


def path(name: str, value: str | os.PathLike) -> str:
    """Returns a directory's name, which isn't empty, as a string."""
    if not isinstance(value, str | os.PathLike) or not os.fspath(value):
        raise ValueError(
            f"`{name}` must be the name of a directory or None, got "
            f"{name}={value!r}."
        )
    return os.fspath(value)


def distinct(name: str, values: Collection[Any]) -> None:
    """Checks that there are values, each different from the others."""
    if not values or len(set(values)) < len(values):
        raise ValueError(
            f"`{name}` must be different from each other, and at least one, "
            f"got {name}={list(values)}."
        )


def _check_number(
    name: str,
    value: Any,
    kind: str,
    fits: bool,
    bounds: dict[str, float | None],
) -> None:
    """Checks a number against its bounds, if it `fits` what it must be."""
    bounds = {w: b for w, b in bounds.items() if b is not None}
    if not (fits and all(_HOLDS[w](value, b) for w, b in bounds.items())):
        needed = ", ".join([kind, *(f"{w} {b}" for w, b in bounds.items())])
        raise ValueError(f"`{name}` must be {needed}, got {name}={value!r}.")
