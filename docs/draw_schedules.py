"""Draws the paper's Fig. 6 from `tf_gnc.schedules`.

    python docs/draw_schedules.py docs/figures/fig6.png

(a) the learning rate for CIFAR-10 and CIFAR-100, (b) the global learning rate
for ImageNet, at the batch sizes of Table 4. The axes are named as the paper's
caption names what they show.
"""

import sys
from pathlib import Path

import matplotlib
import numpy as np

from tf_gnc.data import steps_per_epoch
from tf_gnc.schedules import cifar_schedule, imagenet_schedule

matplotlib.use("agg")
from matplotlib import figure  # noqa: E402

CIFAR_EXAMPLES, IMAGENET_EXAMPLES = 50_000, 1_281_167

Curve = tuple[np.ndarray, np.ndarray]


def cifar(batch_size: int, epochs: int = 160) -> Curve:
    """Returns epochs and learning rates, one of each for every step."""
    steps = steps_per_epoch(CIFAR_EXAMPLES, batch_size)
    return _curve(cifar_schedule(batch_size, steps), steps, epochs)


def imagenet(batch_size: int, epochs: int = 90) -> Curve:
    """Returns epochs and global learning rates, one for every step."""
    steps = steps_per_epoch(IMAGENET_EXAMPLES, batch_size)
    return _curve(imagenet_schedule(batch_size, steps), steps, epochs)


def _curve(schedule: object, steps: int, epochs: int) -> Curve:
    at = np.arange(epochs * steps)
    return at / steps, schedule(at).numpy()


def draw(path: Path) -> None:
    """Writes both panels as a PNG."""
    page = figure.Figure(figsize=(8, 3), dpi=100, layout="constrained")
    left, right = page.subplots(1, 2)
    for batch_size in (4096, 8192):
        left.plot(*cifar(batch_size), label=f"batch size {batch_size:,}")
    left.set(title="(a) CIFAR-10, CIFAR-100", ylabel="learning rate")
    for batch_size in (32_768, 131_072):
        right.plot(*imagenet(batch_size), label=f"batch size {batch_size:,}")
    right.set(title="(b) ImageNet", ylabel=r"global learning rate $\gamma_t$")
    for axes in (left, right):
        axes.set_xlabel("epoch")
        axes.set_ylim(bottom=0)
        axes.grid(alpha=0.3)
        axes.legend()
    path.parent.mkdir(parents=True, exist_ok=True)
    page.savefig(path)


if __name__ == "__main__":
    draw(Path(sys.argv[1]))
