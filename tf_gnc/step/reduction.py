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
from tf_gnc.step.row_gradients import Arrays, RowGradients


class WorkerResult(NamedTuple):
    """What one worker has found."""

    loss: tf.Tensor  # a mean
    gradients: list[Any]  # None where the loss doesn't depend
    predictions: Any
    noise: tf.Tensor | None  # before any scaling, (P,); None without a rule
    displaced: tf.Tensor | None  # x_i, (P,); None where nobody asks for it


class Trial(NamedTuple):
    """What a worker's call gives, of which dtypes and shapes count."""

    predictions: Any
    outputs: list[Any]  # `outputs_of` them
    gradients: list[Any]  # of `tables_of` the model


class Sums(NamedTuple):
    """What travels through the loop over a replica's workers.

    The culprit is the global index of the first worker whose gradient isn't
    finite, or -1.
    """

    gradient: tf.Tensor  # (P,)
    loss: tf.Tensor
    state: CarriedState
    pending: tuple[tf.Tensor, ...]  # gradients still to be remembered
    culprit: tf.Tensor
    table: tf.Tensor | tuple[()]  # flat, if one is kept
    rows: list[Arrays]  # gradients that come by rows
    outputs: list[tf.TensorArray]  # predictions and masks


class Reduction:
    """Sums one step on one replica, and averages over all.

    Make one per traced step. The sums travel through the workers' loop, from
    `first` through `add` to `reduce`.
    """

    def __init__(
        self,
        plan: StepPlan,
        state: ModelState,
        memory: MemoryStep | None,
        clean: tf.Tensor | None,
        trial: Trial,
    ) -> None:
        self._plan = plan
        tables = [id(variable) for variable in plan.tables]
        found = dict(zip(tables, trial.gradients, strict=True))
        self._rows = RowGradients(plan.variables, found, plan.per_replica)
        self._layout = self._rows.without(plan.layout)
        self._state = state
        self._memory = memory
        self._clean = clean
        self._structure, self._outputs = trial.predictions, trial.outputs

    def first(self) -> Sums:
        """Returns what the first worker of a replica adds to."""
        table = self._plan.table
        return Sums(
            gradient=tf.zeros([self._layout.size], self._layout.dtype),
            loss=tf.zeros([], self._layout.dtype),
            state=self._state.first(),
            pending=self._memory.pending if self._memory else (),
            culprit=tf.constant(-1),
            table=table.first() if table else (),
            rows=self._rows.first(),
            outputs=[
                tf.TensorArray(
                    spec.dtype, self._plan.per_replica, element_shape=spec.shape
                )
                for spec in self._outputs
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

        The worker's index is that on its replica, 0 to V - 1; the state is
        what the next worker finds.
        """
        self._depends = [g is not None for g in result.gradients]
        rows, others = self._rows.add(sums.rows, worker, result.gradients)
        gradient = self._layout.pack(others)
        index = self._plan.first_worker() + worker  # in the whole cluster
        pending, culprit, table = sums.pending, sums.culprit, sums.table
        if self._memory is not None:
            pending = self._memory.remember(worker, gradient, pending)
        if self._plan.signals.checks_gradients:
            # One pass and no temporary: what isn't finite spoils the sum.
            finite = tf.math.is_finite(tf.reduce_sum(gradient))
            culprit = tf.where(finite | (culprit >= 0), culprit, index)
        if self._plan.table:
            # What the weights came to, rounding included.
            displacement = result.displaced - self._clean
            table = self._plan.table.add(
                table,
                index,
                result.loss,
                (gradient, result.noise, displacement),
            )
        outputs = [o for o in outputs_of(result.predictions) if o is not None]
        return Sums(
            gradient=sums.gradient + gradient,
            loss=sums.loss + tf.cast(result.loss, self._layout.dtype),
            state=state,
            pending=pending,
            culprit=culprit,
            table=table,
            rows=rows,
            outputs=[
                array.write(worker, output)
                for array, output in zip(sums.outputs, outputs, strict=True)
            ],
        )

    def reduce(
        self, sums: Sums, num_rows: int | tf.Tensor, step: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor | None]:
        """Averages over all M workers and ends the memory's step.

        Everything that crosses the replicas travels in one vector. Given are
        what this replica's last worker left, the replica's rows, and how many
        steps were taken before.

        Returns:
            The mean gradient, shape `(P,)`; the mean of the packed moving
            statistics; and whether the step may be taken, as from
            `Signals.incoming`.
        """
        signals, dtype = self._plan.signals, self._layout.dtype
        parts = [
            sums.gradient / self._plan.per_replica,
            sums.state.statistics / self._plan.per_replica,
            signals.outgoing(sums.culprit, num_rows, dtype),
        ]
        if self._plan.table:
            parts.append(sums.table)
        vector = workers.mean_over_replicas(tf.concat(parts, axis=0))
        gradient, statistics, said, *table = tf.split(
            vector, [part.shape[0] for part in parts]
        )
        valid = signals.incoming(said, step, sums.culprit, num_rows)
        taken = tf.reduce_all(tf.math.is_finite(gradient))
        if valid is not None:
            taken &= valid
        if self._memory is not None:
            self._memory.flush(sums.pending)
            self._memory.end(gradient, taken)
        if self._plan.table:
            self._plan.table.record(
                table[0], self._clean, gradient, num_rows, taken
            )
        return gradient, statistics, valid

    def gradients(
        self,
        gradient: tf.Tensor,
        sums: Sums,
        scale: tf.Tensor,
    ) -> list[tf.Tensor | tf.IndexedSlices | None]:
        """Returns the mean gradient `(P,)`, scaled, as one for each variable.

        They have the variables' dtypes. As in stock Keras it is None where
        the loss doesn't depend on the variable.
        """
        parts = dict(enumerate(self._layout.unpack(gradient * scale)))
        parts |= self._rows.means(sums.rows, scale)
        return [
            tf.cast(parts[place], variable.dtype)
            if self._depends[place]
            else None
            for place, variable in enumerate(self._plan.variables)
        ]

    def predictions(self, sums: Sums) -> Any:
        """Returns the predictions for all rows of this replica."""
        joined = iter([_join(array.stack()) for array in sums.outputs])
        outputs = [o if o is None else next(joined) for o in self._outputs]
        count = len(outputs) // 2
        leaves, masks = outputs[:count], outputs[count:]
        for prediction, mask in zip(leaves, masks, strict=True):
            if mask is not None:
                _keras_compat.set_mask(prediction, mask)
        return keras.tree.pack_sequence_as(self._structure, leaves)


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
