"""What the workers of a step add up, and its mean over all of them.

Symbols   M, V  workers, workers per replica (tf_gnc.step.workers)
          P     number of trainable scalars (tf_gnc.noise.layout)
"""

from typing import Any, NamedTuple

import keras
import tensorflow as tf

from tf_gnc import _keras_compat
from tf_gnc.step import workers
from tf_gnc.step.gradient_memory import MemoryStep
from tf_gnc.step.model_state import CarriedState, ModelState
from tf_gnc.step.plan import StepPlan


class WorkerResult(NamedTuple):
    """What one worker has found.

    Attributes:
        loss: Its mean loss.
        gradients: A tensor per trainable variable; None where the loss does
            not depend on the variable.
        predictions: For its rows.
        noise: Before any scaling, shape `(P,)`; None without a rule.
        displaced: Its weights x_i, shape `(P,)`.
    """

    loss: tf.Tensor
    gradients: list[tf.Tensor | None]
    predictions: Any
    noise: tf.Tensor | None
    displaced: tf.Tensor


class Sums(NamedTuple):
    """What travels through the loop over a replica's workers.

    Attributes:
        gradient: Sum of their gradients, shape `(P,)`.
        loss: Sum of their losses.
        state: The model's state.
        pending: Gradients that are still to be remembered.
        culprit: Global index of the first worker whose gradient isn't finite,
            or -1.
        table: The step table's columns; `()` if none is kept.
        outputs: Their predictions and masks, a TensorArray each.
    """

    gradient: tf.Tensor
    loss: tf.Tensor
    state: CarriedState
    pending: tuple[tf.Tensor, ...]
    culprit: tf.Tensor
    table: tf.Tensor | tuple[()]
    outputs: list[tf.TensorArray]


