"""Draws a run's curves.

Takes rows as metrics.jsonl holds them; knows neither models nor how the rows
came about. Draws without pyplot, so that it neither needs a screen nor leaves
a figure open in the caller's session.
"""

import os
from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from tf_gnc.experiments.figures.style import column, log_scale_if_wide

# Two hues that differ in lightness too, so that they survive a grey printer
# and the common kinds of colour blindness.
_TRAINING, _TEST, _QUIET = "#9db4c8", "#c1440e", "#666666"


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
    figure = Figure(figsize=(10, 4.2), dpi=120, layout="constrained")
    losses, accuracies = figure.subplots(1, 2)
    figure.suptitle(title, fontsize=11)
    _panel(losses, rows, "loss", "Loss")
    log_scale_if_wide(losses, column(rows, "loss") + column(rows, "val_loss"))
    _panel(accuracies, rows, "accuracy", "Accuracy")
    accuracies.yaxis.set_major_formatter(PercentFormatter(1.0))
    _mark_best(accuracies, rows)
    for axes in (losses, accuracies):
        _mark_switches(axes, rows)
        axes.legend(frameon=False, fontsize=9)
    figure.savefig(path, format="png")


def _panel(
    axes: Axes, rows: Sequence[Mapping[str, Any]], name: str, label: str
) -> None:
    epochs = [row["epoch"] for row in rows]
    # A single epoch makes no line, only a point.
    marker = "o" if len(rows) < 3 else None
    style = {"marker": marker, "markersize": 4}
    training, test = column(rows, name), column(rows, f"val_{name}")
    axes.plot(
        epochs, training, color=_TRAINING, lw=2.2, label="training", **style
    )
    axes.plot(epochs, test, color=_TEST, lw=1.4, label="test", **style)
    axes.set_xlabel("Epoch")
    axes.set_ylabel(label)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(alpha=0.25, linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)


def _mark_best(axes: Axes, rows: Sequence[Mapping[str, Any]]) -> None:
    best = max(
        (row for row in rows if row["val_accuracy"] is not None),
        key=lambda row: row["val_accuracy"],
        default=None,
    )
    if best is None:
        return
    axes.axhline(
        best["val_accuracy"],
        color=_QUIET,
        lw=0.9,
        ls=":",
        label=f"best: {best['val_accuracy']:.2%}, epoch {best['epoch']}",
    )


def _mark_switches(axes: Axes, rows: Sequence[Mapping[str, Any]]) -> None:
    """Draws a line where the noise rule changed."""
    for before, after in zip(rows, rows[1:], strict=False):
        if before["rule"] != after["rule"]:
            axes.axvline(
                before["epoch"] + 0.5,
                color=_QUIET,
                lw=0.9,
                ls="--",
                label=f"switch to {after['rule']}",
            )
