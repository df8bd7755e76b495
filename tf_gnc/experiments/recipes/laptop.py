"""Recipes of ours that finish on a laptop."""

import dataclasses
from collections.abc import Iterator

from tf_gnc.experiments.recipes.recipe import Recipe


def laptop() -> Iterator[Recipe]:
    """Yields the digits and two on CIFAR-10."""
    yield Recipe(
        name="digits",
        table="laptop",
        summary="four methods on 1,797 handwritten digits, no download",
        dataset="digits",
        settings={},
        source="ours; the digits are too easy to tell the methods apart",
        cost="4 to 5 minutes for 12 runs on two cores",
        seeds=3,
        seen="docs/accuracy.md",
    )
    cifar10 = Recipe(
        name="cifar10-laptop",
        table="laptop",
        summary="the paper's 256 x 32 examples and its rate of 6.4 on a "
        "smaller network, in 24 epochs",
        dataset="cifar10",
        settings={
            "model": "resnet8",
            "batch_size": 8_192,
            "epochs": 24,
            "warmup": 0.3,
            "erasing": False,
        },
        source="ours: workers, batch, rate and noise are those of the "
        "paper's cifar10-8192; a longer warm-up, since at 1/16 of so short a "
        "run neither DP-SGD nor GNC learns",
        cost="about 9 minutes a run on two cores",
        seeds=3,
        seen="results/cifar10-laptop/README.md",
    )
    yield cifar10
    yield dataclasses.replace(
        cifar10,
        name="cifar10-laptop-kernels",
        summary="cifar10-laptop with noise on kernels alone, not on biases "
        "and batch normalization's vectors",
        settings={**cifar10.settings, "include_vectors": False},
        source="ours; the paper does not say whether vectors are displaced",
        methods=("gnc",),
    )
