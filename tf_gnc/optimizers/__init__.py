"""Optimizers in the forms in which the paper writes them.

momentum   SGD with momentum and weight decay
lars       LARS, in five variants
trust      LARS's ratios for each layer
exclusion  which variables are left out, by their paths
"""

from tf_gnc.optimizers.lars import LARS
from tf_gnc.optimizers.momentum import MomentumSGD

__all__ = ["LARS", "MomentumSGD"]
