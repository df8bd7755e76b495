"""Strategies and clusters: which devices and processes a run uses."""

from tf_gnc.distribute.strategies import (
    is_chief,
    make_strategy,
    num_processes,
    process_index,
)

__all__ = ["is_chief", "make_strategy", "num_processes", "process_index"]