class Reduction:
    """Sums one step on one replica, and averages over all.

    Make one per traced step. The sums travel through the workers' loop, from
    `first` through `add` to `reduce`.

    Args:
        plan: The plan in force.
        state: The model's state in this step.
        memory: The gradients of the step before, if the rule needs them.
        clean: The clean weights x, shape `(P,)`.
        outputs: Dtype and shape of one worker's predictions, and of the mask
            of each or None.
    """

    def __init__(
        self,
        plan: StepPlan,
        state: ModelState,
        memory: MemoryStep | None,
        clean: tf.Tensor,
        outputs: tuple[Any, list[Any]],
    ) -> None:
        self._plan = plan
        self._layout = plan.layout
        self._state = state
        self._memory = memory
        self._clean = clean
        self._predictions, self._masks = outputs

    def first(self) -> Sums:
        """Returns what the first worker of a replica adds to."""
        table = self._plan.table
        outputs = [*keras.tree.flatten(self._predictions), *self._masks]
        return Sums(
            gradient=tf.zeros([self._layout.size], self._layout.dtype),
            loss=tf.zeros([], self._layout.dtype),
            state=self._state.first(),
            pending=self._memory.pending if self._memory else (),
            culprit=tf.constant(-1),
            table=table.first() if table else (),
            outputs=[
                tf.TensorArray(
                    spec.dtype, self._plan.per_replica, element_shape=spec.shape
                )
                for spec in outputs
                if spec is not None
            ],
        )

    def add(
        self,
        sums: Sums,
        worker: tf.Tensor,
        result: WorkerResult,
        state: CarriedState,
    ) -> Sums:
        """Returns the sums with one worker's result added.

        Args:
            sums: What the workers before have left.
            worker: The worker's index on this replica, 0 to V - 1.
            result: What it has found.
            state: The model state that the next worker finds.
        """
        layout = self._layout
        gradient = layout.pack(result.gradients)
        pending, table = sums.pending, sums.table
        if self._memory is not None:
            pending = self._memory.remember(worker, gradient, pending)
        outputs = outputs_of(result.predictions)
        if self._plan.table:
            # What the weights came to, rounding included.
            displacement = result.displaced - self._clean
            table = self._plan.table.add(
                table,
                self._plan.first_worker() + worker,
                result.loss,
                (gradient, result.noise, displacement),
            )
        return Sums(
            gradient=sums.gradient + gradient,
            loss=sums.loss + tf.cast(result.loss, layout.dtype),
            state=state,
            pending=pending,
            culprit=self._culprit(sums.culprit, worker, gradient),
            table=table,
            outputs=[
                array.write(worker, output)
                for array, output in zip(
                    sums.outputs,
                    [o for o in outputs if o is not None],
                    strict=True,
                )
            ],
        )

    def reduce(
        self, sums: Sums, num_rows: int | tf.Tensor, step: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor | None]:
        """Averages over all M workers and ends the memory's step.

        Everything that crosses the replicas travels in one vector.

        Args:
            sums: What this replica's last worker left.
            num_rows: This replica's rows.
            step: Number of steps taken before this one.

        Returns:
            The mean gradient, shape `(P,)`; the mean of the packed moving
            statistics; and a boolean scalar that tells whether the step may
            be taken, or None for a step that can't fail.
        """
        signals, dtype = self._plan.signals, self._layout.dtype
        culprit = sums.culprit
        parts = [
            sums.gradient / self._plan.per_replica,
            sums.state.statistics / self._plan.per_replica,
            signals.outgoing(culprit, num_rows, dtype),
        ]
        if self._plan.table:
            parts.append(tf.reshape(sums.table, [-1]))
        vector = workers.mean_over_replicas(tf.concat(parts, axis=0))
        gradient, statistics, said, *table = tf.split(
            vector, [part.shape[0] for part in parts]
        )
        valid = signals.incoming(said, step, culprit, num_rows)
        if self._memory is not None:
            self._memory.flush(sums.pending)
            finite = tf.reduce_all(tf.math.is_finite(gradient))
            self._memory.end(
                gradient, finite if valid is None else finite & valid
            )
        if self._plan.table:
            self._plan.table.record(
                table[0], self._clean, gradient, num_rows, valid
            )
        return gradient, statistics, valid

    def predictions(self, sums: Sums) -> Any:
        """Returns the predictions for all rows of this replica.

        Args:
            sums: What this replica's last worker left.
        """
        joined = iter([_join(array.stack()) for array in sums.outputs])
        leaves = [
            None if spec is None else next(joined)
            for spec in keras.tree.flatten(self._predictions)
        ]
        for prediction, mask in zip(leaves, self._masks, strict=True):
            if mask is not None:
                _keras_compat.set_mask(prediction, next(joined))
        return keras.tree.pack_sequence_as(self._predictions, leaves)

    def _culprit(
        self, culprit: tf.Tensor, worker: tf.Tensor, gradient: tf.Tensor
    ) -> tf.Tensor:
        if not self._plan.signals.checks_gradients:
            return culprit
        # One pass and no temporary: what isn't finite spoils the sum.
        finite = tf.math.is_finite(tf.reduce_sum(gradient))
        index = self._plan.first_worker() + worker
        return tf.where(finite | (culprit >= 0), culprit, index)


def outputs_of(y_pred: Any) -> list[Any]:
    """Returns predictions, flattened, and then as many masks or None."""
    leaves = keras.tree.flatten(y_pred)
    return leaves + [_keras_compat.mask_of(leaf) for leaf in leaves]


def _join(stack: tf.Tensor) -> tf.Tensor:
    """Joins what V workers gave, shape `(V, ...)`, to one output's rows."""
    if stack.shape.rank > 1:
        shape = tf.concat([[-1], tf.shape(stack)[2:]], axis=0)
        return tf.ensure_shape(
            tf.reshape(stack, shape), [None, *stack.shape[2:]]
        )
    if stack.dtype.is_floating:
        return tf.reduce_mean(stack)  # a number for the batch, a mean mostly
    return stack[-1]
