"""Variables that an optimizer leaves out, by regular expressions.

Paths rather than variables, since a path survives saving.
"""

import re
from collections.abc import Iterable

# The biases, and the scales and shifts of Keras's normalization layers.
BIASES_AND_NORMALIZATION = (r"(^|/)(bias|gamma|beta)$",)


def patterns(
    exclude: str | Iterable[str], name: str = "exclude"
) -> tuple[str, ...]:
    """Returns the regular expressions; raises if one of them isn't one.

    `name` is what the argument is called.
    """
    if isinstance(exclude, str):
        exclude = (exclude,)
    if not isinstance(exclude, Iterable):
        raise ValueError(
            f"`{name}` must be regular expressions for the paths of "
            f"variables, got {name}={exclude!r}. Use () to exclude nothing."
        )
    exclude = tuple(exclude)
    for pattern in exclude:
        try:
            re.compile(pattern)
        except (re.error, TypeError) as error:
            raise ValueError(
                f"`{name}` must be regular expressions for the paths of "
                f"variables, got {pattern!r} ({error}). Use re.escape for a "
                "path as it stands."
            ) from error
    return exclude


def pattern(name: str, value: str) -> str:
    """Returns the regular expression that is the value of a setting."""
    return patterns((value,), name)[0]


def is_excluded(path: str, patterns: Iterable[str]) -> bool:
    """Tells whether one of the patterns is found in a path.

    Example:
        >>> is_excluded("dense/bias", BIASES_AND_NORMALIZATION)
        True
        >>> is_excluded("bias_net/kernel", BIASES_AND_NORMALIZATION)
        False
    """
    return any(re.search(pattern, path) for pattern in patterns)
