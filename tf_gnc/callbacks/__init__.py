"""Keras callbacks: noise that changes, backups, and measurements."""

from tf_gnc.callbacks.backup import BackupAndRestore
from tf_gnc.callbacks.probe import Probe
from tf_gnc.callbacks.switch_noise import (
    AlphaSchedule,
    SwitchNoise,
    SwitchNoiseOnDrop,
)

__all__ = [
    "AlphaSchedule",
    "BackupAndRestore",
    "Probe",
    "SwitchNoise",
    "SwitchNoiseOnDrop",
]
