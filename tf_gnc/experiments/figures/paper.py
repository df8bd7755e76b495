"""The paper's figures, drawn from what runs have recorded.

    3(a), 7(a)             accuracy along training
    3(b), 3(c), 7(b)       cosine similarity of the gradients
    4(a)                   condition numbers, eigenvalues of the noise
    4(b), 4(c), 8          losses of the workers' displaced models
    5, 9                   smoothness; in loss_shape.py
    10, 11                 training loss

Takes records; knows neither models nor files.
"""

import dataclasses
import math
from collections.abc import Callable, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from tf_gnc.experiments.figures.recorded_runs import (
    RecordedRun,
    Runs,
    Series,
)
from tf_gnc.experiments.figures.style import (
    band,
    line_style,
    log_scale_if_wide,
    mark_rate_drops,
    new_figure,
    plot,
    trim,
)

# Percentiles of the eigenvalues. The smallest is zero, since the workers'
# noise has their mean subtracted; a logarithmic axis has no place for it.
_PERCENTILES = ("25", "50", "75", "100")


@dataclasses.dataclass(frozen=True)
class View:
    """What to look at.

    Attributes:
        layer: The weight whose eigenvalues are drawn; None for a convolution
            kernel in the middle of the network.
        around: The epoch around which losses are drawn; None for all.
    """

    layer: str | None = None
    around: float | None = None


