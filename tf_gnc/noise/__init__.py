"""Noise rules: how far each worker's weights are displaced; a rule is a file.

rule             the base class and its contract
at               what a rule is given for one worker in one step
gradient         GNC: the gradients' own noise (Eqs. 3, 4 and 6)
random           RNC: isotropic noise, the control (Eq. 5)
sharpness_aware  SAM, m-SAM and ASAM: uphill of this step's gradients
momentum         Momentum-SAM: along the optimizer's last update
ball             what those two share: one length over all weights
layout           all weights as one vector, and its filters
"""

from tf_gnc.noise.gradient import GradientNoise
from tf_gnc.noise.momentum import MomentumNoise
from tf_gnc.noise.random import RandomNoise
from tf_gnc.noise.rule import NoiseRule
from tf_gnc.noise.sharpness_aware import SharpnessAware

__all__ = [
    "GradientNoise",
    "MomentumNoise",
    "NoiseRule",
    "RandomNoise",
    "SharpnessAware",
]
