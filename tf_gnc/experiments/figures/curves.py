"""Draws a run's curves.

Takes rows as metrics.jsonl holds them; knows neither models nor how the rows
came about.
"""

import os
from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.ticker import PercentFormatter

from tf_gnc.experiments.figures.style import (
    column,
    log_scale_if_wide,
    new_figure,
    plot,
    trim,
)

# Two hues that differ in lightness too, so that they survive a grey printer
# and the common kinds of colour blindness.
_TRAINING, _TEST = {"color": "#9db4c8", "lw": 2.2}, {"color": "#c1440e"}
_QUIET = {"color": "#666666", "lw": 0.9}


def draw_curves(
    rows: Sequence[Mapping[str, Any]], title: str, path: str | os.PathLike
) -> None:
    """Draws loss and accuracy over the epochs into a PNG file.

    Args:
        rows: One per epoch, with `epoch`, `loss`, `val_loss`, `accuracy`,
            `val_accuracy` and `rule`. None stands for a number that wasn't
            finite and leaves a gap.
        title: Stands above both panels.
        path: Where to write; ends in .png.
    """
    figure, panels = new_figure(columns=2, share=False)
    figure.suptitle(title, fontsize=11)
    losses, accuracies = panels
    _draw_both(losses, rows, "loss")
    log_scale_if_wide(losses)
    _draw_both(accuracies, rows, "accuracy")
    accuracies.yaxis.set_major_formatter(PercentFormatter(1.0))
    _mark_best(accuracies, rows)
    for axes, label in zip(panels, ("Loss", "Accuracy"), strict=True):
        _mark_switches(axes, rows)
        trim(axes, "Epoch", label)
    figure.savefig(path, format="png")


def _draw_both(
    axes: Axes, rows: Sequence[Mapping[str, Any]], name: str
) -> None:
    epochs = [row["epoch"] for row in rows]
    for key, label, style in (
        (name, "training", _TRAINING),
        (f"val_{name}", "test", _TEST),
    ):
        plot(axes, (epochs, column(rows, key)), label=label, **style)


def _mark_best(axes: Axes, rows: Sequence[Mapping[str, Any]]) -> None:
    tested = [row for row in rows if row["val_accuracy"] is not None]
    if tested:
        best = max(tested, key=lambda row: row["val_accuracy"])
        value, epoch = best["val_accuracy"], best["epoch"]
        label = f"best: {value:.2%}, epoch {epoch}"
        axes.axhline(value, ls=":", label=label, **_QUIET)


def _mark_switches(axes: Axes, rows: Sequence[Mapping[str, Any]]) -> None:
    """Draws a line where the noise rule changed."""
    for before, after in zip(rows, rows[1:], strict=False):
        if before["rule"] != after["rule"]:
            label = f"switch to {after['rule']}"
            axes.axvline(before["epoch"] + 0.5, ls="--", label=label, **_QUIET)
