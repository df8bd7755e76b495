"""How a figure looks: colours, axes, lines, shaded bands; and its files.

The colours are the light ones of page.py's style sheet, so that on the page
they follow the reader's choice of dark or light. Nothing is drawn by pyplot,
which may need a screen and leaves figures open in the caller's session.
"""

import html
import io
from collections.abc import Iterable
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from tf_gnc.experiments.figures.recorded_runs import Runs, Series

INK = "#1f2328"
COLORS = ("#0b62c4", "#b8430b", "#19752f", "#8a3ab0", "#8c6100")
_DASHES = ("-", "--", ":", "-.")

STYLE = {
    "svg.fonttype": "none",  # Text stays text.
    "svg.hashsalt": "tf-gnc",  # The same drawing twice is the same text.
    "text.color": INK,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "grid.color": INK,
    "font.family": "sans-serif",
}
"""Settings of matplotlib while figures are drawn and written."""


def new_figure(
    rows: int = 1,
    columns: int = 1,
    height: float = 3.8,
    share: bool | str = True,
) -> tuple[Figure, list[Axes]]:
    """Returns a figure and its panels, row by row, each `height` inches high.

    With `share` all panels have the same axes, with "col" those of a column.
    """
    width = 7.5 if columns == 1 else min(4.6 * columns, 13.8)
    figure = Figure(
        figsize=(width, height * rows + 0.3), dpi=120, layout="constrained"
    )
    panels = figure.subplots(
        rows, columns, squeeze=False, sharex=share, sharey=share
    )
    return figure, list(panels.ravel())


def line_style(number: int, label: str | None) -> dict[str, Any]:
    """Returns colour, dashes and label of a line, numbered from 0."""
    dash = _DASHES[number // len(COLORS) % len(_DASHES)]
    color = COLORS[number % len(COLORS)]
    return {"color": color, "ls": dash, "lw": 1.4, "label": label}


def plot(axes: Axes, series: Series, **style: Any) -> None:
    """Draws a line; of a few points, points too."""
    # A single point makes no line.
    marker = "o" if len(series[0]) < 12 else None
    axes.plot(*series, marker=marker, markersize=3.5, **style)


def log_scale_if_wide(
    axes: Axes, values: Iterable[float] | None = None
) -> None:
    """Uses a logarithmic axis where values, or the lines, are wide."""
    if values is None:
        values = np.concatenate([line.get_ydata() for line in axes.lines])
    if is_wide(np.array(values, float)):
        axes.set_yscale("log")


def is_wide(values: np.ndarray) -> bool:
    """Tells whether the positive values span more than a decade."""
    found = values[np.isfinite(values) & (values > 0)]
    return bool(found.size) and found.max() > 10 * found.min()


def band(axes: Axes, low: Series, high: Series, color: str, label: str) -> None:
    """Shades what lies between two lines over the same x."""
    axes.fill_between(
        low[0], low[1], high[1], color=color, alpha=0.25, lw=0.6, label=label
    )
    if len(low[0]) == 1:  # No area.
        axes.vlines(low[0], low[1], high[1], color=color, alpha=0.4, lw=4)


def trim(axes: Axes, xlabel: str, ylabel: str, runs: Runs = ()) -> None:
    """Names the axes, removes the frame, and adds a legend.

    A vertical line marks where the learning rate of one of the runs fell.
    """
    epochs = sorted({epoch for run in runs for epoch in run.rate_drops()})
    for epoch in epochs:
        axes.axvline(
            epoch, color=INK, lw=0.9, ls=":", alpha=0.7,
            label="learning rate decays" if epoch == epochs[0] else None,
        )  # fmt: skip
    axes.set_xlabel(xlabel)
    axes.set_ylabel(ylabel)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(alpha=0.2, linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)
    if axes.get_legend_handles_labels()[0]:
        axes.legend(frameon=False, fontsize=8)


def png(figure: Figure) -> bytes:
    """Returns a figure as a PNG."""
    file = io.BytesIO()
    with matplotlib.rc_context(STYLE):
        figure.savefig(file, format="png")
    return file.getvalue()


def svg(figure: Figure, title: str) -> str:
    """Returns a figure as SVG, whose colours are those of the style sheet."""
    file = io.StringIO()
    with matplotlib.rc_context(STYLE):
        figure.savefig(
            file, format="svg", transparent=True, metadata={"Date": None}
        )
    drawing = file.getvalue()
    drawing = drawing[drawing.index("<svg") :].replace(
        "<svg ", f'<svg role="img" aria-label="{html.escape(title)}" ', 1
    )
    drawing = drawing.replace(INK, "var(--ink)")
    for number, color in enumerate(COLORS):
        drawing = drawing.replace(color, f"var(--l{number})")
    return drawing
