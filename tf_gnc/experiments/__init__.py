"""Experiments: a run as one object, and the one function that runs it.

A file imports only from lower floors and from this folder.
"""

from tf_gnc.experiments.config import RunConfig
from tf_gnc.experiments.defaults import make_config
from tf_gnc.experiments.methods.registry import METHODS
from tf_gnc.experiments.run.metrics import Summary
from tf_gnc.experiments.run.placement import Placement
from tf_gnc.experiments.run.runner import (
    PreparedRun,
    build_model,
    prepare,
    run,
    train,
)

__all__ = [
    "METHODS",
    "Placement",
    "PreparedRun",
    "RunConfig",
    "Summary",
    "build_model",
    "make_config",
    "prepare",
    "run",
    "train",
]
