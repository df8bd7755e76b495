"""Draws a run's curves, of rows as metrics.jsonl holds them."""

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from tf_gnc.experiments.figures import style
from tf_gnc.experiments.figures.recorded_runs import epoch_series

# Two hues that differ in lightness too, so that they survive a grey printer
# and the common kinds of colour blindness.
_TRAINING = {"color": "#9db4c8", "lw": 2.2, "label": "training"}
_TEST = {"color": "#c1440e", "label": "test"}
_QUIET = {"color": "#666666", "lw": 0.9}


def draw_curves(rows: Sequence[Mapping[str, Any]], title: str) -> Figure:
    """Draws loss and accuracy over the epochs.

    Each row has `epoch`, `loss`, `val_loss`, `accuracy`, `val_accuracy` and
    `rule`. None stands for a number that wasn't finite and leaves a gap.
    """
    figure, panels = style.new_figure(columns=2, share=False)
    figure.suptitle(title, fontsize=11)
    for axes, name in zip(panels, ("loss", "accuracy"), strict=True):
        style.plot(axes, epoch_series(rows, name), **_TRAINING)
        style.plot(axes, epoch_series(rows, f"val_{name}"), **_TEST)
        if name == "loss":
            style.log_scale_if_wide(axes)
        else:
            axes.yaxis.set_major_formatter(PercentFormatter(1.0))
            _mark_best(axes, rows)
        _mark_switches(axes, rows)
        style.trim(axes, "Epoch", name.capitalize())
    return figure


def _mark_best(axes: Axes, rows: Sequence[Mapping[str, Any]]) -> None:
    tested = [row for row in rows if row["val_accuracy"] is not None]
    if tested:
        best = max(tested, key=lambda row: row["val_accuracy"])
        value, epoch = best["val_accuracy"], best["epoch"]
        label = f"best: {value:.2%}, epoch {epoch}"
        axes.axhline(value, ls=":", label=label, **_QUIET)


def _mark_switches(axes: Axes, rows: Sequence[Mapping[str, Any]]) -> None:
    """Draws a line where the noise rule changed."""
    for before, after in itertools.pairwise(rows):
        if before["rule"] != after["rule"]:
            label = f"switch to {after['rule']}"
            axes.axvline(before["epoch"] + 0.5, ls="--", label=label, **_QUIET)
