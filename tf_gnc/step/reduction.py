"""What the workers of a step add up, and its mean over all of them.

Symbols   M, V  workers, workers per replica (tf_gnc.step.workers)
          P     number of trainable scalars (tf_gnc.noise.layout)
"""

from typing import Any

import keras
import tensorflow as tf

from tf_gnc import _keras_compat
from tf_gnc.step import workers
from tf_gnc.step.gradient_memory import MemoryStep
from tf_gnc.step.model_state import ModelState
from tf_gnc.step.plan import StepPlan


class Totals:
    """The sums of one step on one replica.

    Make one per traced step. The sums themselves travel through the workers'
    loop as a dictionary of tensors, from `first` through `add` to `reduce`.

    Args:
        plan: The plan in force.
        state: The model's state in this step.
        memory: The gradients of the step before, if the rule needs them.
        clean: The clean weights x, shape `(P,)`.
    """

    def __init__(
        self,
        plan: StepPlan,
        state: ModelState,
        memory: MemoryStep | None,
        clean: tf.Tensor,
    ) -> None:
        self._plan = plan
        self._layout = plan.layout
        self._state = state
        self._memory = memory
        self._clean = clean
        # Known once the worker body has been traced.
        self._connected: list[bool] = []
        self._structure: Any = None

    def first(self, outputs: list[Any]) -> dict[str, Any]:
        """Returns what the first worker of a replica adds to.

        Args:
            outputs: Dtype and shape of what `outputs_of` gives for one
                worker's predictions.
        """
        return {
            "gradient": tf.zeros([self._layout.size], self._layout.dtype),
            "loss": tf.zeros([], self._layout.dtype),
            "state": self._state.first(),
            "pending": self._memory.pending if self._memory else (),
            "culprit": tf.constant(-1),
            "probe": self._plan.probe.first() if self._plan.probe else (),
            "outputs": [
                tf.TensorArray(
                    spec.dtype, self._plan.per_replica, element_shape=spec.shape
                )
                for spec in outputs
                if spec is not None
            ],
        }

    def add(
        self,
        totals: dict[str, Any],
        worker: tf.Tensor,
        results: tuple[tf.Tensor, list[tf.Tensor | None], Any],
        state: dict[str, Any],
        place: tuple[tf.Tensor | None, tf.Tensor],
    ) -> dict[str, Any]:
        """Returns the totals with one worker's results added.

        Args:
            totals: What the workers before have left.
            worker: The worker's index on this replica, 0 to V - 1.
            results: Its mean loss; its gradient, a tensor per trainable
                variable, None where the loss does not depend on the variable;
                and its predictions.
            state: The model state that the next worker finds.
            place: Its noise, None without a rule, and its weights x_i.
        """
        loss, gradients, y_pred = results
        self._connected = [g is not None for g in gradients]
        self._structure = y_pred
        gradient = self._layout.pack(
            [
                tf.zeros(shape, self._layout.dtype) if g is None else g
                for g, shape in zip(gradients, self._layout.shapes, strict=True)
            ]
        )
        pending = totals["pending"]
        if self._memory is not None:
            pending = self._memory.remember(worker, gradient, pending)
        outputs = [o for o in outputs_of(y_pred) if o is not None]
        return {
            "gradient": totals["gradient"] + gradient,
            "loss": totals["loss"] + tf.cast(loss, self._layout.dtype),
            "state": state,
            "pending": pending,
            "culprit": self._culprit(totals["culprit"], worker, gradient),
            "probe": self._probed(
                totals["probe"], worker, loss, gradient, place
            ),
            "outputs": [
                array.write(worker, output)
                for array, output in zip(
                    totals["outputs"], outputs, strict=True
                )
            ],
        }

    def reduce(
        self, totals: dict[str, Any], num_rows: int | tf.Tensor, step: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor | None]:
        """Averages over all M workers and ends the memory's step.

        Everything that crosses the replicas travels in one vector.

        Args:
            totals: What this replica's last worker left.
            num_rows: This replica's rows.
            step: Number of steps taken before this one.

        Returns:
            The mean gradient, shape `(P,)`; the mean of the packed moving
            statistics; and a boolean scalar that tells whether the step may
            be taken, or None for a step that can't fail.
        """
        signals, dtype = self._plan.signals, self._layout.dtype
        culprit = totals["culprit"]
        parts = [
            totals["gradient"] / self._plan.per_replica,
            totals["state"]["statistics"] / self._plan.per_replica,
            signals.outgoing(culprit, num_rows, dtype),
        ]
        if self._plan.probe:
            parts.append(tf.reshape(totals["probe"], [-1]))
        vector = workers.mean_over_replicas(tf.concat(parts, axis=0))
        gradient, statistics, said, *table = tf.split(
            vector, [part.shape[0] for part in parts]
        )
        valid = signals.incoming(said, step, culprit, num_rows)
        if self._memory is not None:
            self._memory.flush(totals["pending"])
            finite = tf.reduce_all(tf.math.is_finite(gradient))
            self._memory.end(
                gradient, finite if valid is None else finite & valid
            )
        if self._plan.probe:
            self._plan.probe.record(
                table[0], self._clean, gradient, num_rows, valid
            )
        return gradient, statistics, valid

    def gradients(self, gradient: tf.Tensor) -> list[tf.Tensor | None]:
        """Returns a gradient as one tensor per trainable variable.

        Args:
            gradient: A vector of shape `(P,)`.

        Returns:
            Tensors in the variables' dtypes; None where the loss does not
            depend on the variable, as in stock Keras.
        """
        return [
            tf.cast(part, variable.dtype) if connected else None
            for part, variable, connected in zip(
                self._layout.unpack(gradient),
                self._plan.variables,
                self._connected,
                strict=True,
            )
        ]

    def predictions(self, totals: dict[str, Any]) -> Any:
        """Returns the predictions for all rows of this replica.

        Args:
            totals: What this replica's last worker left.
        """
        joined = iter([_join(a.stack()) for a in totals["outputs"]])
        outputs = [
            None if output is None else next(joined)
            for output in outputs_of(self._structure)
        ]
        half = len(outputs) // 2
        for prediction, mask in zip(
            outputs[:half], outputs[half:], strict=True
        ):
            if mask is not None:
                _keras_compat.set_mask(prediction, mask)
        return keras.tree.pack_sequence_as(self._structure, outputs[:half])

    def _culprit(
        self, culprit: tf.Tensor, worker: tf.Tensor, gradient: tf.Tensor
    ) -> tf.Tensor:
        if not self._plan.signals.checks_gradients:
            return culprit
        # One pass and no temporary: what isn't finite spoils the sum.
        finite = tf.math.is_finite(tf.reduce_sum(gradient))
        index = self._plan.first_worker() + worker
        return tf.where(finite | (culprit >= 0), culprit, index)

    def _probed(
        self,
        table: Any,
        worker: tf.Tensor,
        loss: tf.Tensor,
        gradient: tf.Tensor,
        place: tuple[tf.Tensor | None, tf.Tensor],
    ) -> Any:
        """Returns the probe's table with the worker's column, if there is one.

        The displacement is what the worker's weights came to, rounding
        included.
        """
        if not self._plan.probe:
            return table
        noise, displaced = place
        index = self._plan.first_worker() + worker
        vectors = (gradient, noise, displaced - self._clean)
        return self._plan.probe.add(table, index, loss, vectors)


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
