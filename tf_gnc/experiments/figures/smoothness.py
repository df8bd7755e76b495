"""Figures 5 and 9: how smooth the loss is, plain and convolved with noise."""

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from tf_gnc.experiments.figures.recorded_runs import RecordedRun
from tf_gnc.experiments.figures.style import (
    band,
    line_style,
    mark_rate_drops,
    new_figure,
    plot,
    trim,
)

_TITLES = (
    ("loss", "(a) loss along the gradient"),
    ("gradient", "(b) change of the gradient, l2"),
    ("beta", "(c) beta-smoothness"),
)


def draw_plain_and_convolved(runs: Sequence[RecordedRun]) -> Figure:
    """Draws the loss with and without a run's noise, a row for each run."""
    figure, panels = new_figure(len(runs), 3, height=3.0, share=False)
    for row, run in enumerate(runs):
        three = panels[3 * row : 3 * row + 3]
        for place, kind in enumerate(("plain", "convolved")):
            _draw(three, run, kind, place, kind)
        _finish(three, [run], f"{run.label}: ", last=row == len(runs) - 1)
    return figure


def draw_as_trained(runs: Sequence[RecordedRun]) -> Figure:
    """Draws the loss that each run trains on, all runs in the same panels."""
    figure, panels = new_figure(1, 3, share=False)
    for place, run in enumerate(runs):
        _draw(panels, run, "convolved", place, run.label)
    _finish(panels, runs, "", last=True)
    return figure


def _draw(
    panels: Sequence[Axes], run: RecordedRun, kind: str, place: int, label: str
) -> None:
    style = line_style(place, label)
    for axes, (name, _) in zip(panels, _TITLES, strict=True):
        if name == "beta":
            plot(axes, run.series("smoothness", kind, name), **style)
            continue
        low, high = (
            run.series("smoothness", kind, name, end) for end in (0, 1)
        )
        band(axes, low, high, style["color"], label)


def _finish(
    panels: Sequence[Axes],
    runs: Sequence[RecordedRun],
    prefix: str,
    last: bool,
) -> None:
    mark_rate_drops(panels, runs)
    for axes, (name, title) in zip(panels, _TITLES, strict=True):
        axes.set_yscale("log")
        axes.set_title(f"{prefix}{title}", fontsize=9)
        ylabel = {"loss": "Loss", "gradient": "Distance", "beta": "beta"}[name]
        trim(axes, "Epoch" if last else "", ylabel)
