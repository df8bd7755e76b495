"""What each of the paper's figures is drawn of: runs, and measures of them.

Source   Haruki et al. (2019), arXiv:1906.10822, section 3, appendix C.1.
"""

import dataclasses
import types
from collections.abc import Mapping, Sequence

from tf_gnc.experiments.compare.plan import Plan
from tf_gnc.experiments.recipes import RECIPES


@dataclasses.dataclass(frozen=True)
class Part:
    """Panels of a figure that show the same runs.

    Attributes:
        rows: Recipes whose runs are drawn together.
        methods: Of each recipe.
        drawings: Keys of `tf_gnc.experiments.figures.registry.DRAWINGS`.
        measures: What the runs have to record.
        every: Steps from one measurement to the next; None for an epoch's.
        around: Epochs of the whole recipe, near which losses are drawn.
    """

    rows: Sequence[str]
    methods: Sequence[str]
    drawings: Sequence[str]
    measures: Sequence[str] = ()
    every: int | None = None
    around: Sequence[float] = ()

    @property
    def name(self) -> str:
        """What it is called by: its recipes."""
        return "+".join(self.rows)

    def around_in(self, plan: Plan) -> list[float]:
        """Returns the epochs of `around` in runs that are shorter or longer."""
        share = plan.runs[0].epochs / whole_epochs(self.rows[0])
        return [epoch * share for epoch in self.around]

    def of(self, recipe: str) -> "Part":
        """Returns the same panels of another recipe's runs."""
        share = whole_epochs(recipe) / whole_epochs(self.rows[0])
        around = [epoch * share for epoch in self.around]
        return dataclasses.replace(self, rows=(recipe,), around=around)


def whole_epochs(recipe: str) -> int:
    """Returns how many epochs a recipe's runs have."""
    found = RECIPES[recipe]
    return found.config(found.methods[0]).epochs


_TWO, _NOISES = ("dpsgd", "gnc"), ("gnc", "rnc")
_CIFAR100 = ("cifar100-8192",)
_ACCURACY_AND_SIMILARITY = ("fig3a_accuracy", "fig3b_similarity")
_VARIETIES = tuple(
    (f"cifar100-8192-{variety}",) for variety in ("baseline", "wd", "mm", "da")
)
_LOSSES = ("fig4bc_losses_around",)
_EACH_STEP = {"measures": ("loss_spread",), "every": 1}

FIGURES: Mapping[str, Sequence[Part]] = types.MappingProxyType(
    {
        "fig3": (
            Part(_CIFAR100, _TWO, _ACCURACY_AND_SIMILARITY, ("similarity",)),
            Part(
                ("simple-2048", "simple-4096", "simple-8192"),
                ("dpsgd",),
                ("fig3b_similarity",),
                ("similarity",),
            ),
        ),
        "fig4": (
            Part(
                _CIFAR100,
                _NOISES,
                ("fig4a_condition_numbers", "fig4a_eigenvalues", *_LOSSES),
                ("spectrum", "sharpness"),
                around=(10, 140),
            ),
        ),
        "fig5": (
            Part(
                _CIFAR100,
                _TWO,
                ("fig5_runs", "fig5_smoothness"),
                ("smoothness",),
            ),
        ),
        "fig7": tuple(
            Part(row, _TWO, _ACCURACY_AND_SIMILARITY, ("similarity",))
            for row in _VARIETIES
        ),
        "fig8": (
            Part(
                ("imagenet-32768",),
                _NOISES,
                _LOSSES,
                ("sharpness",),
                around=(21, 81),
            ),
        ),
        "fig9": tuple(
            Part(row, _TWO, ("fig5_runs",), ("smoothness",))
            for row in _VARIETIES
        ),
        "fig10": tuple(
            Part((row,), _TWO, ("fig10_training_loss",), **_EACH_STEP)
            for row in ("imagenet-32768", "imagenet-131072")
        ),
        "fig11": tuple(
            Part((row,), _TWO, ("fig10_training_loss",), **_EACH_STEP)
            for row in ("cifar100-4096", "cifar100-8192")
        ),
    }
)
"""The figures that runs of ours can be drawn as, each in one or more parts."""
