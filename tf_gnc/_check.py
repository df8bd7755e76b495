"""Checks of arguments, all with errors of one form.

Every message says what came, what is needed and how to mend it, and every
validator returns the value it was given in the plain Python type that the
caller stores, so that a constructor validates and assigns in one line.
"""

import math
import numbers
import os
from collections.abc import Collection, Iterable
from typing import Any


def real(
    name: str,
    value: float,
    *,
    minimum: float | None = None,
    above: float | None = None,
    maximum: float | None = None,
) -> float:
    """Returns `value` as a finite float within the given bounds.

    Args:
        name: The argument's name, as the user wrote it.
        value: What the user passed.
        minimum: Smallest legal value, itself included.
        above: Lower bound, itself excluded.
        maximum: Largest legal value, itself included.

    Raises:
        ValueError: If `value` is not a finite real number in the bounds.

    Example:
        >>> real("alpha", 1, minimum=0)
        1.0
    """
    needed = ["a finite number"]
    if minimum is not None:
        needed.append(f"at least {minimum}")
    if above is not None:
        needed.append(f"above {above}")
    if maximum is not None:
        needed.append(f"at most {maximum}")
    if (
        not _is_finite(value)
        or (minimum is not None and value < minimum)
        or (above is not None and value <= above)
        or (maximum is not None and value > maximum)
    ):
        raise ValueError(
            f"`{name}` must be {', '.join(needed)}, got {name}={value!r}."
        )
    return float(value)


def integer(
    name: str,
    value: int,
    *,
    minimum: int | None = None,
    maximum: int | None = None,
) -> int:
    """Returns `value` as an int within the given bounds, ends included.

    Args:
        name: The argument's name, as the user wrote it.
        value: What the user passed.
        minimum: Smallest legal value.
        maximum: Largest legal value.

    Raises:
        ValueError: If `value` is not a whole number in the bounds.

    Example:
        >>> integer("num_workers", 8, minimum=1)
        8
    """
    needed = ["a whole number"]
    if minimum is not None:
        needed.append(f"at least {minimum}")
    if maximum is not None:
        needed.append(f"at most {maximum}")
    is_integer = isinstance(value, numbers.Integral) and not isinstance(
        value, bool
    )
    if (
        not is_integer
        or (minimum is not None and value < minimum)
        or (maximum is not None and value > maximum)
    ):
        raise ValueError(
            f"`{name}` must be {', '.join(needed)}, got {name}={value!r}."
        )
    return int(value)


def boolean(name: str, value: bool) -> bool:
    """Returns `value` if it is True or False.

    Args:
        name: The argument's name, as the user wrote it.
        value: What the user passed.

    Raises:
        ValueError: If `value` is anything but a bool.
    """
    if not isinstance(value, bool):
        raise ValueError(
            f"`{name}` must be True or False, got {name}={value!r}."
        )
    return value


def choice(name: str, value: str, choices: Iterable[str]) -> str:
    """Returns `value` if it is one of `choices`.

    Args:
        name: The argument's name, as the user wrote it.
        value: What the user passed.
        choices: The legal values, in the order in which to list them.

    Raises:
        ValueError: If `value` is none of them.
    """
    choices = tuple(choices)
    if not isinstance(value, str) or value not in choices:
        legal = ", ".join(repr(c) for c in choices)
        raise ValueError(
            f"`{name}` must be one of {legal}, got {name}={value!r}."
        )
    return value


def path(name: str, value: str | os.PathLike) -> str:
    """Returns a directory's name as a string.

    Args:
        name: The argument's name, as the user wrote it.
        value: What the user passed.

    Raises:
        ValueError: If `value` is no path, or an empty one.
    """
    if not isinstance(value, str | os.PathLike) or not os.fspath(value):
        raise ValueError(
            f"`{name}` must be the name of a directory or None, got "
            f"{name}={value!r}."
        )
    return os.fspath(value)


def distinct(name: str, values: Collection[Any]) -> None:
    """Checks that there are values, each different from the others.

    Args:
        name: The argument's name, as the user wrote it.
        values: What the user passed.

    Raises:
        ValueError: If there are none, or two are the same.
    """
    if not values or len(set(values)) < len(values):
        raise ValueError(
            f"`{name}` must be different from each other, and at least one, "
            f"got {name}={list(values)}."
        )


def _is_finite(value: object) -> bool:
    if not isinstance(value, numbers.Real) or isinstance(value, bool):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:  # an int that no float can hold
        return False
