r"""What a step leaves behind of its workers: a small table, on the device.

A column of it per worker, a few numbers for the step. The replicas put their
columns together in the step's only all-reduce, and the host reads the table
after the call. What is made of it, and when, is the reader's business.

Symbols   M  number of workers in the whole cluster
          P  number of trainable scalars
"""

import dataclasses

import numpy as np
import tensorflow as tf

from tf_gnc import _keras_compat
from tf_gnc.step import workers

_ROWS = 4


@dataclasses.dataclass(frozen=True)
class StepTable:
    r"""What the last step was like; all norms are over all weights at once.

    Attributes:
        losses: Each worker's mean loss at its displaced weights, regularization
            included, :math:`f(d_i; x_i)`; shape `(M,)`.
        gradient_squares: :math:`\|g_i\|^2` of its gradient there; `(M,)`.
        noise_squares: :math:`\|\omega_i\|^2` of what its displacement was made
            of, before any scaling (`NoiseRule.noise`): Eq. 4's gradient noise,
            Eq. 5's :math:`u_i / \|u_i\|` filter by filter; 0 without a rule;
            `(M,)`.
        displacement_squares: :math:`\|x_i - x\|^2`; `(M,)`.
        weights_square: :math:`\|x\|^2` of the clean weights before the update.
        mean_gradient_square: :math:`\|\tilde g\|^2`.
        examples_per_worker: b.
        valid: Whether the mean gradient was finite and the step was taken.
    """

    losses: np.ndarray
    gradient_squares: np.ndarray
    noise_squares: np.ndarray
    displacement_squares: np.ndarray
    weights_square: float
    mean_gradient_square: float
    examples_per_worker: int
    valid: bool


class StepTableWriter:
    """Writes the table in the step, into a variable, and reads it after.

    Make it under the model's scope.
    """

    def __init__(self, num_workers: int, num_replicas: int, dtype: str) -> None:
        self._num_workers = num_workers
        self._num_replicas = num_replicas
        self._dtype = dtype
        self._kept = workers.replica_variable([_ROWS * num_workers + 4], dtype)

    def first(self) -> tf.Tensor:
        """Returns the table that a replica's first worker adds to."""
        return tf.zeros([_ROWS, self._num_workers], self._dtype)

    def add(
        self,
        table: tf.Tensor,
        worker: tf.Tensor,
        loss: tf.Tensor,
        vectors: tuple[tf.Tensor, tf.Tensor | None, tf.Tensor],
    ) -> tf.Tensor:
        """Returns the table, shape `(4, M)`, with one worker's column written.

        The worker's index is that in the whole cluster; the vectors `(P,)` are
        its gradient, noise (None without a rule) and displacement.
        """
        column = [tf.cast(loss, self._dtype)]
        column += [
            tf.zeros([], self._dtype) if v is None else _square(v)
            for v in vectors
        ]
        # Not by a product: 0 times infinity would spoil the others' columns.
        mine = tf.range(self._num_workers) == worker
        return tf.where(mine, tf.stack(column)[:, tf.newaxis], table)

    def record(
        self,
        mean: tf.Tensor,
        clean: tf.Tensor,
        gradient: tf.Tensor,
        num_rows: int | tf.Tensor,
        taken: tf.Tensor,
    ) -> None:
        """Keeps what all replicas have put together, for the host to read.

        The first is the mean over the replicas of their tables, flat; the
        gradient is the mean, too. The rows are this replica's.
        """
        per_replica = self._num_workers // self._num_replicas
        numbers = [
            _square(clean),
            _square(gradient),
            num_rows // per_replica,
            taken,
        ]
        numbers = tf.stack([tf.cast(n, self._dtype) for n in numbers])
        table = mean * self._num_replicas  # Others have zeros in a column.
        kept = _keras_compat.on_this_replica(self._kept)
        kept.assign(tf.concat([table, numbers], axis=0))

    def read(self, strategy: tf.distribute.Strategy) -> StepTable | None:
        """Returns the last step's table, the same in all processes.

        It is None if no step has been taken yet.
        """
        kept = strategy.experimental_local_results(self._kept)[0].numpy()
        rows = kept[:-4].reshape(_ROWS, -1)
        weights, gradient, examples, valid = kept[-4:].tolist()
        if not examples:
            return None
        return StepTable(*rows, weights, gradient, int(examples), bool(valid))


def _square(vector: tf.Tensor) -> tf.Tensor:
    """Returns a vector's squared norm, in one pass and no temporary."""
    return 2 * tf.nn.l2_loss(vector)
