"""Keras callbacks: noise that changes, backups, and measurements."""

from tf_gnc.callbacks.backup import BackupAndRestore
from tf_gnc.callbacks.noise import (
    AlphaSchedule,
    SwitchNoise,
    SwitchNoiseOnDrop,
)
from tf_gnc.callbacks.probe import Probe

__all__ = [
    "AlphaSchedule",
    "BackupAndRestore",
    "Probe",
    "SwitchNoise",
    "SwitchNoiseOnDrop",
]
