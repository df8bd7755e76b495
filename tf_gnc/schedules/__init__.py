r"""Learning-rate schedules of large-batch training, exact at every step.

A schedule is a pure function of the optimizer's step count. It knows neither
data sets nor batches per epoch, so whoever builds one converts epochs to
steps first; `cifar_schedule` and `imagenet_schedule` do so for the paper's
recipes.

    decays.py    a rate that falls: in steps, or along a polynomial
    composed.py  what begins or ends another schedule: warm-up, collapse
    paper.py     the paper's recipes, made of these
    base.py      what they share

All arithmetic is float64 inside and rounded once, so a rate is the float32
number nearest to the exact one, a relative error of at most 6e-8, however many
schedules lie inside each other. The step is compared as an int64.

Symbols   eta  learning rate, the paper's eta_t, or gamma_t under LARS
          t    step: updates done so far, so the first update has t = 0
"""

from tf_gnc.schedules.composed import FinalCollapse, WarmUp
from tf_gnc.schedules.decays import PolynomialDecay, StepDecay
from tf_gnc.schedules.paper import (
    cifar_schedule,
    imagenet_schedule,
    linear_scaling,
)

__all__ = [
    "FinalCollapse",
    "PolynomialDecay",
    "StepDecay",
    "WarmUp",
    "cifar_schedule",
    "imagenet_schedule",
    "linear_scaling",
]
