"""The compiled functions that run a model's workers; they hold no batch.

Symbols   M, V, P  workers, those of a replica, number of trainable scalars
          b        rows per worker
"""

import functools
from typing import Any

import keras
import tensorflow as tf

from tf_gnc import _batch
from tf_gnc.analysis import checks
from tf_gnc.analysis.one_worker import KINDS, OneWorker
from tf_gnc.noise.rule import NoiseRule
from tf_gnc.step import workers
from tf_gnc.step.plan import StepPlan
from tf_gnc.step.train_step import GNCTrainStep


def traced_workers(
    model: GNCTrainStep,
    plan: StepPlan,
    noise: NoiseRule | str | None,
    batch: Any,
    rows_per_worker: int,
    relative: float | None,
) -> "TracedWorkers":
    """Returns the functions for a kind of measurement, the same each time.

    They are kept with the model's plan, and go with it when the model gets
    another rule or is compiled anew. Those under a rule of the caller's, who
    may bring a new object each time, are not kept. `plan` is the model's with
    that `noise`; of the batch the shapes count; the others are as for
    `WorkerRuns`.
    """

    def make() -> TracedWorkers:
        return TracedWorkers(model, plan, rows_per_worker, relative)

    if isinstance(noise, NoiseRule):
        return make()
    # Metrics may be made by the first step.
    metrics = len(model.metrics_variables)
    shapes = tuple(tuple(leaf.shape) for leaf in keras.tree.flatten(batch))
    key = ("workers", noise, shapes, relative, metrics)
    return model.step_plan.keep(key, make)


class TracedWorkers:
    """Runs all workers of all replicas; see `WorkerRuns` for the arguments."""

    def __init__(
        self,
        model: GNCTrainStep,
        plan: StepPlan,
        rows_per_worker: int,
        relative: float | None,
    ) -> None:
        self._model, self._plan = model, plan
        self._rows_per_worker, self._relative = rows_per_worker, relative
        self._functions = {
            kind: tf.function(
                functools.partial(self._on_all_replicas, kind), autograph=False
            )
            for kind in KINDS
        }

    def __call__(self, kind: str, *arguments: Any) -> Any:
        """Returns the workers' numbers, and their vectors' sum over rows.

        `arguments` are a batch, distributed, or for `"all_rows"` two: the
        workers' own rows and the pieces that all run on; how many pieces come
        before these; and the weights and the vector that `OneWorker` takes.
        """
        # Called by itself, a function that is made anew for each measurement
        # would be warned of as one that is traced in a loop.
        function = self._functions[kind].get_concrete_function(*arguments)
        return function(*arguments)

    def _on_all_replicas(
        self,
        kind: str,
        batch: Any,
        first: tf.Tensor,
        weights: tf.Tensor,
        vector: tf.Tensor,
    ) -> tuple[tf.Tensor | None, tf.Tensor]:
        strategy = self._model.distribute_strategy

        def on_replica(batch: Any) -> tuple[tf.Tensor, tf.Tensor]:
            own, part = batch if kind == "all_rows" else (batch, None)
            one = OneWorker(
                self._model,
                self._plan,
                kind,
                weights,
                vector,
                self._relative,
                lambda worker: _batch.rows(own, worker, self._plan.per_replica),
            )
            if kind == "all_rows":
                return self._all_rows(one, first, part)
            return self._own_rows(one, first, own)

        numbers, total = strategy.run(on_replica, args=(batch,))
        total = strategy.reduce("SUM", total, axis=None)
        if kind == "full":  # Of no use, and not equally many everywhere.
            return None, total
        return strategy.gather(numbers, axis=0), total

    def _own_rows(
        self, one: OneWorker, first: tf.Tensor, batch: Any
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Runs this replica's workers: one for b rows, one for what is over."""
        b = self._rows_per_worker
        num_rows = checks.num_rows(batch)
        pieces = num_rows // b
        even = _batch.between(batch, 0, pieces * b)
        before = first + self._plan.first_worker()

        def work(worker: tf.Tensor, totals: Any) -> Any:
            numbers, total = totals
            rows = _batch.rows(even, worker, pieces)
            number, vector = one(one.move(worker), before + worker, rows)
            return numbers.write(worker, number), total + b * vector

        totals = self._numbers(pieces), one.nothing()
        if pieces:
            parallel = self._plan.parallel
            totals = workers.for_each(work, totals, pieces, parallel)
        numbers, total = totals[0].stack(), totals[1]
        if num_rows % b:
            last = tf.constant(pieces)
            rest = _batch.between(batch, pieces * b, num_rows)
            move = one.move(last)
            total += (num_rows % b) * one(move, before + last, rest)[1]
        return numbers, total

    def _all_rows(
        self, one: OneWorker, first: tf.Tensor, part: Any
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Runs this replica's workers, each on all V pieces of a part.

        Returns the sums over the pieces over M, so that the parts add up to a
        mean.
        """
        plan = self._plan
        count = plan.per_replica

        def work(worker: tf.Tensor, numbers: tf.TensorArray) -> tf.TensorArray:
            move = one.move(worker)

            def add(piece: tf.Tensor, total: tf.Tensor) -> tf.Tensor:
                rows = _batch.rows(part, piece, count)
                return total + one(move, first + piece, rows)[0]

            zeros = tf.zeros([3], plan.layout.dtype)
            total = workers.for_each(add, zeros, count, 1)
            return numbers.write(worker, total / plan.num_workers)

        numbers = workers.for_each(
            work, self._numbers(count), count, plan.parallel
        )
        return numbers.stack(), one.nothing()

    def _numbers(self, count: int) -> tf.TensorArray:
        dtype = self._plan.layout.dtype
        return tf.TensorArray(dtype, count, element_shape=[3])
