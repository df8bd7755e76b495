"""Each worker's gradient of the step before: the memory of the noise.

Symbols   V  workers per replica
          P  number of trainable scalars
          D  how many workers late a gradient is written
"""

from collections.abc import Iterable
from typing import Any

import numpy as np
import tensorflow as tf

from tf_gnc import _keras_compat
from tf_gnc.step import workers


class GradientMemory:
    """The gradients of a replica's workers, and the mean over all workers.

    Holds raw gradients, written in place, and subtracts the mean when the
    noise is read: V x P numbers and not twice that.

    Args:
        workers_per_replica: V; 0 to keep the mean alone.
        num_scalars: P.
        dtype: Of the remembered gradients.
        mean_dtype: Of their mean, and of the noise.
        delay: D. A gradient is written when the D-th worker after it has
            read its noise. D + 1 workers can so be under way at a time, where
            writing at once would make each wait for the one before it.
        undoable: Keep the step before last as well, at twice the memory, so
            that a step can be taken back after its gradients are known. Loss
            scaling needs this: an overflow may show at the last worker only.
    """

    def __init__(
        self,
        workers_per_replica: int,
        num_scalars: int,
        dtype: str,
        mean_dtype: str,
        delay: int = 0,
        undoable: bool = False,
    ) -> None:
        self.workers_per_replica = workers_per_replica
        self.delay = delay
        self.undoable = undoable
        # The last row takes what the first D workers have nothing to write.
        num_rows = (2 if undoable else 1) * workers_per_replica
        num_rows += min(delay, 1)
        variable = workers.replica_variable
        self.gradients = variable([num_rows, num_scalars], dtype)
        self.mean = variable([num_scalars], mean_dtype)
        self.half = variable([], "int32")  # in force, if undoable: 0 or 1

    def rows(
        self, replica: int, strategy: tf.distribute.Strategy
    ) -> np.ndarray:
        """Returns the gradients in force of one replica, shape `(V, P)`.

        `replica` counts those of this process.
        """
        local = strategy.experimental_local_results
        start = int(local(self.half)[replica]) * self.workers_per_replica
        rows = local(self.gradients)[replica]
        return rows[start : start + self.workers_per_replica].numpy()

    def restore(
        self,
        replica: int,
        strategy: tf.distribute.Strategy,
        rows: Iterable[Any],
    ) -> None:
        """Puts back what `rows` returned, one row `(P,)` after another.

        The caller puts `mean` back.
        """
        local = strategy.experimental_local_results
        local(self.half)[replica].assign(0)
        variable = local(self.gradients)[replica]
        for worker, row in enumerate(rows):
            values = tf.cast(row, variable.dtype)[tf.newaxis]
            variable.scatter_update(tf.IndexedSlices(values, [worker]))

    def reset(self, strategy: tf.distribute.Strategy) -> None:
        """Forgets all gradients: the next step has no noise, as the first."""
        for variable in (self.gradients, self.mean, self.half):
            for component in strategy.experimental_local_results(variable):
                component.assign(tf.zeros_like(component))


class MemoryStep:
    """The calling replica's memory during one step.

    Use it in this order: for each worker `previous`, then `remember`; `flush`;
    `end`. With V = 0 it holds the mean alone.

    Attributes:
        pending: The first worker's pending gradients: D zeros.
    """

    def __init__(self, memory: GradientMemory) -> None:
        self._workers = memory.workers_per_replica
        self._delay = memory.delay
        self._undoable = memory.undoable
        self._gradients = _keras_compat.on_this_replica(memory.gradients)
        self._mean = _keras_compat.on_this_replica(memory.mean)
        self._half = _keras_compat.on_this_replica(memory.half)
        self._old_mean = tf.convert_to_tensor(self._mean)
        self._old_half = tf.convert_to_tensor(self._half)
        self._read_from = self._old_half * self._workers
        self._write_to = self._read_from
        if self._undoable:
            self._write_to = (1 - self._old_half) * self._workers
        self.pending = tuple(
            tf.zeros_like(self._old_mean) for _ in range(self._delay)
        )

    @property
    def previous_mean(self) -> tf.Tensor:
        """The mean over all workers of the gradients before, `(P,)`."""
        return self._old_mean

    def previous(self, worker: tf.Tensor) -> tf.Tensor:
        """Returns a worker's gradient of the step before, shape `(P,)`."""
        # By its handle: a TPU's variables have no rows, their handles do.
        row = tf.raw_ops.ResourceGather(
            resource=self._gradients.handle,
            indices=self._read_from + worker,
            dtype=self._gradients.dtype,
        )
        row = tf.ensure_shape(row, self._old_mean.shape)
        return tf.cast(row, self._old_mean.dtype)

    def remember(
        self,
        worker: tf.Tensor,
        gradient: tf.Tensor,
        pending: tuple[tf.Tensor, ...],
    ) -> tuple[tf.Tensor, ...]:
        """Stores the gradient of the D-th worker before this one.

        `pending` are the gradients of the D workers before, oldest first, each
        `(P,)`. What comes back is the next worker's.
        """
        if not self._workers:
            return pending
        oldest, *younger = (*pending, gradient)
        row = self._write_to + worker - self._delay
        if self._delay:
            spare = tf.constant(self._gradients.shape[0] - 1)
            row = tf.where(worker < self._delay, spare, row)
        self._write(row, oldest)
        return tuple(younger)

    def flush(self, pending: tuple[tf.Tensor, ...]) -> None:
        """Stores the gradients that the last D workers left pending."""
        for index, gradient in enumerate(pending):
            worker = self._workers - self._delay + index
            self._write(self._write_to + worker, gradient)

    def end(self, mean: tf.Tensor, valid: tf.Tensor) -> None:
        """Stores the mean over all M workers, shape `(P,)`.

        If the step isn't valid and the memory is undoable, the next step
        reads what this one has read.
        """
        mean = tf.cast(mean, self._old_mean.dtype)
        self._mean.assign(tf.where(valid, mean, self._old_mean))
        if self._undoable:
            half = tf.where(valid, 1 - self._old_half, self._old_half)
            self._half.assign(half)

    def _write(self, row: tf.Tensor, gradient: tf.Tensor) -> None:
        values = tf.cast(gradient, self._gradients.dtype)[tf.newaxis]
        tf.raw_ops.ResourceScatterUpdate(
            resource=self._gradients.handle,
            indices=tf.reshape(row, [1]),
            updates=values,
        )
