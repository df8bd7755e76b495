"""Keras callbacks: noise that changes, backups, and measurements.

base            what they have in common
switch_noise    another rule from an epoch on, or another coefficient
learning_rate   another learning rate at every step, whatever the optimizer
batch_norm      moving statistics estimated anew
backup          when to save a run, and how `fit` goes on after a kill
backup_write    how all processes write a backup together
snapshot        what a backup holds of a model
callback_state  what a backup holds of other callbacks
probe           when to measure, and where the numbers go
measures        what can be measured
probe_rows      the file probe.jsonl
"""

from tf_gnc.callbacks.backup import BackupAndRestore
from tf_gnc.callbacks.batch_norm import RecalibrateBatchNorm
from tf_gnc.callbacks.learning_rate import LearningRatePerStep
from tf_gnc.callbacks.probe import Probe
from tf_gnc.callbacks.switch_noise import (
    AlphaSchedule,
    SwitchNoise,
    SwitchNoiseOnDrop,
)

__all__ = [
    "AlphaSchedule",
    "BackupAndRestore",
    "LearningRatePerStep",
    "Probe",
    "RecalibrateBatchNorm",
    "SwitchNoise",
    "SwitchNoiseOnDrop",
]
