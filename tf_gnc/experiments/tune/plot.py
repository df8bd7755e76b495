"""Draws a search: what decided, and how far the weights were displaced.

Takes what was found; knows neither how it was found nor where it is written.
Draws without pyplot, as report.py does.
"""

import io
import math
from collections.abc import Iterable, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from tf_gnc.experiments.compare.statistics import Spread
from tf_gnc.experiments.tune.search import Search
from tf_gnc.experiments.tune.trials import Trial, best_of

_COLORS = ("#c1440e", "#33658a", "#86a35a", "#8a5a83", "#b8860b", "#666666")


def draw(trials: Sequence[Trial], search: Search) -> bytes:
    """Returns a PNG: the objective, and below it the displacement.

    Args:
        trials: What came of the points.
        search: What was searched.
    """
    figure = Figure(figsize=(7.5, 7), dpi=120, layout="constrained")
    above, below = figure.subplots(2, 1, sharex=True)
    # A second dimension is a line for each of its values.
    axis = 0
    if len({trial.point[0] for trial in trials}) == 1:
        axis = len(search.names) - 1
    groups: dict[tuple, list[Trial]] = {}
    for trial in sorted(trials, key=lambda trial: trial.point):
        rest = trial.point[:axis] + trial.point[axis + 1 :]
        groups.setdefault(rest, []).append(trial)
    for place, (rest, group) in enumerate(groups.items()):
        _draw_group(
            (above, below), group, search, axis,
            color=_COLORS[place % len(_COLORS)],
            label=_label(rest, search, axis) if len(groups) <= 8 else None,
        )  # fmt: skip
    best = best_of(trials, search)
    if best is not None:
        above.axvline(
            best.point[axis], color="#666666", lw=0.9, ls=":", label="best"
        )
    _mark_diverged(above, trials, axis)
    above.set_ylabel(f"{search.objective}, after the last epoch")
    if search.objective == "val_accuracy":
        above.yaxis.set_major_formatter(PercentFormatter(1.0))
    below.set_ylabel("relative displacement, mean")
    below.set_yscale("log")
    below.set_xlabel(search.names[axis])
    below.set_xscale("log")
    for axes in (above, below):
        axes.grid(alpha=0.25, linewidth=0.6)
        axes.spines[["top", "right"]].set_visible(False)
    above.legend(frameon=False, fontsize=9)
    file = io.BytesIO()
    figure.savefig(file, format="png")
    return file.getvalue()


def _draw_group(
    panels: tuple[Axes, Axes],
    group: Sequence[Trial],
    search: Search,
    axis: int,
    **style: Any,
) -> None:
    above, below = panels
    places = [trial.point[axis] for trial in group]
    spreads = [
        Spread(0, None, None) if t.num_diverged else t.number(search.objective)
        for t in group
    ]
    above.errorbar(
        places,
        [math.nan if s.mean is None else s.mean for s in spreads],
        yerr=[s.std or 0.0 for s in spreads],
        marker="o", markersize=4, lw=1.3, capsize=2, **style,
    )  # fmt: skip
    below.plot(
        places,
        # What diverged is off any scale.
        [
            math.nan if t.num_diverged else t.displacement or math.nan
            for t in group
        ],
        "o-", markersize=4, lw=1.3, color=style["color"],
    )  # fmt: skip


def _mark_diverged(axes: Axes, trials: Iterable[Trial], axis: int) -> None:
    places = [trial.point[axis] for trial in trials if trial.num_diverged]
    if places:
        axes.plot(
            places, [0.02] * len(places), "x", color="#222222",
            transform=axes.get_xaxis_transform(), label="diverged",
        )  # fmt: skip


def _label(rest: tuple, search: Search, axis: int) -> str:
    others = search.names[:axis] + search.names[axis + 1 :]
    pairs = zip(others, rest, strict=True)
    return ", ".join(f"{name}={value:g}" for name, value in pairs) or "tried"
