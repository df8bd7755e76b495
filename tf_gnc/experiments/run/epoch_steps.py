"""Epochs that don't all have the same number of updates."""

import functools
from typing import Any

import keras

from tf_gnc.data import Updates


@functools.total_ordering
class EpochSteps(keras.callbacks.Callback):
    """Stands for the `steps_per_epoch` of `fit`, and for its callbacks' steps.

    It is the number of updates in the epoch that `fit` is in, which Keras asks
    for as the epoch begins; one iterator serves the whole run. It must be
    among the callbacks, to know the epoch.

    Example:
        >>> steps = EpochSteps(Updates(50_000, 8_192, carry=True))
        >>> steps.on_epoch_begin(9)
        >>> len(range(steps)), steps > 6, steps.before(9)
        (7, True, 54)
    """

    backed_up = ()  # see tf_gnc.callbacks.callback_state

    def __init__(self, updates: Updates) -> None:
        super().__init__()
        self.before = updates.before
        self._updates, self._epoch = updates, 0

    def on_epoch_begin(self, epoch: int, logs: dict | None = None) -> None:
        """Learns the epoch."""
        self._epoch = epoch

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
