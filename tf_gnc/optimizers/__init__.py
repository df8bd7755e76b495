"""Optimizers in the forms in which the paper writes them."""

from tf_gnc.optimizers.lars import LARS
from tf_gnc.optimizers.momentum import MomentumSGD

__all__ = ["LARS", "MomentumSGD"]