def choose_layer(runs: Runs, layer: str | None) -> str:
    """Returns the weight whose eigenvalues are drawn; checks a chosen one."""
    known = list(dict.fromkeys(path for run in runs for path in _paths(run)))
    if layer is None:
        kernels = [path for path in known if _is_kernel(path)] or known
        convolutions = [path for path in kernels if "conv" in path] or kernels
        return convolutions[len(convolutions) // 2]
    if layer not in known:
        raise ValueError(
            f"`layer` must be one of {', '.join(known)}, got layer={layer!r}."
        )
    return layer


def draw_accuracy(runs: Runs, view: View) -> Figure:
    """Draws accuracy on the test data along training: Fig. 3(a), 7(a)."""
    figure, axes = _a_line_each(runs, lambda run: run.metric("val_accuracy"))
    axes.yaxis.set_major_formatter(PercentFormatter(1.0))
    trim(axes, "Epoch", "Accuracy on the test data")
    return figure


def draw_similarity(runs: Runs, view: View) -> Figure:
    """Draws the gradients' cosine: Fig. 3(b), 3(c), 7(b)."""
    figure, axes = _a_line_each(
        runs, lambda run: run.series("similarity", "total")
    )
    mark_rate_drops([axes], runs)
    trim(axes, "Epoch", "Cosine similarity with the full gradient")
    return figure


def draw_condition_numbers(runs: Runs, view: View) -> Figure:
    """Draws a line for each kernel: Fig. 4(a), upper panel."""
    figure, (axes,) = new_figure()
    for place, run in enumerate(runs):
        style = line_style(place, run.label) | {"lw": 0.9, "alpha": 0.75}
        for path in filter(_is_kernel, _paths(run)):
            values = run.series("spectrum", "layers", path, "condition_number")
            plot(axes, values, **style)
            style["label"] = None  # One entry in the legend is enough.
    axes.set_yscale("log")
    mark_rate_drops([axes], runs)
    trim(axes, "Epoch", "Condition number, one line a layer")
    return figure


def draw_eigenvalues(runs: Runs, view: View) -> Figure | None:
    """Draws one layer's eigenvalues, a panel a run: Fig. 4(a), lower panel."""
    layer = choose_layer(runs, view.layer)
    runs = [run for run in runs if layer in _paths(run)]
    figure, panels = new_figure(columns=len(runs))
    figure.suptitle(layer, fontsize=10)
    for axes, run in zip(panels, runs, strict=True):
        for place, percentile in enumerate(_PERCENTILES):
            values = run.series(
                "spectrum", "layers", layer, "percentiles", percentile
            )
            label = "largest" if percentile == "100" else f"{percentile} %"
            plot(axes, values, **line_style(place, label))
        axes.set_yscale("log")
        axes.set_title(run.label, fontsize=10)
        mark_rate_drops([axes], [run])
        ylabel = "Eigenvalue of the noise's covariance"
        trim(axes, "Epoch", ylabel if axes is panels[0] else "")
    return figure


def draw_losses(runs: Runs, view: View) -> Figure:
    """Draws the range of the workers' losses, a panel a run: Fig. 4(b), 8."""
    return _losses(runs, None)


def draw_losses_around(runs: Runs, view: View) -> Figure | None:
    """Draws the same around an epoch; None if there is to be none."""
    return None if view.around is None else _losses(runs, view.around)


def _losses(runs: Runs, around: float | None) -> Figure:
    figure, panels = new_figure(rows=len(runs), height=2.4)
    seen = False
    for place, (axes, run) in enumerate(zip(panels, runs, strict=True)):
        measure, middle, label = "sharpness", "clean_loss", "at x"
        if not run.has(measure):
            measure, middle, label = "loss_spread", "mean", "mean of workers"
        low, high, bold = (
            np.array(run.series(measure, part))
            for part in ("min", "max", middle)
        )
        epochs = low[0]
        near = np.full(len(epochs), True)
        if around is not None:
            near = abs(epochs - around) <= 1
        seen = seen or near.any()
        low, high, bold = (
            (epochs[near] * run.steps_per_epoch, series[1][near])
            for series in (low, high, bold)
        )
        style = line_style(place, label) | {"lw": 2.0, "ls": "-"}
        band(axes, low, high, style["color"], "workers at xᵢ")
        plot(axes, bold, **style)
        axes.set_title(run.label, fontsize=10)
        trim(axes, "Step" if axes is panels[-1] else "", "Loss")
    if not seen:
        raise ValueError(
            "`around` must be an epoch near which losses were measured, got "
            f"around={around:g}. Choose another epoch (--around), or measure "
            "more often (tf-gnc train --probe_every=STEPS)."
        )
    return figure


def draw_training_loss(runs: Runs, view: View) -> Figure:
    """Draws training loss: Fig. 10, 11."""

    def finest(run: RecordedRun) -> Series:
        lines = run.metric("loss"), run.series("loss_spread", "mean")
        return max(lines, key=lambda line: len(line[0]))

    figure, axes = _a_line_each(runs, finest)
    log_scale_if_wide(axes)
    mark_rate_drops([axes], runs)
    trim(axes, "Epoch", "Training loss")
    return figure


def _a_line_each(
    runs: Runs, line: Callable[[RecordedRun], Series]
) -> tuple[Figure, Axes]:
    """Returns a figure of one panel, with a line for each run."""
    figure, (axes,) = new_figure()
    for place, run in enumerate(runs):
        plot(axes, line(run), **line_style(place, run.label))
    return figure, axes


_NOISE = (
    ("noise norm", (("noise_norm",),)),
    (
        "relative displacement",
        (("relative_displacement",), ("sharpness", "relative_displacement")),
    ),
    (
        "noise scale, examples",
        (("gradient_noise_scale",), ("sharpness", "noise_scale")),
    ),
)


def draw_noise(runs: Runs, view: View) -> Figure | None:
    """Draws how large the noise is, a panel for each measure there is."""
    shown = {
        label: lines
        for label, ways in _NOISE
        if (lines := _first_of(runs, ways))
    }
    if not shown:
        return None
    figure, panels = new_figure(columns=len(shown), share=False)
    for axes, (label, lines) in zip(panels, shown.items(), strict=True):
        for place, line in lines.items():
            plot(axes, line, **line_style(place, runs[place].label))
        if any(v > 0 for _, values in lines.values() for v in values):
            axes.set_yscale("log")
        mark_rate_drops([axes], runs)
        trim(axes, "Epoch", label.capitalize())
    return figure


def _first_of(runs: Runs, ways: Sequence[Sequence[str]]) -> dict[int, Series]:
    """Returns a series of each run that has numbers, by the run's place."""
    found = {}
    for place, run in enumerate(runs):
        for measure, *parts in ways:
            series = run.series(measure, *parts)
            if place not in found and any(map(math.isfinite, series[1])):
                found[place] = series
    return found


def _paths(run: RecordedRun) -> list[str]:
    """Returns the weights whose spectrum a run has."""
    for row in run.rows:
        if row.get("spectrum") is not None:
            return list(row["spectrum"]["layers"])
    return []


def _is_kernel(path: str) -> bool:
    """Tells whether the paper means it: a kernel, not a vector."""
    return path.endswith("/kernel")
