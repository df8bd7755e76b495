r"""A search for alpha, and perhaps the learning rate, on short runs.

All distances are on a logarithmic scale, which fits alpha and the rate.
"""

import dataclasses
import math
import re
import types
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tf_gnc import _check
from tf_gnc.experiments.config import RunConfig, indifferent_settings
from tf_gnc.experiments.methods.registry import (
    COEFFICIENTS,
    METHODS,
    settings_of_method,
)
from tf_gnc.experiments.user_code import is_own

KINDS = ("grid", "golden", "tpe")

OBJECTIVES: Mapping[str, str] = types.MappingProxyType(
    {"val_accuracy": "maximize", "val_loss": "minimize", "loss": "minimize"}
)
"""What may decide, and whether more of it is better."""

Point = tuple[float, ...]
"""A value for each name in `Search.space`, in that order."""


@dataclasses.dataclass(frozen=True)
class Search:
    """What to search, and how.

    Attributes:
        base: All other settings of the runs.
        space: By name: the values of a grid, or the two ends of the range for
            the other kinds. One is a number among the method's settings, such
            as `alpha`, a second one may be `learning_rate`.
        seeds: Each value is tried with all of them; their mean counts.
        kind: A key of `KINDS`: all values, golden section, or Optuna's
            tree-structured Parzen estimator.
        trials: How many values to try. Default: all of a grid, 8 by golden
            section, 12 by TPE.
        objective: A key of `OBJECTIVES`, after the last epoch.
        holdout: Share of the training examples that the choice is made on, in
            the place of the test examples; 0 for those.

    Raises:
        ValueError: If a value is out of its range or two don't go together.
    """

    base: RunConfig
    space: Mapping[str, tuple[float, ...]]
    seeds: tuple[int, ...] = (0,)
    kind: str = "grid"
    trials: int | None = None
    objective: str = "val_accuracy"
    holdout: float = 0.1

    def __post_init__(self) -> None:
        """Validates all of it, and settles the number of trials."""
        _check.choice("search", self.kind, KINDS)
        _check.choice("objective", self.objective, OBJECTIVES)
        _check.real("holdout", self.holdout, minimum=0, maximum=0.5)
        _check.distinct("seeds", self.seeds)
        self._check_names()
        for name, values in self.space.items():
            _check_values(flag_of(name), values, self.kind)
        trials = self.trials
        if trials is None:
            size = math.prod(map(len, self.space.values()))
            trials = {"golden": 8, "tpe": 12, "grid": size}[self.kind]
        elif self.kind == "grid":
            raise ValueError(
                "`trials` (--trials) is for --search=golden and "
                f"--search=tpe, got trials={trials} with a grid, which "
                "tries all its values. Give fewer of them instead."
            )
        trials = _check.integer(
            "trials", trials, minimum=2 if self.kind == "golden" else 1
        )
        object.__setattr__(self, "trials", trials)

    @property
    def names(self) -> tuple[str, ...]:
        """The settings that are searched."""
        return tuple(self.space)

    @property
    def sign(self) -> int:
        """What makes the lowest objective the best."""
        return -1 if OBJECTIVES[self.objective] == "maximize" else 1

    def named(self, point: Point) -> dict[str, float]:
        """Returns a point's values by name."""
        return dict(zip(self.names, point, strict=True))

    def runs(self, point: Point) -> dict[str, RunConfig]:
        """Returns the runs that try a point, one for each seed, by name."""
        values = self.named(point)
        where = "-".join(f"{name}{v:.12g}" for name, v in values.items())
        return {
            f"{where}-seed{seed}": self.base.replace(seed=seed, **values)
            for seed in self.seeds
        }

    def terms(self) -> dict[str, Any]:
        """Returns what is searched and how, all but the runs' settings."""
        ranges = {flag_of(name)[2:]: list(v) for name, v in self.space.items()}
        return {
            "search": self.kind,
            "alphas": None,
            "learning_rates": None,
            **ranges,
            "coefficient": self.names[0],
            "seeds": list(self.seeds),
            "trials": self.trials,
            "objective": self.objective,
            "holdout": self.holdout,
        }

    def to_dict(self) -> dict[str, Any]:
        """Returns what the results depend on, as JSON can hold it."""
        terms = {n: v for n, v in self.terms().items() if v is not None}
        left_out = indifferent_settings() | {"seed", *self.names}
        run = self.base.to_dict()
        return terms | {n: v for n, v in run.items() if n not in left_out}

    def _check_names(self) -> None:
        coefficient, *others = self.names or ("",)
        usable = coefficients(self.base.method)
        if is_own(self.base.method):
            raise ValueError(
                f"method={self.base.method!r} brings its rule's coefficient "
                "with it, so there is no setting to tune. Write a function for "
                "each value and put them side by side: `tf-gnc compare "
                "--methods=mymodule:small,mymodule:large`."
            )
        if not usable:
            able = [method for method in METHODS if coefficients(method)]
            raise ValueError(
                f"method={self.base.method!r} has no setting to tune. Use "
                f"--method={'|'.join(able)}."
            )
        _check.choice("coefficient", coefficient, usable)
        if others not in ([], ["learning_rate"]):
            raise ValueError(
                "`space` must hold a coefficient and at most a learning_rate, "
                f"got {list(self.names)}."
            )
        if others and self.kind == "golden":
            raise ValueError(
                "`learning_rates` (--learning_rates) needs --search=grid or "
                "--search=tpe: golden section knows one dimension."
            )
        if others and self.base.optimizer == "model":
            raise ValueError(
                "`learning_rates` (--learning_rates) does nothing with "
                "optimizer='model', whose rate is its own. Leave it out."
            )


