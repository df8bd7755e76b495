"""Keras callbacks: noise that changes as a model trains, and backups."""

from tf_gnc.callbacks.backup import BackupAndRestore
from tf_gnc.callbacks.noise import AlphaSchedule, SwitchNoise

__all__ = ["AlphaSchedule", "BackupAndRestore", "SwitchNoise"]
