"""Noise rules: a rule is a file."""

from tf_gnc.noise.gradient import GradientNoise
from tf_gnc.noise.random import RandomNoise
from tf_gnc.noise.rule import NoiseRule

__all__ = ["GradientNoise", "NoiseRule", "RandomNoise"]
