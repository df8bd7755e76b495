"""Runs the workers of a training step without training.

The same pieces as in the step: the plan's displacement, each worker's rows,
its stateless scope, its own mean loss. But the weights are the caller's, and
nothing is assigned: neither weights nor noise memory, moving statistics,
seeds or metrics.

Symbols   M, V, P  workers, those of a replica, number of trainable scalars
          b        rows per worker
"""

from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from tf_gnc import _batch, _check, _keras_compat
from tf_gnc.analysis import checks
from tf_gnc.analysis.traced_workers import traced_workers
from tf_gnc.noise.rule import NoiseRule
from tf_gnc.step import workers
from tf_gnc.step.train_step import GNCTrainStep


class Sweep(NamedTuple):
    """What one run of all workers gives, the same in every process."""

    losses: np.ndarray  # each worker's mean loss, (M,), float64
    squares: np.ndarray  # of each worker's gradient's norm, (M,)
    displacements: np.ndarray  # ||x_i - x|| / ||x|| of each worker, (M,)
    mean: tf.Tensor  # of the workers' gradients, (P,)


class WorkerRuns:
    """Losses and gradients of a model's workers at any weights.

    Workers call the model in training mode: each normalises with its own rows
    and draws, from the seeds of the coming step, its own masks. Each kind of
    run is traced once, without XLA, and kept for the next object. Make it, and
    call it, in all processes.

    Args:
        model: A compiled model.
        batch: As for the measures; checked here.
        noise: `"model"` displaces the workers as the coming step would; a
            rule displaces them by that rule; None not at all.
        relative_displacement: If set, each worker's displacement is brought
            to this multiple of ||x||. One that is zero remains so.

    Attributes:
        plan: The model's `StepPlan`, with the rule that was asked for.
        rows_per_worker: b.

    Example:
        >>> inputs = keras.Input((2,))
        >>> model = GNCModel(inputs, keras.layers.Dense(1)(inputs))
        >>> model.compile("sgd", "mse", num_workers=4)
        >>> runs = WorkerRuns(model, (np.ones((8, 2)), np.zeros((8, 1))))
        >>> runs.losses().losses.shape, runs.gradient().mean.shape
        ((4,), TensorShape([3]))
    """

    def __init__(
        self,
        model: GNCTrainStep,
        batch: Any,
        *,
        noise: NoiseRule | str | None = "model",
        relative_displacement: float | None = None,
    ) -> None:
        checks.model(model)
        batch = checks.batch(batch)
        num_rows = checks.num_rows(batch)
        workers.check_batch(num_rows, model.num_workers, "a batch")
        if relative_displacement is not None:
            relative_displacement = _check.real(
                "relative_displacement", relative_displacement, minimum=0
            )
        self._model = model
        self._strategy = model.distribute_strategy
        with self._strategy.scope():
            _keras_compat.build(model, batch)
        self.plan = checks.plan_with(model, noise)
        self.rows_per_worker = num_rows // self.plan.num_workers
        self._traced = traced_workers(
            model,
            self.plan,
            noise,
            batch,
            self.rows_per_worker,
            relative_displacement,
        )
        self._whole = batch
        self._batch = self._distribute(batch)

    @property
    def weights(self) -> tf.Tensor:
        """The model's weights x as they are now, shape `(P,)`."""
        return self.plan.clean_weights()

    def losses(self, weights: tf.Tensor | None = None) -> Sweep:
        """Runs the workers forward only; the `mean` gradient is empty.

        The displacements belong to the model's own weights; they are added to
        `weights`, `(P,)`, by default the same.
        """
        return self._run("losses", weights)

    def losses_of_all_rows(self) -> Sweep:
        """Runs each worker forward on all workers' rows, M M pieces of b.

        A worker's loss is the mean over the pieces, each with the masks that
        its own worker draws. A replica holds the rows of one replica at a time
        beside its own. Otherwise as `losses`.
        """
        plan, weights = self.plan, self.weights
        size = self.rows_per_worker * plan.per_replica
        parts = []
        for first in range(0, plan.num_workers, plan.per_replica):
            begin = first * self.rows_per_worker
            part = _batch.between(self._whole, begin, begin + size)
            rows = self._batch, self._on_every_replica(part)
            parts.append(
                self._traced(
                    "all_rows", rows, tf.constant(first), weights, weights
                )
            )
        numbers = sum(each.numpy().astype("float64") for each, _ in parts)
        return Sweep(*numbers.T, parts[0][1])

    def gradient(self, weights: tf.Tensor | None = None) -> Sweep:
        """Runs the workers forward and backward; see `losses`."""
        return self._run("gradient", weights)

    def hessian_product(self, vector: tf.Tensor) -> tf.Tensor:
        """Returns the mean loss's Hessian times a vector, both `(P,)`."""
        return self._run("hessian", vector=vector).mean

    def full_gradient(self, dataset: tf.data.Dataset) -> tf.Tensor:
        """Returns the mean gradient over a whole data set, shape `(P,)`.

        The data go through the model in pieces of b rows, as a worker's rows
        do, the last piece perhaps a smaller one; each row weighs the same,
        and each piece draws masks of its own. In several processes each gives
        the whole data set, in the same order.
        """
        total, seen = tf.zeros([self.plan.layout.size], tf.float64), 0
        size = self.rows_per_worker * self.plan.num_workers
        weights = self.weights
        for step, batch in enumerate(checks.batches(dataset, size)):
            first = tf.constant(step * self.plan.num_workers)
            rows = self._distribute(batch)
            _, gradient = self._traced("full", rows, first, weights, weights)
            total += tf.cast(gradient, tf.float64)
            seen += checks.num_rows(batch)
        if not seen:
            raise ValueError(
                "`dataset` must have rows, got one that is empty. Give the "
                "training set in batches."
            )
        return total / seen

    def _distribute(self, batch: Any) -> Any:
        """Returns each replica's rows: those of its V workers, if so many."""
        size = self.rows_per_worker * self.plan.per_replica
        num_rows = checks.num_rows(batch)

        def rows_of(context: tf.distribute.experimental.ValueContext) -> Any:
            begin = min(context.replica_id_in_sync_group * size, num_rows)
            return _batch.between(batch, begin, min(begin + size, num_rows))

        return self._strategy.experimental_distribute_values_from_function(
            rows_of
        )

    def _on_every_replica(self, batch: Any) -> Any:
        """Returns the same rows for each replica."""
        return self._strategy.experimental_distribute_values_from_function(
            lambda context: batch
        )

    def _run(
        self,
        kind: str,
        weights: tf.Tensor | None = None,
        vector: tf.Tensor | None = None,
    ) -> Sweep:
        dtype = self.plan.layout.dtype
        weights = self.weights if weights is None else tf.cast(weights, dtype)
        vector = weights if vector is None else tf.cast(vector, dtype)
        numbers, total = self._traced(
            kind, self._batch, tf.constant(0), weights, vector
        )
        num_rows = self.rows_per_worker * self.plan.num_workers
        return Sweep(*numbers.numpy().astype("float64").T, total / num_rows)
