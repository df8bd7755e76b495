"""One worker's losses and gradients at weights that the caller chooses."""

import contextlib
import functools
from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf

from tf_gnc.step.first_pass import FirstPass
from tf_gnc.step.model_state import ModelState
from tf_gnc.step.plan import StepPlan
from tf_gnc.step.train_step import GNCTrainStep

KINDS = ("losses", "all_rows", "gradient", "hessian", "full")
"""What a run gives besides losses: nothing, on a worker's own rows or on all;
the gradient, the Hessian times a vector, or the gradient over any number of
rows."""

_FORWARD = ("losses", "all_rows")


class OneWorker:
    """The workers of one replica, one at a time. Make one per traced run.

    Args:
        model: Built and compiled; nothing is assigned to it.
        plan: Its plan, perhaps with another rule.
        kind: One of `KINDS`.
        weights: What the displacements are added to, shape `(P,)`.
        vector: What the Hessian is multiplied by, `(P,)`.
        relative: What to bring each displacement to, in ||x||; None leaves it.
        rows_of: From a worker's index on this replica to its own rows, on
            which a rule with two passes takes its first.
    """

    def __init__(
        self,
        model: GNCTrainStep,
        plan: StepPlan,
        kind: str,
        weights: tf.Tensor,
        vector: tf.Tensor,
        relative: float | None,
        rows_of: Callable[[tf.Tensor], Any],
    ) -> None:
        self._size = 0 if kind in _FORWARD else plan.layout.size
        self._model, self._plan, self._kind = model, plan, kind
        self._weights, self._vector = weights, vector
        self._relative = relative
        self._state = ModelState(model, plan.generator, plan.layout.dtype)
        self._metrics = [
            tf.convert_to_tensor(v.value) for v in model.metrics_variables
        ]
        memory, self._clean = plan.begin_step(), plan.clean_weights()
        self._displaced = plan.displacement(
            self._clean, model.optimizer, memory
        )
        self._first: FirstPass | None = None
        if plan.rule is not None and plan.rule.takes_two_passes:
            self._first = FirstPass(
                plan, functools.partial(self._clean_gradient, rows_of), 0, None
            )

    def move(self, worker: tf.Tensor) -> tf.Tensor:
        """Returns the displacement of worker 0 to V - 1, shape `(P,)`."""
        vectors = self._first.of(worker)[0] if self._first else {}
        _, displaced = self._displaced(worker, **vectors)
        move = displaced - self._clean
        if self._relative is not None:
            wanted = self._relative * tf.norm(self._clean)
            move *= tf.math.divide_no_nan(wanted, tf.norm(move))
        return move

    def __call__(
        self, move: tf.Tensor, index: tf.Tensor, rows: Any
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Runs a displaced worker on some rows; `index` decides its seeds.

        Returns:
            Its loss, its gradient's squared norm (0 without one) and its
            relative displacement, in a tensor of shape `(3,)`; and the vector
            of its kind, shape `(P,)`, or `(0,)` without gradients.
        """
        plan, length = self._plan, tf.norm(self._clean)
        weights = plan.layout.unpack(self._weights + move)  # x_i
        pairs = list(zip(plan.variables, weights, strict=True))
        scope = self._state.scope(pairs, index, self._metrics)
        loss, gradient, vector = self._differentiate(scope, weights, rows)
        numbers = [
            tf.cast(loss, plan.layout.dtype),
            tf.reduce_sum(gradient**2),
            tf.math.divide_no_nan(tf.norm(move), length),
        ]
        return tf.stack(numbers), vector

    def _clean_gradient(
        self, rows_of: Callable[[tf.Tensor], Any], worker: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Returns a worker's gradient at the model's own weights."""
        plan = self._plan
        weights = plan.layout.unpack(self._clean)
        pairs = list(zip(plan.variables, weights, strict=True))
        index = plan.first_worker() + worker
        scope = self._state.scope(pairs, index, self._metrics)
        x, y, weight = keras.utils.unpack_x_y_sample_weight(rows_of(worker))
        _, gradients, _ = self._model._differentiate(
            scope, weights, x, y, weight
        )
        return plan.layout.pack(gradients), tf.zeros([0], plan.layout.dtype)

    def nothing(self) -> tf.Tensor:
        """Returns zeros in the shape of the vector of this kind."""
        return tf.zeros([self._size], self._plan.layout.dtype)

    def _differentiate(
        self, scope: keras.StatelessScope, weights: list[tf.Tensor], rows: Any
    ) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        """Returns the loss, its gradient and the vector that is asked for."""
        layout = self._plan.layout
        x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(rows)
        twice = self._kind == "hessian"
        tape = tf.GradientTape() if twice else contextlib.nullcontext()
        with tape:
            if twice:
                tape.watch(weights)
            loss, gradients, _ = self._model._differentiate(
                scope, weights, x, y, sample_weight
            )
            if self._kind in _FORWARD:  # The graph drops the way back.
                return loss, self.nothing(), self.nothing()
            gradient = layout.pack(gradients)
        if not twice:
            return loss, gradient, gradient
        product = tape.gradient(
            gradient,
            weights,
            output_gradients=self._vector,
            unconnected_gradients=tf.UnconnectedGradients.ZERO,
        )
        return loss, gradient, layout.pack(product)
