"""How far a run's noise moves the weights, epoch by epoch."""

import keras

from tf_gnc.doctor.dry_step import measuring
from tf_gnc.experiments.run.directory import RunFiles, finite_or_none


class DisplacementLog(keras.callbacks.Callback):
    r"""Measures the relative displacement at the end of each epoch.

    That is :math:`\|x_i - x\| / \|x\|` of the step to come, over all trainable
    weights, mean over the workers i. Takes no step and changes nothing. Leaves
    displacement.json with a number for each epoch.

    Args:
        files: Where to write.
    """

    backed_up = ("displacements",)  # see tf_gnc.callbacks.callback_state

    def __init__(self, files: RunFiles) -> None:
        """Keeps the argument; the class describes it."""
        super().__init__()
        self._files = files
        self._plan = self._measure = None
        self.displacements: list[float | None] = []
        """What was measured so far; None where it wasn't finite."""

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        """Measures."""
        plan = self.model._gnc_plan
        if self._plan is not plan:
            self._plan, self._measure = plan, measuring(self.model)
        mean = self._measure().displacements.mean()
        self.displacements.append(finite_or_none(mean))

    def on_train_end(self, logs: dict | None = None) -> None:
        """Writes: before the summary, which says that all is there."""
        self.write()

    def write(self) -> None:
        """Writes displacement.json; call it for a run that diverged."""
        content = {"epochs": self.displacements}
        self._files.write_json("displacement.json", content)
