r"""What a step leaves behind of its workers: a small table, on the device.

A column of it per worker, a few numbers for the step. The replicas put their
columns together in the step's only all-reduce, and the host reads the table
after the call. What is made of it, and when, is the reader's business.

Symbols   M  number of workers in the whole cluster
          P  number of trainable scalars
          L  number of trainable variables
"""

import dataclasses

import numpy as np
import tensorflow as tf

from tf_gnc import _keras_compat
from tf_gnc.noise.layout import WeightLayout
from tf_gnc.step import workers

_ROWS = 4


@dataclasses.dataclass(frozen=True)
class StepTable:
    r"""What the last step was like; norms are over all weights, or a layer's.

    Attributes:
        losses: Each worker's mean loss at its displaced weights, regularization
            included, :math:`f(d_i; x_i)`; shape `(M,)`.
        gradient_squares: :math:`\|g_i\|^2` of its gradient there; `(M,)`.
        noise_squares: :math:`\|\omega_i\|^2` of what its displacement was made
            of, before any scaling (`NoiseRule.noise`): Eq. 4's gradient noise,
            Eq. 5's :math:`u_i / \|u_i\|` filter by filter; 0 without a rule;
            `(M,)`.
        displacement_squares: :math:`\|x_i - x\|^2`; `(M,)`.
        layer_displacements: Mean over the workers of :math:`\|x_i - x\|` of
            each variable by itself; `(L,)`.
        layer_norms: :math:`\|x\|` of each variable; `(L,)`.
        paths: The variables' paths.
        weights_square: :math:`\|x\|^2` of the clean weights before the update.
        mean_gradient_square: :math:`\|\tilde g\|^2`.
        examples_per_worker: b.
        valid: Whether the mean gradient was finite and the step was taken.
    """

    losses: np.ndarray
    gradient_squares: np.ndarray
    noise_squares: np.ndarray
    displacement_squares: np.ndarray
    layer_displacements: np.ndarray
    layer_norms: np.ndarray
    paths: list[str]
    weights_square: float
    mean_gradient_square: float
    examples_per_worker: int
    valid: bool


class StepTableWriter:
    """Writes the table in the step, into a variable, and reads it after.

    Make it under the model's scope.
    """

    def __init__(
        self, num_workers: int, num_replicas: int, layout: WeightLayout
    ) -> None:
        self._num_workers = num_workers
        self._num_replicas = num_replicas
        self._layout, self._dtype = layout, layout.dtype
        num_layers = len(layout.shapes)
        self._parts = [_ROWS * num_workers, num_layers, num_layers, 4]
        self._kept = workers.replica_variable([sum(self._parts)], self._dtype)

    def first(self) -> tf.Tensor:
        """Returns the table that a replica's first worker adds to, flat."""
        return tf.zeros([sum(self._parts[:2])], self._dtype)

    def add(
        self,
        table: tf.Tensor,
        worker: tf.Tensor,
        loss: tf.Tensor,
        vectors: tuple[tf.Tensor, tf.Tensor | None, tf.Tensor],
    ) -> tf.Tensor:
        """Returns the table, `(4 M + L,)`, with one worker's numbers added.

        The worker's index is that in the whole cluster; the vectors `(P,)` are
        its gradient, noise (None without a rule) and displacement.
        """
        gradient, noise, displacement = vectors
        layers = self._layer_squares(displacement)
        nothing = tf.zeros([], self._dtype)
        column = [
            tf.cast(loss, self._dtype),
            _square(gradient),
            nothing if noise is None else _square(noise),
            tf.reduce_sum(layers),
        ]
        columns, lengths = tf.split(table, self._parts[:2])
        # Not by a product: 0 times infinity would spoil the others' columns.
        mine = tf.range(self._num_workers) == worker
        columns = tf.where(
            mine,
            tf.stack(column)[:, tf.newaxis],
            tf.reshape(columns, [_ROWS, self._num_workers]),
        )
        lengths += tf.sqrt(layers) / self._num_workers
        return tf.concat([tf.reshape(columns, [-1]), lengths], axis=0)

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
        layers = self._layer_squares(clean)
        numbers = [
            tf.reduce_sum(layers),
            _square(gradient),
            num_rows // per_replica,
            taken,
        ]
        numbers = tf.stack([tf.cast(n, self._dtype) for n in numbers])
        table = mean * self._num_replicas  # Others have zeros in a column.
        kept = _keras_compat.on_this_replica(self._kept)
        kept.assign(tf.concat([table, tf.sqrt(layers), numbers], axis=0))

    def read(self, strategy: tf.distribute.Strategy) -> StepTable | None:
        """Returns the last step's table, the same in all processes.

        It is None if no step has been taken yet.
        """
        kept = strategy.experimental_local_results(self._kept)[0].numpy()
        columns, moved, norms, numbers = np.split(
            kept, np.cumsum(self._parts[:-1])
        )
        weights, gradient, examples, valid = numbers.tolist()
        if not examples:
            return None
        return StepTable(
            *columns.reshape(_ROWS, -1),
            moved,
            norms,
            self._layout.paths,
            weights,
            gradient,
            int(examples),
            bool(valid),
        )

    def _layer_squares(self, vector: tf.Tensor) -> tf.Tensor:
        """Returns each variable's squared norm, shape `(L,)`."""
        parts = tf.split(vector, self._layout.sizes)
        return tf.stack([_square(part) for part in parts])


def _square(vector: tf.Tensor) -> tf.Tensor:
    """Returns a vector's squared norm, in one pass and no temporary."""
    return 2 * tf.nn.l2_loss(vector)
