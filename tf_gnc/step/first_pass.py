"""The first of two passes: each worker's gradient at the clean weights.

For rules that need the gradients of the step itself. What belongs to a worker
alone is computed as its turn comes, inside the loop over the workers; means
over a group of workers need a loop of their own before it, and a collective if
a group spans replicas.

Symbols   M, V, P  workers, workers per replica, number of trainable scalars
          k        workers in a group
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import tensorflow as tf

from tf_gnc.noise.rule import NoiseRule
from tf_gnc.step import workers
from tf_gnc.step.plan import StepPlan

Found = tuple[tf.Tensor, tf.Tensor]
"""A worker's gradient `(P,)` and moving statistics after its call, packed."""


class Groups(NamedTuple):
    """Over which workers a first pass takes its means, and what it keeps.

    It keeps vectors of P numbers on each replica until the step's end; none if
    each worker's turn gives all that it needs.
    """

    size: int  # workers in a group
    span_replicas: bool  # whether one lies on several, which is a collective
    means: int  # how many are kept
    gradients: int  # how many workers' own gradients are kept beside them

    @classmethod
    def of(
        cls, rule: NoiseRule | None, num_workers: int, per_replica: int
    ) -> "Groups":
        """Returns those of a rule with M workers, V of them on a replica."""
        size = 1
        if rule is not None and "current_mean" in rule.needs:
            size = num_workers if rule.group == "all" else rule.group
        if size == 1:
            return cls(size, False, 0, 0)
        spans = per_replica % size != 0
        means = (num_workers if spans else per_replica) // size
        own = "current" in rule.needs
        return cls(size, spans, means, per_replica if own else 0)


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
        self._groups = Groups.of(plan.rule, plan.num_workers, plan.per_replica)
        if self._groups.means:
            self._means, self._gradients, self._statistics = self._loop()

    def of(self, worker: tf.Tensor) -> tuple[dict[str, Any], tf.Tensor]:
        """Returns a worker's vectors by the names of needs, and statistics.

        Call it once for each worker, in its turn.
        """
        if not self._groups.means:
            gradient, statistics = self._if_active(
                lambda: self._differentiate(worker), self._sizes
            )
            vectors = {"current": gradient, "current_mean": gradient}
            return vectors, statistics
        vectors = {"current_mean": self._means[self._row(worker)]}
        if self._groups.gradients:
            vectors["current"] = self._gradients[worker]
        return vectors, self._statistics[worker]

    def kept(self, clean: tf.Tensor, displaced: tf.Tensor) -> tf.Tensor:
        """Returns which of both passes' statistics of a worker are kept."""
        if self._plan.rule.statistics == "displaced":
            return displaced
        if self._active is None:
            return clean
        return tf.where(self._active, clean, displaced)

    def _row(self, worker: tf.Tensor) -> tf.Tensor:
        """Returns which row of the means is a worker's."""
        if self._groups.span_replicas:
            worker += self._plan.first_worker()
        return worker // self._groups.size

    def _loop(self) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        """Returns the groups' means, all gradients if needed, statistics."""
        plan, (size, num_statistics) = self._plan, self._sizes
        count, groups = plan.per_replica, self._groups

        def work(worker: tf.Tensor, state: Any) -> Any:
            sums, gradients, statistics = state
            gradient, found = self._differentiate(worker)
            sums = tf.tensor_scatter_nd_add(
                sums, [[self._row(worker)]], gradient[tf.newaxis]
            )
            if groups.gradients:
                gradients = gradients.write(worker, gradient)
            return sums, gradients, statistics.write(worker, found)

        def loop() -> tuple[tf.Tensor, ...]:
            dtype = plan.layout.dtype
            state = (
                tf.zeros([groups.means, size], dtype),
                tf.TensorArray(dtype, count, element_shape=[size]),
                tf.TensorArray(dtype, count, element_shape=[num_statistics]),
            )
            sums, gradients, statistics = workers.for_each(
                work, state, count, plan.parallel
            )
            kept = tf.zeros([0, size], dtype)
            if groups.gradients:
                kept = gradients.stack()
            return sums, kept, statistics.stack()

        shapes = (
            [groups.means, size],
            [groups.gradients, size],
            [count, num_statistics],
        )
        sums, gradients, statistics = self._if_active(loop, shapes)
        if groups.span_replicas:  # Outside of the condition, for all.
            context = tf.distribute.get_replica_context()
            sums = context.all_reduce(tf.distribute.ReduceOp.SUM, sums)
        return sums / groups.size, gradients, statistics

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
