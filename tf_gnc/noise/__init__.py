"""Noise rules: how far each worker's weights are displaced; a rule is a file.

rule      the base class and its contract
gradient  GNC: the gradients' own noise (Eqs. 3, 4 and 6)
random    RNC: isotropic noise, the control (Eq. 5)
layout    all weights as one vector, and its filters
"""

from tf_gnc.noise.gradient import GradientNoise
from tf_gnc.noise.random import RandomNoise
from tf_gnc.noise.rule import NoiseRule

__all__ = ["GradientNoise", "NoiseRule", "RandomNoise"]
