r"""The training step: M workers at displaced weights, one update of the mean.

One step of Algorithm 1, as `GNCTrainStep.train_step` reads:

    1. pack the clean weights x into one vector
    2. for each worker i of this replica: displace the weights by its noise,
       take the gradient of its own mean loss on its own rows there, remember
       the gradient; nothing is assigned to the model meanwhile. A rule that
       needs this step's gradients at x (SAM) gets them from a pass before: a
       second forward and backward pass, and, if it needs means over groups of
       workers that lie on several replicas, a second collective
    3. average gradients and moving statistics over all M workers: the only
       collective of all other rules
    4. hand the mean gradient to the optimizer, which clips it, decays the
       weights and updates them as it always does

Symbols   M, R, V  workers, replicas, workers per replica (tf_gnc.step.workers)
          P        number of trainable scalars (tf_gnc.noise.layout)
"""

import warnings
from typing import Any

import keras
import tensorflow as tf

from tf_gnc import _batch, _keras_compat
from tf_gnc.step import row_gradients, workers
from tf_gnc.step.control import control_of
from tf_gnc.step.first_pass import FirstPass
from tf_gnc.step.model_state import ModelState
from tf_gnc.step.plan import StepPlan
from tf_gnc.step.reduction import (
    Reduction,
    Sums,
    Trial,
    WorkerResult,
    outputs_of,
)
from tf_gnc.step.trainer import NoiseSettings


