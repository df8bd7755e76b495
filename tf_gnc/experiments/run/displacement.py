"""How far a run's noise moves the weights, epoch by epoch."""

import math

import keras

from tf_gnc import _files
from tf_gnc.callbacks.measures import relative_displacement
from tf_gnc.doctor.dry_step import measuring
from tf_gnc.experiments.run.directory import RunFiles
from tf_gnc.step.control import control_of


class DisplacementLog(keras.callbacks.Callback):
    r"""Measures the relative displacement at the end of each epoch.

    That is :math:`\|x_i - x\| / \|x\|` of the step to come, over all trainable
    weights, mean over the workers i. A rule with two passes knows it only in
    the step itself: there it is that of the step before. Takes no step and
    changes nothing. Leaves displacement.json with a number for each epoch.
    """

    backed_up = ("displacements",)  # see tf_gnc.callbacks.callback_state

    def __init__(self, files: RunFiles) -> None:
        super().__init__()
        self._files = files
        self._plan = self._measure = None
        self.displacements: list[float | None] = []
        """What was measured so far; None where it wasn't finite."""

    def on_train_begin(self, logs: dict | None = None) -> None:
        """Has steps of two passes leave what they did."""
        rule = self.model.noise_rule
        if rule is not None and rule.takes_two_passes:
            control_of(self.model).keeps_table = True

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        """Measures."""
        self.displacements.append(_files.finite_or_none(self._mean()))

    def _mean(self) -> float:
        plan = self.model.step_plan
        if plan.rule is not None and plan.rule.takes_two_passes:
            table = plan.table.read(self.model.distribute_strategy)
            # A run that is taken up at an epoch's end has taken no step.
            if table is None or not table.valid:
                return math.nan
            return relative_displacement(table)
        if self._plan is not plan:
            self._plan, self._measure = plan, measuring(self.model)
        return self._measure().displacements.mean()

    def on_train_end(self, logs: dict | None = None) -> None:
        """Writes; to be called for a run that diverged, where Keras doesn't."""
        content = {"epochs": self.displacements}
        _files.write_json(self._files.path("displacement.json"), content)
