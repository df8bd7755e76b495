r"""The measures that a probe can take: their names, arguments and numbers.

cheap  read from the table that each step leaves (tf_gnc.step.step_table)
full   calls of tf_gnc.analysis, which evaluate the model anew
"""

import inspect
import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np

from tf_gnc import _check, _files, analysis
from tf_gnc.analysis.noise_scale import estimates, noise_scale
from tf_gnc.step.step_table import StepTable
from tf_gnc.step.train_step import GNCTrainStep


def noise_norm(table: StepTable) -> float:
    r"""Returns the mean over workers of :math:`\|\omega_i\|`."""
    return float(np.mean(np.sqrt(table.noise_squares)))


def relative_displacement(table: StepTable) -> float:
    r"""Returns the mean over workers of :math:`\|x_i - x\| / \|x\|`."""
    lengths = np.sqrt(table.displacement_squares)
    norm = math.sqrt(table.weights_square)
    return float(np.mean(lengths)) / norm if norm else 0.0


def layer_displacement(table: StepTable) -> dict[str, dict[str, float | None]]:
    r"""Returns `relative_displacement` of each variable by itself.

    Under `layers`, by path; None where the variable is all zeros.
    """
    triples = zip(
        table.paths, table.layer_displacements, table.layer_norms, strict=True
    )
    return {
        "layers": {
            path: float(moved / norm) if norm else None
            for path, moved, norm in triples
        }
    }


def gradient_cosine(table: StepTable) -> float | None:
    r"""Returns the workers' mean cosine with the mean gradient.

    Each worker's counts by its gradient's length,
    :math:`\sum_i \|g_i\| \cos(g_i, \tilde g) / \sum_i \|g_i\|`, which is
    :math:`\|\tilde g\|` over the mean of :math:`\|g_i\|`: so no gradient has
    to be kept until the mean is known. None where all are zero.
    """
    lengths = np.sqrt(table.gradient_squares)
    mean = float(np.mean(lengths))
    return math.sqrt(table.mean_gradient_square) / mean if mean else None


def loss_spread(table: StepTable) -> dict[str, float]:
    """Returns min, max, standard deviation and mean of the workers' losses."""
    names = ("min", "max", "std", "mean")
    return {name: float(getattr(np, name)(table.losses)) for name in names}


def gradient_noise_scale(table: StepTable) -> float | None:
    """Returns the step's `analysis.noise_scale.noise_scale`, in examples."""
    return noise_scale(*_squares(table))


def gradient_and_noise(table: StepTable) -> tuple[float, float]:
    """Returns the two estimates whose ratio the noise scale is."""
    return estimates(*_squares(table))


_CHEAP = (
    noise_norm, relative_displacement, layer_displacement, loss_spread,
    gradient_cosine, gradient_noise_scale,
)  # fmt: skip
CHEAP: dict[str, Callable[[StepTable], Any]] = {f.__name__: f for f in _CHEAP}
FULL = ("similarity", "spectrum", "sharpness", "smoothness", "landscape")


def arguments(
    measures: str | Iterable[str] | Mapping[str, Mapping[str, Any]],
    batch: Any,
    dataset: Any,
) -> dict[str, dict[str, Any]]:
    """Returns the chosen measures, each with its arguments.

    `batch` and `dataset` are for the measures that take one and weren't given
    another.
    """
    if isinstance(measures, str):
        measures = [measures]
    if not isinstance(measures, Mapping):
        measures = {name: {} for name in measures}
    if not measures:
        raise ValueError(
            "`measures` must name at least one measure, got none. Choose from "
            f"{', '.join([*CHEAP, *FULL])}."
        )
    shared = {"batch": batch, "dataset": dataset}
    return {
        _check.choice("measures", name, [*CHEAP, *FULL]): _arguments(
            name, given or {}, shared
        )
        for name, given in measures.items()
    }


def _arguments(
    name: str, given: Mapping[str, Any], shared: Mapping[str, Any]
) -> dict[str, Any]:
    parameters = {}
    if name in FULL:
        signature = inspect.signature(getattr(analysis, name))
        parameters = dict(signature.parameters)
        del parameters["model"]
    for key, value in given.items():
        if key not in parameters:
            legal = ", ".join(parameters) or "none"
            raise ValueError(
                f"`{name}` takes the arguments {legal}, got {key}={value!r}. "
                "Leave it out of `measures`."
            )
    found = {
        key: value
        for key, value in shared.items()
        if key in parameters and value is not None
    }
    found |= given
    for key, parameter in parameters.items():
        if parameter.default is parameter.empty and key not in found:
            raise ValueError(
                f"The measure {name!r} needs a `{key}`, got {key}=None. Pass "
                f"Probe(..., {key}=...)."
            )
    return found


def take_full(
    model: GNCTrainStep, chosen: Mapping[str, Mapping[str, Any]], step: int
) -> dict[str, Any]:
    """Returns what the full measures among those chosen find, for JSON.

    `chosen` is what `arguments` returned; `step` counts the steps taken. A
    batch that is a function of it is made once for all.
    """
    row, made = {}, {}
    for name, given in chosen.items():
        if name in FULL:
            given, make = dict(given), given.get("batch")
            if callable(make):
                if id(make) not in made:
                    made[id(make)] = make(step)
                given["batch"] = made[id(make)]
            row[name] = as_json(getattr(analysis, name)(model, **given))
    return row


def scalars(name: str, value: Any) -> dict[str, float]:
    """Returns the single numbers in a measure's value, with their names.

    Lists, and what there is for each layer under `layers`, are left out.

    Example:
        >>> scalars("similarity", {"total": 0.5, "layers": {"a": 0.5}})
        {'similarity_total': 0.5}
    """
    if isinstance(value, Mapping):
        found = {}
        for key, part in value.items():
            if key != "layers":
                found |= scalars(f"{name}_{key}", part)
        return found
    return {name: float(value)} if isinstance(value, int | float) else {}


def as_json(value: Any) -> Any:
    """Returns a value with None for each number that isn't finite, for JSON."""
    if isinstance(value, Mapping):
        return {key: as_json(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [as_json(part) for part in value]
    return _files.finite_or_none(value) if isinstance(value, float) else value


def _squares(table: StepTable) -> tuple[np.ndarray, float, int, int]:
    b = table.examples_per_worker
    big = b * len(table.gradient_squares)
    return table.gradient_squares, table.mean_gradient_square, b, big