def coefficients(method: str) -> list[str]:
    """Returns which of a method's settings can be searched, the usual first.

    Example:
        >>> coefficients("gnc_to_rnc")
        ['alpha', 'alpha_rnc']
    """
    found = [
        name
        for name, setting in settings_of_method(method).items()
        if setting.kind is float
        and (not setting.optional or name in (*COEFFICIENTS, "relative"))
    ]
    return sorted(found, key=lambda name: name not in COEFFICIENTS)


def read_values(name: str, text: str, kind: str) -> tuple[float, ...]:
    """Returns the values that a flag gives for a setting.

    The text is `low:high:number` or values with commas between them for a
    grid, `low:high` for the other kinds of search.

    Raises:
        ValueError: If it is anything else.

    Example:
        >>> read_values("alpha", "0.01:1:5", "grid")
        (0.01, 0.0316, 0.1, 0.316, 1.0)
        >>> read_values("alpha", "0.05, 0.5", "grid")
        (0.05, 0.5)
        >>> read_values("alpha", "1e-3:10", "golden")
        (0.001, 10.0)
    """
    flag = flag_of(name)
    try:
        numbers = tuple(float(word) for word in re.split("[:,]", text))
    except ValueError:
        numbers = ()
    colons = text.count(":")
    wanted = "low:high, as in 1e-3:10"
    if kind == "grid":
        if numbers and not colons:
            return numbers
        if len(numbers) == 3 and colons == 2 and numbers[2] in range(2, 1001):
            _check_values(flag, numbers[:2], "range")
            low, high, count = numbers
            inner = np.geomspace(low, high, int(count))[1:-1]
            return (low, *map(three_digits, inner), high)
        wanted = "low:high:number or a list, as in 1e-3:10:9 or 0.05,0.1,0.2"
    elif len(numbers) == 2 and colons == 1:
        return numbers
    raise ValueError(
        f"{flag} must be {wanted}, with --search={kind}, got {flag}={text}."
    )


def flag_of(name: str) -> str:
    """Returns the flag that says what is tried of a setting."""
    return "--learning_rates" if name == "learning_rate" else "--alphas"


def three_digits(value: float) -> float:
    """Returns three digits of a number: what is shown is what is run."""
    return float(f"{value:.3g}")


def _check_values(flag: str, values: Sequence[float], kind: str) -> None:
    for value in values:
        if not 0 < value < math.inf:
            raise ValueError(
                f"{flag} must be finite and above 0, since its scale is "
                f"logarithmic, got {value:g}."
            )
    if kind == "grid":
        if not values or len(set(values)) < len(values):
            raise ValueError(
                f"{flag} must be different from each other to three digits, "
                f"and at least one, got {list(values)}."
            )
    elif len(values) != 2 or not values[0] < values[1]:
        raise ValueError(
            f"{flag} must have its lower end below its upper end, got "
            f"{':'.join(f'{v:g}' for v in values)}."
        )
