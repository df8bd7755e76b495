"""Rules that follow each other in one run."""

import dataclasses
from typing import Any

from tf_gnc import _check
from tf_gnc.callbacks import SwitchNoise
from tf_gnc.noise import GradientNoise, NoiseRule, RandomNoise
from tf_gnc.noise.gradient import NoiseDtype
from tf_gnc.noise.rule import Scaling
from tf_gnc.step.compile_checks import check_group


@dataclasses.dataclass(frozen=True)
class Combination:
    """What noise a run has: `first`, and `then` after `switch_epoch` epochs.

    A rule of None is no noise; without a `switch_epoch` the first one stays.
    """

    first: NoiseRule | None
    switch_epoch: int | None = None
    then: NoiseRule | None = None

    @property
    def rules(self) -> list[NoiseRule | None]:
        """All rules, in the order in which they are in force."""
        return [self.first] + [self.then] * (self.switch_epoch is not None)

    def callbacks(self) -> list[SwitchNoise]:
        """Returns what `fit` needs."""
        if self.switch_epoch is None:
            return []
        return [SwitchNoise(self.switch_epoch, self.then)]

    def check(self, method: str, run: Any) -> None:
        """Raises a ValueError if the rules don't fit a run's configuration.

        A switch may lie outside of it, a group of workers not divide them, or
        the optimizer have no momentum.
        """
        for rule in filter(None, self.rules):
            check_group(rule, run.num_workers)
            plain = run.optimizer != "model" and not run.momentum
            if "momentum" in rule.needs and plain:
                raise ValueError(
                    "`momentum` must be above 0 for a rule of the optimizer's "
                    f"momentum, got momentum=0 with method={method!r}. Use "
                    "--momentum=0.9."
                )
        if self.switch_epoch is None:
            return
        epochs = run.epochs
        if 1 <= _check.integer("switch_epoch", self.switch_epoch) < epochs:
            return
        advice = "Train for more than one epoch."
        if epochs > 1:
            advice = f"The paper switches after 3/4, here {3 * epochs // 4}."
        raise ValueError(
            "`switch_epoch` must lie inside the run, at least 1 and below "
            f"`epochs`, for the method {method!r}, got "
            f"switch_epoch={self.switch_epoch} with epochs={epochs}. {advice}"
        )


def no_noise() -> None:
    """Data-parallel SGD, no noise."""


def gnc_to_rnc(
    alpha: float,
    alpha_rnc: float,
    switch_epoch: int,
    scaling: Scaling = "filter",
    include_vectors: bool = True,
    max_displacement: float | None = None,
    noise_dtype: NoiseDtype = "float32",
    seed: int | None = None,
) -> Combination:
    """GNC first, RNC after `switch_epoch`.

    Args:
        alpha: Coefficient of the gradient noise, 0 or more.
        alpha_rnc: Coefficient of the random noise, 0 or more.
        switch_epoch: Epochs before RNC takes over.
        scaling: As for GNC and RNC.
        include_vectors: As for GNC and RNC.
        max_displacement: As for GNC; RNC has no bound.
        noise_dtype: As for GNC.
        seed: As for RNC.
    """
    return Combination(
        GradientNoise(
            alpha, scaling, include_vectors, max_displacement, noise_dtype
        ),
        switch_epoch,
        RandomNoise(alpha_rnc, scaling, include_vectors, seed),
    )
