"""The paper's figures, drawn from what runs have recorded; see the registry.

Takes records; knows neither models nor files. Smoothness is in loss_shape.py.
"""

import dataclasses
import itertools
import math
import statistics
from collections.abc import Iterable, Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from tf_gnc.experiments.figures import style
from tf_gnc.experiments.figures.recorded_runs import (
    RecordedRun,
    Runs,
    Series,
    epoch_series,
)

# Percentiles of the eigenvalues. The smallest is zero, since the workers'
# noise has their mean subtracted, and has no logarithm.
_PERCENTILES = ("25", "50", "75", "100")


def _choose_layer(runs: Runs, layer: str | None) -> str:
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


def draw_accuracy(runs: Runs) -> Figure:
    """Draws accuracy on the test data along training: Fig. 3(a), 7(a)."""
    figure, (axes,) = style.new_figure()
    lines = [epoch_series(run.metrics, "val_accuracy") for run in runs]
    _a_line_each(axes, runs, lines)
    axes.yaxis.set_major_formatter(PercentFormatter(1.0))
    style.trim(axes, "Epoch", "Accuracy on the test data")
    return figure


def draw_similarity(runs: Runs) -> Figure:
    """Draws the gradients' cosine: Fig. 3(b), 3(c), 7(b)."""
    figure, (axes,) = style.new_figure()
    lines = [run.series("similarity", "total") for run in runs]
    _a_line_each(axes, runs, lines)
    style.trim(axes, "Epoch", "Cosine similarity with the full gradient", runs)
    return figure


def draw_condition_numbers(runs: Runs) -> Figure:
    """Draws a line for each kernel: Fig. 4(a), upper panel."""
    figure, (axes,) = style.new_figure()
    for number, run in enumerate(runs):
        look = style.line_style(number, run.label) | {"lw": 0.9, "alpha": 0.75}
        for path in filter(_is_kernel, _paths(run)):
            values = run.series("spectrum", "layers", path, "condition_number")
            style.plot(axes, values, **look)
            look["label"] = None  # One entry in the legend is enough.
    axes.set_yscale("log")
    style.trim(axes, "Epoch", "Condition number, one line a layer", runs)
    return figure


def draw_eigenvalues(runs: Runs, layer: str | None) -> Figure:
    """Draws one layer's eigenvalues, a panel a run: Fig. 4(a), lower panel."""
    layer = _choose_layer(runs, layer)
    runs = [run for run in runs if layer in _paths(run)]
    figure, panels = style.new_figure(columns=len(runs))
    figure.suptitle(layer, fontsize=10)
    for axes, run in zip(panels, runs, strict=True):
        for number, percentile in enumerate(_PERCENTILES):
            values = run.series(
                "spectrum", "layers", layer, "percentiles", percentile
            )
            label = "largest" if percentile == "100" else f"{percentile} %"
            style.plot(axes, values, **style.line_style(number, label))
        axes.set_yscale("log")
        axes.set_title(run.label, fontsize=10)
        ylabel = "Eigenvalue of the noise's covariance"
        style.trim(axes, "Epoch", ylabel if axes is panels[0] else "", [run])
    return figure


def draw_losses(runs: Runs, around: Sequence[float] | None = None) -> Figure:
    """Draws the range of the workers' losses, a row a run: Fig. 4(b), (c), 8.

    Of all epochs, or in a column for each epoch in `around`, with one before
    and one after it.
    """
    columns = [None] if around is None else list(around)
    figure, panels = style.new_figure(
        len(runs), len(columns), height=2.4, share="col"
    )
    places = itertools.product(enumerate(runs), columns)
    for axes, ((number, run), epoch) in zip(panels, places, strict=True):
        bottom = run is runs[-1]
        _draw_losses_of(axes, run, number, epoch, "Step" if bottom else "")
    for number, epoch in enumerate(columns):
        if not any(axes.lines for axes in panels[number :: len(columns)]):
            raise ValueError(
                "`around` must be epochs near which losses were measured, got "
                f"around={epoch:g}. Choose another epoch (--around), or "
                "measure more often (tf-gnc train --probe_every=STEPS)."
            )
    return figure


