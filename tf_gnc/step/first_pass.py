"""The first of two passes: each worker's gradient at the clean weights.

For rules that need the gradients of the step itself. What belongs to a worker
alone is computed as its turn comes, inside the loop over the workers; means
over a group of workers need a loop of their own before it, and a collective if
a group spans replicas.

Symbols   M, V, P  workers, workers per replica, number of trainable scalars
          k        workers in a group
"""

from collections.abc import Callable
from typing import Any

import tensorflow as tf

from tf_gnc.step import workers
from tf_gnc.step.plan import StepPlan

Found = tuple[tf.Tensor, tf.Tensor]
"""A worker's gradient `(P,)` and moving statistics after its call, packed."""


class FirstPass:
    """The first pass of one step on one replica; make one per traced step.

    Args:
        plan: The model's.
        differentiate: From a worker's index on this replica to what it finds
            at the clean weights.
        num_statistics: How many statistics it finds.
        active: Whether the step has noise; None for each step.
    """

    def __init__(
        self,
        plan: StepPlan,
        differentiate: Callable[[tf.Tensor], Found],
        num_statistics: int,
        active: tf.Tensor | None,
    ) -> None:
        self._plan, self._differentiate = plan, differentiate
        self._sizes = plan.layout.size, num_statistics
        self._active = active
        self._own = "current" in plan.rule.needs
        self._group = plan.group
        self._together = "current_mean" in plan.rule.needs and self._group > 1
        if self._together:
            self._means, self._gradients, self._statistics = self._loop()

    def of(self, worker: tf.Tensor) -> tuple[dict[str, Any], tf.Tensor]:
        """Returns a worker's vectors by the names of needs, and statistics.

        Call it once for each worker, in its turn.
        """
        if not self._together:
            gradient, statistics = self._if_active(
                lambda: self._differentiate(worker), self._sizes
            )
            vectors = {"current": gradient, "current_mean": gradient}
            return vectors, statistics
        vectors = {"current_mean": self._means[self._row(worker)]}
        if self._own:
            vectors["current"] = self._gradients[worker]
        return vectors, self._statistics[worker]

    def kept(self, clean: tf.Tensor, displaced: tf.Tensor) -> tf.Tensor:
        """Returns which of both passes' statistics of a worker are kept."""
        if self._plan.rule.statistics == "displaced":
            return displaced
        if self._active is None:
            return clean
        return tf.where(self._active, clean, displaced)

    @property
    def _spans_replicas(self) -> bool:
        return self._plan.per_replica % self._group != 0

    def _row(self, worker: tf.Tensor) -> tf.Tensor:
        """Returns which row of the means is a worker's."""
        if self._spans_replicas:
            worker += self._plan.first_worker()
        return worker // self._group

    def _loop(self) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        """Returns the groups' means, all gradients if needed, statistics."""
        plan, (size, num_statistics) = self._plan, self._sizes
        count = plan.per_replica
        all_workers = plan.num_workers if self._spans_replicas else count
        rows = all_workers // self._group

        def work(worker: tf.Tensor, state: Any) -> Any:
            sums, gradients, statistics = state
            gradient, found = self._differentiate(worker)
            sums = tf.tensor_scatter_nd_add(
                sums, [[self._row(worker)]], gradient[tf.newaxis]
            )
            if self._own:
                gradients = gradients.write(worker, gradient)
            return sums, gradients, statistics.write(worker, found)

        def loop() -> tuple[tf.Tensor, ...]:
            dtype = plan.layout.dtype
            state = (
                tf.zeros([rows, size], dtype),
                tf.TensorArray(dtype, count, element_shape=[size]),
                tf.TensorArray(dtype, count, element_shape=[num_statistics]),
            )
            sums, gradients, statistics = workers.for_each(
                work, state, count, plan.parallel
            )
            kept = gradients.stack() if self._own else tf.zeros([0, size])
            return sums, tf.cast(kept, dtype), statistics.stack()

        shapes = (
            [rows, size],
            [count if self._own else 0, size],
            [count, num_statistics],
        )
        sums, gradients, statistics = self._if_active(loop, shapes)
        if self._spans_replicas:  # Outside of the condition, for all.
            context = tf.distribute.get_replica_context()
            sums = context.all_reduce(tf.distribute.ReduceOp.SUM, sums)
        return sums / self._group, gradients, statistics

    def _if_active(self, make: Callable[[], Any], shapes: Any) -> Any:
        """Returns what `make` does, or zeros in a step without noise."""
        if self._active is None:
            return make()
        dtype = self._plan.layout.dtype

        def nothing() -> tuple[tf.Tensor, ...]:
            return tuple(tf.zeros(shape, dtype) for shape in shapes)

        found = tf.cond(self._active, lambda: tuple(make()), nothing)
        return tuple(
            tf.ensure_shape(tensor, shape)
            for tensor, shape in zip(found, shapes, strict=True)
        )
