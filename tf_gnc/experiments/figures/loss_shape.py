"""The loss around the weights: how smooth it is, curves and maps of it.

Figures 5 and 9 of the paper, plain and convolved with noise; and the landscape
along random directions.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm, Normalize
from matplotlib.figure import Figure

from tf_gnc.experiments.figures import style
from tf_gnc.experiments.figures.recorded_runs import RecordedRun, Runs

MOST = 5
"""How many of a run's curves are drawn; more couldn't be told apart."""

_SMOOTHNESS = (
    ("loss", "(a) loss along the gradient", "Loss"),
    ("gradient", "(b) change of the gradient, l2", "Distance"),
    ("beta", "(c) beta-smoothness", "beta"),
)


def draw_landscape(runs: Runs) -> Figure:
    """Draws the loss along random directions, a panel for each run."""
    figure, panels = style.new_figure(columns=len(runs), share=False)
    for axes, run in zip(panels, runs, strict=True):
        rows = [row for row in run.rows if row.get("landscape") is not None]
        axes.set_title(run.label, fontsize=10)
        if isinstance(rows[-1]["landscape"]["loss"][0], list):
            _draw_map(axes, rows[-1]["landscape"])
        else:
            _draw_curves(axes, run, rows)
    return figure


def _draw_curves(
    axes: Axes, run: RecordedRun, rows: Sequence[Mapping[str, Any]]
) -> None:
    rows = [row for row in rows if _losses(row["landscape"]).ndim == 1]
    # The first and the last, and some between.
    chosen = np.linspace(0, len(rows) - 1, min(MOST, len(rows)))
    for number, index in enumerate(chosen.round().astype(int)):
        found = rows[index]["landscape"]
        epoch = rows[index]["step"] / run.steps_per_epoch
        look = style.line_style(number, f"epoch {epoch:.3g}")
        style.plot(axes, (found["coordinates"], _losses(found)), **look)
    style.log_scale_if_wide(axes)
    style.trim(axes, "a, in norms of the filters", "Loss")


def _draw_map(axes: Axes, landscape: Mapping[str, Any]) -> None:
    coordinates, losses = landscape["coordinates"], _losses(landscape)
    norm = LogNorm() if style.is_wide(losses) else Normalize()
    # Rows are the first direction, which goes to the right.
    mesh = axes.pcolormesh(
        coordinates, coordinates, np.ma.masked_invalid(losses.T), norm=norm
    )
    axes.figure.colorbar(mesh, ax=axes, label="Loss")
    style.trim(axes, "a, in norms of the filters", "b")


def _losses(landscape: Mapping[str, Any]) -> np.ndarray:
    return np.array(landscape["loss"], dtype=float)  # None is NaN.


def draw_plain_and_convolved(runs: Runs) -> Figure:
    """Draws the loss with and without a run's noise, a row for each run."""
    figure, panels = style.new_figure(len(runs), 3, height=3.0, share=False)
    for row, run in enumerate(runs):
        lines = [(run, kind, kind) for kind in ("plain", "convolved")]
        xlabel = "Epoch" if run is runs[-1] else ""
        three = panels[3 * row : 3 * row + 3]
        _draw_smoothness(three, lines, f"{run.label}: ", xlabel)
    return figure


def draw_as_trained(runs: Runs) -> Figure:
    """Draws the loss that each run trains on, all runs in the same panels."""
    figure, panels = style.new_figure(1, 3, share=False)
    lines = [(run, "convolved", run.label) for run in runs]
    _draw_smoothness(panels, lines, "", "Epoch")
    return figure


def _draw_smoothness(
    panels: Sequence[Axes],
    lines: Sequence[tuple[RecordedRun, str, str]],
    prefix: str,
    xlabel: str,
) -> None:
    """Draws in three panels; a line is a run, what of it, and a label."""
    for axes, (name, title, ylabel) in zip(panels, _SMOOTHNESS, strict=True):
        for number, (run, kind, label) in enumerate(lines):
            look = style.line_style(number, label)
            if name == "beta":
                style.plot(axes, run.series("smoothness", kind, name), **look)
                continue
            low, high = (
                run.series("smoothness", kind, name, end) for end in (0, 1)
            )
            style.band(axes, low, high, look["color"], label)
        axes.set_yscale("log")
        axes.set_title(f"{prefix}{title}", fontsize=9)
        style.trim(axes, xlabel, ylabel, [run for run, _, _ in lines])
