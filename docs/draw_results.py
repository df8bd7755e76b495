"""Draws the README's picture from the results of a comparison.

    python docs/draw_results.py docs/figures/cifar10-laptop.png

It reads results/cifar10-laptop/table.csv, which
`tf-gnc compare --recipe=cifar10-laptop --data_dir=DIR` wrote: the test
accuracy of each method and seed. A mark is one run; a bar is a method's mean.
"""

import csv
import sys
from pathlib import Path

import matplotlib

matplotlib.use("agg")
from matplotlib import figure  # noqa: E402

RESULTS = Path(__file__).parents[1] / "results" / "cifar10-laptop" / "table.csv"

# The name in the CSV: the paper's name.
NAMES = {
    "dpsgd": "DP-SGD\n(no noise)",
    "rnc": "RNC\n(random noise)",
    "gnc": "GNC\n(gradient noise)",
    "gnc_to_rnc": "GNCtoRNC\n(first GNC, then RNC)",
}
# Grey, and three colours that colour-blind readers can tell apart.
COLORS = ("#7f7f7f", "#e69f00", "#0072b2", "#009e73")
MARKS = "os^D"


def accuracies(path: Path = RESULTS) -> dict[str, list[float]]:
    """Returns each method's test accuracies in percent, one for each seed."""
    with path.open(newline="") as file:
        return {
            row["method"]: [
                100 * float(value)
                for name, value in row.items()
                if name.startswith("seed_")
            ]
            for row in csv.DictReader(file)
        }


def draw(path: Path) -> None:
    """Writes the picture as a PNG."""
    page = figure.Figure(figsize=(7.2, 3.4), dpi=120, layout="constrained")
    axes = page.subplots()
    found = accuracies()
    for at, values in enumerate(found.values()):
        mean = sum(values) / len(values)
        axes.bar(at, mean, width=0.62, color=COLORS[at], alpha=0.35)
        axes.hlines(mean, at - 0.31, at + 0.31, color=COLORS[at], lw=2.5)
        axes.annotate(
            f"{mean:.2f}",
            (at + 0.33, mean),
            va="center",
            color=COLORS[at],
            weight="bold",
        )
        for seed, value in enumerate(values):
            axes.plot(
                at + 0.13 * (seed - 1),
                value,
                MARKS[seed],
                color=COLORS[at],
                markeredgecolor="white",
                markersize=8,
                zorder=3,
            )
    for seed in range(len(values)):
        axes.plot([], [], MARKS[seed], color="#444444", label=f"seed {seed}")
    axes.plot([], [], color="#444444", lw=2.5, label="mean")
    axes.set_xticks(range(len(found)), [NAMES[method] for method in found])
    axes.set(ylabel="test accuracy, %", ylim=(0, 60), xlim=(-0.5, 3.8))
    axes.set_title(
        "CIFAR-10, batch 8,192 = 256 workers x 32, ResNet-8, 24 epochs",
        fontsize=11,
    )
    axes.grid(axis="y", alpha=0.3)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(loc="upper left", ncols=4, frameon=False, fontsize=9)
    path.parent.mkdir(parents=True, exist_ok=True)
    page.savefig(path)


if __name__ == "__main__":
    draw(Path(sys.argv[1]))
