"""The loss around the weights, as a curve or, along two directions, a map."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm, Normalize
from matplotlib.figure import Figure

from tf_gnc.experiments.figures.recorded_runs import RecordedRun
from tf_gnc.experiments.figures.style import line_style, new_figure, plot, trim

MOST = 5
"""How many of a run's curves are drawn; more couldn't be told apart."""


def draw_landscape(runs: Sequence[RecordedRun]) -> Figure:
    """Draws the loss along random directions, a panel for each run.

    Args:
        runs: Runs with a landscape.
    """
    figure, panels = new_figure(columns=len(runs), share=False)
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
    places = np.linspace(0, len(rows) - 1, min(MOST, len(rows)))
    seen = []
    for number, place in enumerate(places.round().astype(int)):
        row = rows[place]
        losses = _losses(row["landscape"])
        seen.append(losses)
        style = line_style(
            number, f"epoch {row['step'] / run.steps_per_epoch:.3g}"
        )
        plot(axes, (row["landscape"]["coordinates"], losses), **style)
    if _is_wide(np.concatenate(seen)):
        axes.set_yscale("log")
    trim(axes, "a, in norms of the filters", "Loss")


def _draw_map(axes: Axes, landscape: Mapping[str, Any]) -> None:
    coordinates, losses = landscape["coordinates"], _losses(landscape)
    norm = LogNorm() if _is_wide(losses) else Normalize()
    # Rows are the first direction, which goes to the right.
    mesh = axes.pcolormesh(
        coordinates, coordinates, np.ma.masked_invalid(losses.T), norm=norm
    )
    axes.figure.colorbar(mesh, ax=axes, label="Loss")
    trim(axes, "a, in norms of the filters", "b")


def _losses(landscape: Mapping[str, Any]) -> np.ndarray:
    return np.array(landscape["loss"], dtype=float)  # None is NaN.


def _is_wide(losses: np.ndarray) -> bool:
    """Tells whether losses need a logarithmic axis, and have one."""
    found = losses[np.isfinite(losses)]
    return bool(
        found.size and found.min() > 0 and found.max() > 10 * found.min()
    )
