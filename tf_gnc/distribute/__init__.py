"""Strategies and clusters: which devices and processes a run uses.

The launcher starts processes and has no use for TensorFlow, so the names that
need it are imported when they are first asked for.
"""

import importlib
from typing import Any

__all__ = ["is_chief", "make_strategy", "num_processes", "process_index"]


def __getattr__(name: str) -> Any:
    """Imports a public name when it is first asked for."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = importlib.import_module("tf_gnc.distribute.strategies")
    return getattr(module, name)


def __dir__() -> list[str]:
    """Lists the public names, those not imported yet included."""
    return sorted({*globals(), *__all__})
