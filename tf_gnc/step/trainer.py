"""`compile`, `fit`, saving and loading of a model with the training step."""

import inspect
import warnings
from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf

from tf_gnc import _check, _keras_compat
from tf_gnc.distribute import chief
from tf_gnc.layers.fuse import has_own_call, with_stock_batch_norm
from tf_gnc.noise.rule import NoiseRule
from tf_gnc.step import fit_arguments, workers
from tf_gnc.step.compile_checks import check_accumulation, check_rule
from tf_gnc.step.control import control_of
from tf_gnc.step.plan import StepPlan


class NoiseSettings(_keras_compat.SeveralProcesses):
    """The Keras-facing half of `GNCTrainStep`: settings and their checks."""

    _gnc_rule = None
    _gnc_compiled_rule = None
    _gnc_num_workers = None
    _gnc_alpha = 0.0
    _gnc_plan = None

    def compile(
        self,
        *args: Any,
        noise: NoiseRule | None = None,
        num_workers: int | None = None,
        **kwargs: Any,
    ) -> None:
        """Configures the model for training; see `keras.Model.compile`.

        Args:
            *args: As for `keras.Model.compile`.
            noise: A noise rule: `GradientNoise` for GNC and its variants,
                `RandomNoise` for RNC, `SharpnessAware` for SAM, m-SAM and
                ASAM, `MomentumNoise` for momentum-SAM, or a `NoiseRule` of
                your own; None for plain data-parallel SGD with the same
                workers.
            num_workers: M, the number of workers in the whole cluster. The
                global batch is split among them: worker i gets rows
                `[i*b, (i+1)*b)`. A multiple of the strategy's replicas;
                default: one per replica.
            **kwargs: As for `keras.Model.compile`.

        Raises:
            ValueError: If `noise` is no noise rule, if `num_workers` is no
                multiple of the replicas, or if the optimizer accumulates
                gradients.
        """
        check_rule(noise)
        replicas = self.distribute_strategy.num_replicas_in_sync
        if num_workers is not None:
            workers.per_replica(num_workers, replicas)
        super().compile(*args, **kwargs)
        check_accumulation(self.optimizer, num_workers or replicas)
        self._gnc_num_workers = num_workers
        self._gnc_plan = None
        self._gnc_compiled_rule = noise
        self._set_noise(noise)

    @property
    def compiled_noise_rule(self) -> NoiseRule | None:
        """The noise rule that was given to `compile`."""
        return self._gnc_compiled_rule

    @property
    def step_plan(self) -> StepPlan:
        """What does not change from step to step; the model must be built."""
        if self._gnc_plan is None:
            self._make_plan()
        return self._gnc_plan

    @property
    def noise_rule(self) -> NoiseRule | None:
        """The noise rule in force; None is plain data-parallel SGD.

        Assigning a rule, in a callback for instance, puts it in force from
        the next step on and frees the old rule's memory.
        """
        return self._gnc_rule

    @noise_rule.setter
    def noise_rule(self, rule: NoiseRule | None) -> None:
        check_rule(rule)
        if self._gnc_plan is not None:
            self._gnc_plan.forget()
        self._gnc_plan = None
        self._set_noise(rule)
        if self.train_function is not None:
            self.make_train_function(force=True)

    @property
    def num_workers(self) -> int:
        """M, the number of workers in the whole cluster."""
        replicas = self.distribute_strategy.num_replicas_in_sync
        return self._gnc_num_workers or replicas

    @property
    def noise_alpha(self) -> float:
        """The coefficient of the noise in force; assign to change it.

        It starts as the rule's own and may change between any two steps
        without a new trace. 0 without a rule.
        """
        return self._gnc_alpha

    @noise_alpha.setter
    def noise_alpha(self, value: float) -> None:
        self._gnc_alpha = _check.real("noise_alpha", value, minimum=0)
        if self._gnc_plan is not None:
            self._gnc_plan.alpha.assign(self._gnc_alpha)

    def fit(
        self,
        x: Any = None,
        y: Any = None,
        batch_size: int | None = None,
        *args: Any,
        **kwargs: Any,
    ) -> keras.callbacks.History:
        """Trains the model; see `keras.Model.fit`.

        Raises:
            ValueError: If the workers can't share a batch evenly. Where the
                data tell their size (arrays, data sets with a static batch)
                this is raised before the first step.
            FloatingPointError: If a worker's gradient is not finite under
                `GradientNoise`, which would spoil all later noise.
        """
        call = inspect.signature(super().fit).bind(
            x, y, batch_size, *args, **kwargs
        )
        backups = fit_arguments.prepare(self, call.arguments)
        try:
            return super().fit(**call.arguments)
        finally:
            control_of(self).end_skipping()
            control_of(self).left_in_epoch = None
            for backup in backups:
                backup.close()

    def save(self, filepath: Any, *args: Any, **kwargs: Any) -> Any:
        """Saves the model; see `keras.Model.save`.

        With several processes all must call it, and the first one writes.
        """
        with chief.writable(filepath, self.distribute_strategy) as path:
            return super().save(path, *args, **kwargs)

    def save_weights(self, filepath: Any, *args: Any, **kwargs: Any) -> Any:
        """Saves the weights; see `save`."""
        with chief.writable(filepath, self.distribute_strategy) as path:
            return super().save_weights(path, *args, **kwargs)

    def export(self, filepath: Any, *args: Any, **kwargs: Any) -> Any:
        """Exports the model for inference; see `save`."""
        with chief.writable(filepath, self.distribute_strategy) as path:
            return super().export(path, *args, **kwargs)

    def make_train_function(self, force: bool = False) -> Callable:
        """Makes the function that runs one step; Keras calls this."""
        if self.train_function is not None and not force:
            if self._gnc_plan is not None:
                self._warn_of_changed_weights()
            return self.train_function
        super().make_train_function(force=True)
        if self._gnc_plan is None and _keras_compat.is_built(self):
            self._make_plan()
        take_step = self.train_function

        def take_checked_step(iterator: Any) -> dict[str, Any]:
            control = control_of(self)
            logs = control.pass_over(iterator)
            if logs is not None:
                return logs
            logs = take_step(control.batches_of_call(iterator))
            if self._gnc_plan is not None:  # None under a user's own train_step
                self._gnc_plan.raise_fault(self.distribute_strategy)
            return logs

        self.train_function = take_checked_step
        return self.train_function

    def get_compile_config(self) -> dict[str, Any]:
        """Returns what `.keras` files keep of `compile`'s arguments."""
        config = super().get_compile_config()
        if config:
            config["noise"] = keras.saving.serialize_keras_object(
                self._gnc_rule
            )
            config["num_workers"] = self._gnc_num_workers
        return config

    def compile_from_config(self, config: dict[str, Any]) -> None:
        """Compiles the model with what `get_compile_config` returned."""
        config = keras.saving.deserialize_keras_object(config)
        self.compile(**config)
        if self.built:
            self.optimizer.build(self.trainable_variables)

    def to_keras(self) -> keras.Model:
        """Returns a plain Keras model on the same layers and weights.

        What it saves loads without tf_gnc: its batch normalizations are
        Keras's own. It is not compiled, and shares its weights with this
        model.

        Raises:
            TypeError: If the model was not made from inputs and outputs: a
                subclass's `call` is its own code, which no plain model has.
        """
        if has_own_call(self):
            raise TypeError(
                "`to_keras` needs a model made from inputs and outputs, got "
                f"the subclassed model {type(self).__name__}. Use "
                "`model.export(path)`, which writes a SavedModel for "
                "inference, or load its `save_weights` into the same class "
                "without the mixin."
            )
        if isinstance(self, keras.Sequential):
            plain = keras.Sequential(self.layers, name=self.name)
            if self.built and not plain.built:
                plain.build(self.input_shape)
            return with_stock_batch_norm(plain)
        structure = keras.tree.pack_sequence_as
        inputs = structure(self.input, self.inputs)
        plain = keras.Model(inputs, self.output, name=self.name)
        return with_stock_batch_norm(plain)

    def _set_noise(self, rule: NoiseRule | None) -> None:
        centered = rule is not None and rule.subtracts_mean
        if centered and self.num_workers == 1:
            warnings.warn(
                f"{type(rule).__name__} does nothing with num_workers=1: a "
                "single worker's gradient is the mean gradient, so its noise "
                "is zero. Pass `num_workers=` with the number of workers "
                "among whom each batch is to be split.",
                stacklevel=3,
            )
        self._gnc_rule = rule
        self._gnc_alpha = 0.0 if rule is None else rule.alpha

    def _make_plan(self) -> None:
        with tf.init_scope():
            self._gnc_plan = StepPlan(self)

    def _warn_of_changed_weights(self) -> None:
        planned = {v.path for v in self._gnc_plan.variables}
        changed = planned ^ {v.path for v in self.trainable_variables}
        if changed:
            warnings.warn(
                "`trainable` has changed since the last `fit` for "
                f"{len(changed)} weights, {min(changed)!r} among them. As in "
                "all of Keras this takes effect with the next `compile`; "
                "until then the same weights are trained as before.",
                stacklevel=4,
            )
