"""Epochs that don't all have the same number of updates."""

import functools
from typing import Any

import keras

from tf_gnc.data import Updates
from tf_gnc.step.control import control_of


@functools.total_ordering
class EpochSteps(keras.callbacks.Callback):
    """Stands for the `steps_per_epoch` of `fit`, and for its callbacks' steps.

    It is the number of updates in the epoch that `fit` is in, which Keras asks
    for as the epoch begins; one iterator serves the whole run. It must be the
    first of the callbacks, to know the epoch. With `steps_per_execution` an
    epoch's last call is a short one if need be.

    Example:
        >>> steps = EpochSteps(Updates(50_000, 8_192, carry=True))
        >>> len(range(steps)), steps > 6, steps.before(9)
        (6, False, 54)
    """

    backed_up = ()  # see tf_gnc.callbacks.callback_state

    def __init__(self, updates: Updates) -> None:
        super().__init__()
        self.before = updates.before
        self._updates, self._epoch = updates, 0

    def on_epoch_begin(self, epoch: int, logs: dict | None = None) -> None:
        """Learns the epoch."""
        self._epoch = epoch
        control_of(self.model).left_in_epoch = int(self)

    def on_train_batch_begin(
        self, batch: int, logs: dict | None = None
    ) -> None:
        """Tells the step what is left of the epoch."""
        control_of(self.model).left_in_epoch = int(self) - batch

    def on_train_end(self, logs: dict | None = None) -> None:
        """Leaves the step as it was."""
        control_of(self.model).left_in_epoch = None

    def __index__(self) -> int:
        return self._updates.in_epoch(self._epoch)

    __int__ = __index__

    def __float__(self) -> float:
        return float(self._updates.per_epoch)

    def __eq__(self, other: Any) -> bool:
        return int(self) == other

    def __lt__(self, other: Any) -> bool:
        return int(self) < other

    __hash__ = object.__hash__
