"""The rows of the paper's tables 1 to 5 and of its Fig. 3 (c).

Source   Haruki et al. (2019), arXiv:1906.10822. Settings: Tables 3 to 5 and
         appendix A; `tf_gnc.data.sets` hold what is the same for
         all rows of a data set. Accuracies: Tables 1, 2 and 6.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from tf_gnc.experiments.compare.plan import Published
from tf_gnc.experiments.methods.registry import PAPER_METHODS
from tf_gnc.experiments.recipes.recipe import Recipe

_PAPER = "Haruki et al. (2019), arXiv:1906.10822"

# Table 2, and the five runs of each cell from Table 6, in the order of
# PAPER_METHODS.
_TABLE_2: Mapping[tuple[str, int], tuple[Published, ...]] = {
    ("imagenet2012", 32_768): (
        Published(75.89, 0.09, (75.91, 75.98, 75.89, 75.92, 75.74)),
        Published(75.86, 0.13, (75.67, 75.86, 75.87, 76.02, 75.86)),
        Published(76.03, 0.18, (76.29, 75.87, 76.13, 75.96, 75.88)),
        Published(76.05, 0.07, (75.95, 76.09, 76.13, 76.06, 76.04)),
    ),
    ("imagenet2012", 131_072): (
        Published(65.57, 0.45, (66.14, 65.99, 65.22, 65.24, 65.27)),
        Published(65.14, 0.86, (65.75, 64.96, 64.27, 66.29, 64.44)),
        Published(68.39, 0.40, (68.81, 68.11, 68.34, 68.78, 67.92)),
        Published(68.13, 0.48, (68.80, 67.57, 68.32, 68.17, 67.80)),
    ),
    ("cifar10", 4_096): (
        Published(93.48, 0.26, (93.73, 93.47, 93.12, 93.74, 93.34)),
        Published(93.70, 0.26, (93.60, 93.76, 93.31, 93.81, 94.00)),
        Published(93.82, 0.64, (94.32, 92.72, 93.97, 94.17, 93.92)),
        Published(94.00, 0.60, (94.48, 93.00, 94.10, 94.42, 94.01)),
    ),
    ("cifar10", 8_192): (
        Published(54.51, 7.04, (66.84, 52.43, 50.92, 49.34, 53.00)),
        Published(63.51, 20.45, (72.28, 43.93, 78.04, 39.36, 83.96)),
        Published(91.00, 1.24, (90.93, 92.14, 90.84, 92.02, 89.06)),
        Published(90.88, 1.53, (90.73, 92.17, 91.02, 92.11, 88.39)),
    ),
    ("cifar100", 4_096): (
        Published(72.87, 0.37, (72.93, 72.98, 72.34, 73.36, 72.76)),
        Published(73.08, 0.27, (73.35, 73.24, 73.23, 72.75, 72.84)),
        Published(72.89, 0.38, (73.32, 73.01, 72.36, 72.67, 73.10)),
        Published(73.79, 0.40, (73.95, 74.07, 73.10, 73.79, 74.05)),
    ),
    ("cifar100", 8_192): (
        Published(69.21, 2.11, (67.81, 68.99, 71.09, 66.60, 71.55)),
        Published(70.17, 1.36, (68.63, 70.95, 70.84, 68.80, 71.61)),
        Published(71.35, 0.27, (71.54, 71.11, 71.64, 71.02, 71.45)),
        Published(71.93, 0.21, (72.21, 71.68, 72.07, 71.82, 71.88)),
    ),
}

# Table 1, CIFAR-100: accuracies of DP-SGD and GNC.
_TABLE_1: Mapping[tuple[str, int], tuple[Published, Published]] = {
    ("baseline", 4_096): (Published(42.80, 0.90), Published(46.35, 0.56)),
    ("wd", 4_096): (Published(42.63, 1.21), Published(47.45, 0.63)),
    ("mm", 4_096): (Published(50.43, 1.21), Published(51.54, 1.13)),
    ("da", 4_096): (Published(64.57, 0.19), Published(63.68, 0.15)),
    ("full", 4_096): (Published(72.87, 0.37), Published(72.89, 0.38)),
    ("baseline", 8_192): (Published(45.66, 1.09), Published(48.74, 1.06)),
    ("wd", 8_192): (Published(47.64, 0.45), Published(49.73, 0.81)),
    ("mm", 8_192): (Published(45.97, 3.29), Published(48.67, 1.01)),
    ("da", 8_192): (Published(57.83, 0.76), Published(56.60, 0.67)),
    ("full", 8_192): (Published(69.21, 2.11), Published(71.35, 0.27)),
}

TABLE_7 = (
    ("Goyal et al.", 90, 32_768, 72.45),
    ("Akiba et al.", 90, 32_768, 74.94),
    ("Codreanu et al.", 100, 32_768, 75.31),
    ("You et al.", 90, 32_768, 75.4),
    ("Jia et al., settings not told", 90, 65_536, 76.2),
    ("Ying et al., settings not told", 90, 32_768, 76.4),
    ("Haruki et al. (2019), GNC, the best of 5", 90, 32_768, 76.29),
)
"""Table 7: who, epochs, batch size and accuracy in percent."""

# All of the paper's updates: 976 for CIFAR at 8,192 (160 x 50,000 / 8,192).
_ALL = {"remainder": "carry"}
_NONE = {**_ALL, "weight_decay": 0.0, "momentum": 0.0, "augment": False}

# The rows of Table 1: what they show, and how in fields of RunConfig.
_TECHNIQUES: Mapping[str, tuple[str, dict[str, Any]]] = {
    "baseline": ("without weight decay, momentum, augmentation", {}),
    "wd": ("weight decay alone", {"weight_decay": 1e-4}),
    "mm": ("momentum alone", {"momentum": 0.9}),
    "da": ("data augmentation alone", {"augment": True}),
    "full": (
        "all of them",
        {"weight_decay": 1e-4, "momentum": 0.9, "augment": True},
    ),
}

# Fig. 3 (c): highest rates by batch size (appendix A.4).
_SIMPLE_RATES = {2_048: 0.016, 4_096: 0.032, 8_192: 0.064}

_CIFAR_COST = (
    "160 epochs of 50,000 pictures; hours a run on two cores, by the step cost "
    "in docs/speed.md"
)
_IMAGENET_COST = "90 epochs of ImageNet: a cluster of GPUs or a TPU pod"

# By data set: the beginning of its recipes' names, its own, and a run's cost.
_CALLED = {
    "imagenet2012": ("imagenet", "ImageNet", _IMAGENET_COST),
    "cifar10": ("cifar10", "CIFAR10", _CIFAR_COST),
    "cifar100": ("cifar100", "CIFAR100", _CIFAR_COST),
}


def table_2() -> Iterator[Recipe]:
    """Yields the rows of Tables 3 to 5, whose results are Table 2."""
    for (dataset, batch_size), found in _TABLE_2.items():
        short, name, cost = _CALLED[dataset]
        yield Recipe(
            name=f"{short}-{batch_size}",
            table="table2",
            summary=f"the paper's main result, large batches of {name}",
            dataset=dataset,
            settings={"batch_size": batch_size, **_ALL},
            source=f"{_PAPER}, Tables 2 to 6, appendix A",
            cost=cost,
            published=dict(zip(PAPER_METHODS, found, strict=True)),
        )


def table_1() -> Iterator[Recipe]:
    """Yields GNC beside weight decay, momentum and data augmentation."""
    for (technique, batch_size), found in _TABLE_1.items():
        shown, changes = _TECHNIQUES[technique]
        yield Recipe(
            name=f"cifar100-{batch_size}-{technique}",
            table="table1",
            summary=f"which techniques GNC adds to: {shown}",
            dataset="cifar100",
            settings={**_NONE, "batch_size": batch_size, **changes},
            source=f"{_PAPER}, Table 1, section 3.4",
            cost=_CIFAR_COST,
            methods=("dpsgd", "gnc"),
            published=dict(zip(("dpsgd", "gnc"), found, strict=True)),
        )


def fig_3c() -> Iterator[Recipe]:
    """Yields simple SGD without batch normalization at three batch sizes."""
    for batch_size, rate in _SIMPLE_RATES.items():
        yield Recipe(
            name=f"simple-{batch_size}",
            table="fig3c",
            summary="simple SGD without batch normalization, weight decay, "
            "momentum and augmentation",
            dataset="cifar100",
            settings={
                **_NONE,
                "batch_size": batch_size,
                "batch_norm": False,
                "learning_rate": rate,
                "start_rate": 0.00025,
            },
            source=f"{_PAPER}, Fig. 3 (c), appendix A.4",
            cost=_CIFAR_COST,
            methods=("dpsgd",),
            seeds=1,
            published_note="similarity to the full gradient, a figure: "
            f"tf-gnc train --recipe=simple-{batch_size} --method=dpsgd "
            "--probe=similarity",
        )