def _draw_losses_of(
    axes: Axes, run: RecordedRun, number: int, epoch: float | None, xlabel: str
) -> None:
    """Draws a run's losses, near an epoch or all of them, if there are any."""
    rows, width = run.rows, run.steps_per_epoch
    if epoch is not None:
        rows = [r for r in rows if abs(r["step"] / width - epoch) <= 1]
    near = dataclasses.replace(run, rows=rows, steps_per_epoch=1)
    measure, middle, label = "sharpness", "clean_loss", "at x"
    title = run.label if epoch is None else f"{run.label}, epoch {epoch:.3g}"
    if not near.has(measure):
        measure, middle, label = "loss_spread", "mean", "mean of workers"
    if not all(r[measure].get("rows") == "all" for r in rows if r.get(measure)):
        title += ", own rows"
    low, high, bold = (
        _with_gaps(near.series(measure, name))
        for name in ("min", "max", middle)
    )
    axes.set_title(title, fontsize=10)
    if low[0]:
        look = style.line_style(number, label) | {"lw": 2.0, "ls": "-"}
        style.band(axes, low, high, look["color"], "workers at xᵢ")
        style.plot(axes, bold, **look)
    style.trim(axes, xlabel, "Loss")


def _with_gaps(series: Series) -> Series:
    """Returns a series that breaks where nothing was measured for long."""
    x, y = series
    steps = [b - a for a, b in itertools.pairwise(x)]
    usual = statistics.median(steps) if steps else 0
    for place in range(len(steps), 0, -1):
        if steps[place - 1] > 3 * usual:
            x = [*x[:place], x[place - 1] + usual, *x[place:]]
            y = [*y[:place], math.nan, *y[place:]]
    return x, y


def draw_training_loss(runs: Runs) -> Figure:
    """Draws training loss: Fig. 10, 11."""

    def finest(run: RecordedRun) -> Series:
        lines = (
            epoch_series(run.metrics, "loss"),
            run.series("loss_spread", "mean"),
        )
        return max(lines, key=lambda line: len(line[0]))

    figure, (axes,) = style.new_figure()
    _a_line_each(axes, runs, map(finest, runs))
    style.log_scale_if_wide(axes)
    style.trim(axes, "Epoch", "Training loss", runs)
    return figure


_NOISE = {
    "Noise norm": (("noise_norm",),),
    "Relative displacement": (
        ("relative_displacement",),
        ("sharpness", "relative_displacement"),
    ),
    "Noise scale, examples": (
        ("gradient_noise_scale",),
        ("sharpness", "noise_scale"),
    ),
}


def draw_noise(runs: Runs) -> Figure | None:
    """Draws how large the noise is, a panel for each measure there is."""
    shown = {}
    for label, ways in _NOISE.items():
        lines = [_first_of(run, ways) for run in runs]
        if any(lines):
            shown[label] = lines
    if not shown:
        return None
    figure, panels = style.new_figure(columns=len(shown), share=False)
    for axes, (label, lines) in zip(panels, shown.items(), strict=True):
        _a_line_each(axes, runs, lines)
        if any(value > 0 for line in filter(None, lines) for value in line[1]):
            axes.set_yscale("log")
        style.trim(axes, "Epoch", label, runs)
    return figure


def _first_of(run: RecordedRun, ways: Iterable[Sequence[str]]) -> Series | None:
    """Returns the first series that has numbers."""
    for way in ways:
        series = run.series(*way)
        if any(map(math.isfinite, series[1])):
            return series
    return None


def _a_line_each(
    axes: Axes, runs: Runs, lines: Iterable[Series | None]
) -> None:
    """Draws a line for each run that has one."""
    for number, (run, line) in enumerate(zip(runs, lines, strict=True)):
        if line is not None:
            style.plot(axes, line, **style.line_style(number, run.label))


def _paths(run: RecordedRun) -> list[str]:
    """Returns the weights whose spectrum a run has."""
    for row in run.rows:
        if row.get("spectrum") is not None:
            return list(row["spectrum"]["layers"])
    return []


def _is_kernel(path: str) -> bool:
    """Tells whether the paper means it: a kernel, not a vector."""
    return path.endswith("/kernel")