class GNCTrainStep(NoiseSettings):
    r"""Mixin that trains any Keras model with GNC, through `compile` and `fit`.

    Put it before the Keras class: `class Mine(GNCTrainStep, keras.Model)`.
    `compile` then takes two arguments more, `noise` and `num_workers`; all
    others, `fit`, `evaluate`, `predict`, callbacks and saving are Keras's own.

    Paper: Haruki et al. (2019), arXiv:1906.10822, Algorithm 1. Where it is
    silent:

    - Batch normalization: each worker normalises with its own examples, at
      its displaced weights. The moving statistics become the mean over all
      workers of the update that each would have made.
    - Dropout and other random layers: each worker draws from a seed of its
      own, a function of the layer's seed and the worker's global index.
    - Loss: each worker's own mean, regularization included, at its displaced
      weights.
    - Clipping and weight decay act on the mean gradient.
    - `mixed_float16`: noise is made of unscaled gradients; a step that
      overflows anywhere changes neither weights nor noise.
    - Evaluation, prediction and saving use the clean weights. They are never
      assigned to and back, so an interrupt can't leave a model displaced.

    With `noise=None, num_workers=1` a step is stock Keras's.

    Example:
        >>> class Mine(GNCTrainStep, keras.Sequential):
        ...     pass
        >>> model = Mine([keras.Input((4,)), keras.layers.Dense(1)])
        >>> model.compile("sgd", "mse", noise=GradientNoise(alpha=0.1),
        ...               num_workers=8)
        >>> history = model.fit(np.ones((64, 4)), np.zeros((64, 1)),
        ...                     batch_size=32, verbose=0)
    """

    def train_step(self, data: Any) -> dict[str, tf.Tensor]:
        """Takes one step of Algorithm 1 on this replica's rows of a batch.

        Args:
            data: What a data set yields: `x`, `(x, y)` or
                `(x, y, sample_weight)`, nested as the model needs it, with
                this replica's rows on axis 0.

        Returns:
            The metrics so far, as stock Keras does.

        Raises:
            ValueError: If the workers can't share the rows evenly.
        """
        if self._gnc_plan is None:
            _keras_compat.build(self, data)
        plan = self.step_plan
        if not plan.variables:
            warnings.warn("The model has no trainable weights.", stacklevel=2)
        plain = plan.is_plain and control_of(self).update is None
        if plain or not plan.variables:
            return super().train_step(data)
        return self._train_workers(plan, data)

    def _train_workers(self, plan: StepPlan, data: Any) -> dict[str, tf.Tensor]:
        """Takes a step of Algorithm 1 with all workers of this replica."""
        x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
        num_rows = _batch.num_rows(x)
        if not isinstance(num_rows, int):  # An uneven batch will be refused.
            x, y, sample_weight = _batch.even_rows(
                (x, y, sample_weight), plan.per_replica
            )
        optimizer = self.optimizer
        state = ModelState(self, plan.generator, plan.layout.dtype)
        trial = self._try_out(state, (x, y, sample_weight))
        memory, values = plan.begin_step(), plan.values()
        clean = plan.layout.pack(values) if plan.is_packed else None
        reduction = Reduction(plan, state, memory, clean, trial)
        displace = plan.displacement(clean, optimizer, memory)
        first = self._first_pass(plan, state, values, (x, y, sample_weight))

        def work(worker: tf.Tensor, sums: Sums) -> Sums:
            index = plan.first_worker() + worker  # in the whole cluster
            vectors, statistics = first.of(worker) if first else ({}, None)
            omega, displaced = displace(worker, **vectors)  # x_i
            weights = values
            if displaced is not None:
                weights = plan.layout.unpack(displaced)
            pairs = list(zip(plan.variables, weights, strict=True))
            scope = state.scope(pairs, index, sums.state.metrics)
            rows = _batch.rows((x, y, sample_weight), worker, plan.per_replica)
            found = self._differentiate(scope, weights, *rows)
            result = WorkerResult(*found, omega, displaced)
            if first:
                statistics = first.kept(statistics, state.statistics(scope))
            after = state.collect(scope, index, sums.state, statistics)
            return reduction.add(sums, worker, result, after)

        sums = workers.for_each(
            work, reduction.first(), plan.per_replica, plan.parallel
        )
        gradient, statistics, valid = reduction.reduce(
            sums, num_rows, optimizer.iterations
        )
        state.assign(sums.state, statistics, valid)
        # The optimizer expects the scale that it has put on the loss.
        scale = optimizer.scale_loss(tf.ones([], gradient.dtype))
        gradients = reduction.gradients(gradient, sums, scale)
        self._apply(gradients, plan, valid)
        loss = sums.loss / plan.per_replica
        _keras_compat.update_loss_tracker(self, loss, num_rows)
        y_pred = reduction.predictions(sums)
        return self.compute_metrics(x, y, y_pred, sample_weight=sample_weight)

    def _first_pass(
        self,
        plan: StepPlan,
        state: ModelState,
        values: list[tf.Tensor],
        data: Any,
    ) -> FirstPass | None:
        """Returns the pass at the clean weights, if the rule needs one."""
        rule = plan.rule
        if rule is None or not rule.takes_two_passes:
            return None
        active = rule.is_active(tf.convert_to_tensor(self.optimizer.iterations))
        pairs = list(zip(plan.variables, values, strict=True))

        def differentiate(worker: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            index = plan.first_worker() + worker
            scope = state.scope(pairs, index, state.first().metrics)
            rows = _batch.rows(data, worker, plan.per_replica)
            _, gradients, _ = self._differentiate(scope, values, *rows)
            return plan.layout.pack(gradients), state.statistics(scope)

        return FirstPass(plan, differentiate, state.layout.size, active)

    def _differentiate(
        self,
        scope: keras.StatelessScope,
        weights: list[tf.Tensor],
        x: Any,
        y: Any,
        sample_weight: Any,
    ) -> tuple[tf.Tensor, list[Any], Any]:
        """Returns a worker's mean loss, its gradient g_i and predictions.

        An embedding's gradient is a `tf.IndexedSlices`.
        """
        with scope, tf.GradientTape() as tape:
            tape.watch(weights)
            y_pred = _keras_compat.call_for_training(self, x)
            loss = _keras_compat.compute_loss(self, x, y, y_pred, sample_weight)
            # Keras divides a loss by the number of replicas, so that a sum
            # over them is a mean; the noise needs the worker's own gradient.
            replicas = self.distribute_strategy.num_replicas_in_sync
            loss *= tf.cast(replicas, loss.dtype)
            scaled_loss = self.optimizer.scale_loss(loss)
        scale = self.optimizer.scale_loss(tf.ones([]))
        gradients = tape.gradient(scaled_loss, weights)
        return loss, row_gradients.divide(gradients, scale), y_pred

    def _apply(
        self,
        gradients: list[tf.Tensor | None],
        plan: StepPlan,
        valid: tf.Tensor | None,
    ) -> None:
        """Hands the mean gradient to the optimizer, unless it is invalid."""
        update = control_of(self).update or self.optimizer.apply

        def apply(gradients: list[tf.Tensor | None]) -> None:
            with _keras_compat.gradients_already_averaged(self.optimizer):
                update(gradients, plan.variables)

        if valid is None:
            apply(gradients)
        else:
            _keras_compat.apply_if(valid, apply, gradients)

    def _try_out(self, state: ModelState, data: Any) -> Trial:
        """Finds out, ahead of the loop, what a worker's call gives and changes.

        Tells `state` which variables it assigns.
        """

        def call(rows: Any) -> Trial:
            x, y, sample_weight = rows
            with state.trial_scope() as scope, tf.GradientTape() as tape:
                y_pred = _keras_compat.call_for_training(self, x)
                loss = _keras_compat.compute_loss(
                    self, x, y, y_pred, sample_weight
                )
            state.keep(scope)
            tables = [variable.value for variable in plan.tables]
            gradients = tape.gradient(loss, tables) if tables else []
            return Trial(y_pred, outputs_of(y_pred), gradients)

        plan = self._gnc_plan
        one = _batch.rows(data, tf.constant(0), plan.per_replica)
        if tf.executing_eagerly():
            return call(one)
        # Traced and thrown away: none of it becomes part of the step.
        traced = tf.function(call, autograph=False).get_concrete_function(one)
        return traced.structured_outputs


@keras.saving.register_keras_serializable(package="tf_gnc")
class GNCModel(GNCTrainStep, keras.Model):
    """A functional `keras.Model` with `GNCTrainStep` mixed in.

    For a model with a `call` of its own mix it in yourself:
    `class Mine(tf_gnc.GNCTrainStep, keras.Model)`.

    Args:
        inputs: As for `keras.Model`.
        outputs: As for `keras.Model`.
        name: The model's name.
        **kwargs: As for `keras.Model`.

    Raises:
        TypeError: If inputs or outputs are missing.

    Example:
        >>> inputs = keras.Input((8,))
        >>> outputs = keras.layers.Dense(1)(inputs)
        >>> model = GNCModel(inputs, outputs)
        >>> model.compile("sgd", "mse", noise=GradientNoise(alpha=0.1),
        ...               num_workers=4)
    """

    @_keras_compat.saved_as_functional
    def __init__(
        self,
        inputs: Any = None,
        outputs: Any = None,
        name: str | None = None,
        **kwargs: Any,
    ) -> None:
        # Keras turns this class into a functional one when it is first used
        # as one, so a subclass with a `call` would work or not by luck.
        if inputs is None or outputs is None:
            raise TypeError(
                f"`{type(self).__name__}` is made from inputs and outputs, got "
                f"inputs={inputs!r} and outputs={outputs!r}. For a model with "
                "a `call` of its own write "
                "`class Mine(tf_gnc.GNCTrainStep, keras.Model)`."
            )
        super().__init__(inputs, outputs, name=name, **kwargs)
