"""Checks that the noise is on, is right, and fits into memory.

Noise that is silently off trains like plain large-batch SGD and raises no
error.
"""

from tf_gnc.doctor.noise import check
from tf_gnc.doctor.processor import speed_advice
from tf_gnc.doctor.report import Check, Report
from tf_gnc.doctor.setup import (
    MemoryForecast,
    Setup,
    check_memory,
    free_memory_bytes,
    memory_forecast,
    setup_of,
)

__all__ = [
    "Check",
    "MemoryForecast",
    "Report",
    "Setup",
    "check",
    "check_memory",
    "free_memory_bytes",
    "memory_forecast",
    "setup_of",
    "speed_advice",
]
