"""What stays the same from step to step: the plan of a built model.

A plan is made once, when the model's variables exist, and belongs to one
noise rule and one list of trainable variables; a new rule or a new `compile`
makes a new plan, and the old one's memory is freed with it.

Symbols   M, R, V  workers, replicas, workers per replica (tf_gnc.step.workers)
          P        number of trainable scalars (tf_gnc.noise.layout)
"""

from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf

from tf_gnc import _keras_compat
from tf_gnc.noise.at import At
from tf_gnc.noise.layout import WeightLayout
from tf_gnc.noise.rule import NoiseRule
from tf_gnc.step import workers
from tf_gnc.step.compile_checks import check_fit, check_layers
from tf_gnc.step.control import control_of
from tf_gnc.step.filters import filters_of
from tf_gnc.step.gradient_memory import GradientMemory, MemoryStep
from tf_gnc.step.row_gradients import tables_of
from tf_gnc.step.signals import Signals
from tf_gnc.step.step_table import StepTableWriter

# How many kinds of measurement stay traced: more than a probe takes at a time.
_KEPT = 16


def dtype_of(variables: list[keras.Variable]) -> str:
    """Returns the dtype of all trainable weights as one vector."""
    doubles = any(v.dtype == "float64" for v in variables)
    return "float64" if doubles else "float32"


class StepPlan:
    """Everything about a model's steps that stays from one to the next.

    The model is built and compiled, with `GNCTrainStep`. `table` writes and
    reads what a step leaves of its workers; it is None if steps leave nothing.
    """

    def __init__(self, model: keras.Model) -> None:
        strategy = model.distribute_strategy
        self.rule: NoiseRule | None = model.noise_rule
        self.num_replicas = strategy.num_replicas_in_sync
        self.num_workers: int = model.num_workers
        self.per_replica = workers.per_replica(
            self.num_workers, self.num_replicas
        )
        self.parallel = workers.num_parallel(
            self.per_replica, self.num_replicas
        )
        self.variables = list(model.trainable_variables)
        self._tables = tables_of(model)
        dtype = dtype_of(self.variables)
        self.layout = WeightLayout(
            [v.shape for v in self.variables],
            dtype,
            filters_of(model),
            [v.path for v in self.variables],
        )
        self.scales_loss = isinstance(
            model.optimizer, keras.mixed_precision.LossScaleOptimizer
        )
        with strategy.scope():
            self.generator = _keras_compat.global_seed_generator()
            self.memory = self._make_memory()
            self.alpha = tf.Variable(
                model.noise_alpha, trainable=False, dtype=dtype
            )
            self.signals = Signals(
                self.num_workers,
                self.num_replicas,
                # Without memory it is the user's to decide, as in stock
                # Keras; with loss scaling the optimizer skips the step and
                # lowers the scale.
                checks_gradients=bool(self.memory) and not self.scales_loss,
                can_stop=_keras_compat.in_several_processes(strategy),
            )
            if not model.optimizer.built:
                model.optimizer.build(self.variables)
        self.keep_table(control_of(model).keeps_table, strategy)
        self._kept: dict[Any, Any] = {}
        if self.num_workers > 1:
            check_layers(model)
        if self.rule is not None:
            check_fit(self.rule, self.num_workers, model, self.layout)

    def keep_table(
        self, wanted: bool, strategy: tf.distribute.Strategy
    ) -> None:
        """Has steps that are traced from now on leave a table, or none."""
        self.table: StepTableWriter | None = None
        if wanted:
            with strategy.scope():
                self.table = StepTableWriter(
                    self.num_workers, self.num_replicas, self.layout
                )

    def keep(self, key: Any, make: Callable[[], Any]) -> Any:
        """Returns what `make` makes, or has made for the same key before.

        Measurements keep what they have traced here: the last few of them, or
        batches of ever new shapes would fill the memory.
        """
        value = self._kept.pop(key) if key in self._kept else make()
        self._kept[key] = value  # as the newest
        if len(self._kept) > _KEPT:
            del self._kept[next(iter(self._kept))]
        return value

    def forget(self) -> None:
        """Lets go of all that was kept; it holds the plan, and its memory."""
        self._kept.clear()

    @property
    def tables(self) -> list[keras.Variable]:
        """The variables whose gradients may come by rows, `tf.IndexedSlices`.

        None where gradients are remembered, measured or cross replicas.
        """
        dense = self.memory or self.table or self.num_replicas > 1
        return [] if dense else self._tables

    @property
    def is_plain(self) -> bool:
        """Whether a step is stock Keras's: one worker, no noise, no table."""
        return self.num_workers == 1 and self.rule is None and not self.table

    @property
    def is_packed(self) -> bool:
        """Whether a step needs the weights as one vector."""
        return self.rule is not None or self.table is not None

    def first_worker(self) -> tf.Tensor | int:
        """Returns the global index of this replica's first worker."""
        context = tf.distribute.get_replica_context()
        return context.replica_id_in_sync_group * self.per_replica

    def values(self) -> list[tf.Tensor]:
        """Returns the clean weights x, a tensor for each variable."""
        return [tf.convert_to_tensor(v.value) for v in self.variables]

    def clean_weights(self) -> tf.Tensor:
        """Returns the clean weights x, shape `(P,)`."""
        return self.layout.pack(self.values())

    def begin_step(self) -> MemoryStep | None:
        """Returns this replica's memory for a step, None if the rule has none.

        It holds the gradients of the step before.
        """
        return MemoryStep(self.memory) if self.memory else None

    def displacement(
        self,
        clean: tf.Tensor,
        optimizer: keras.optimizers.Optimizer,
        memory: MemoryStep | None,
    ) -> Callable[..., tuple[tf.Tensor | None, tf.Tensor]]:
        """Returns a function from worker to its noise and displaced weights.

        It takes a worker's index on this replica, 0 to V - 1, and by name what
        the rule needs of the first pass; and returns what `direction` gives
        for it, None without a rule, and x_i, shape `(P,)`. Given are the clean
        weights x, the optimizer for eta_t, and the memory from `begin_step`.
        """
        rule, layout = self.rule, self.layout
        if rule is None:
            return lambda worker, **vectors: (None, clean)
        noise = self.noise(optimizer, memory, clean)
        rate = self._noise_rate(optimizer) if rule.follows_rate else 1.0
        scale = rule.scale(clean, self.alpha * rate, layout)
        active = rule.is_active(tf.convert_to_tensor(optimizer.iterations))

        def displaced(
            worker: tf.Tensor, **vectors: tf.Tensor
        ) -> tuple[tf.Tensor, tf.Tensor]:
            omega = noise(worker, **vectors)
            weights = rule.displace(clean, scale, omega, layout)
            if rule.takes_two_passes and self.scales_loss:
                # An overflow in the first pass must not reach statistics; it
                # comes again in the second, and the optimizer skips the step.
                finite = tf.reduce_all(tf.math.is_finite(weights))
                weights = tf.where(finite, weights, clean)
            if active is not None:  # A rule's own `displace` may do anything.
                weights = tf.where(active, weights, clean)
            return omega, weights

        return displaced

    def noise(
        self,
        optimizer: keras.optimizers.Optimizer,
        memory: MemoryStep | None,
        clean: tf.Tensor,
    ) -> Callable[..., tf.Tensor]:
        """Returns a function from worker to its noise, before any scaling.

        The function returns what `NoiseRule.direction` does, shape `(P,)`, and
        zeros in a step without noise; the plan must have a rule.
        """
        # Counted from 0, before this step's update.
        step = tf.convert_to_tensor(optimizer.iterations)
        active = self.rule.is_active(step)
        update = None
        if "momentum" in self.rule.needs:
            update = self.layout.pack(
                _keras_compat.update_vectors(optimizer, self.variables)
            )

        def rate() -> tf.Tensor:
            return self._noise_rate(optimizer)

        def noise(worker: tf.Tensor, **vectors: tf.Tensor) -> tf.Tensor:
            makers: dict[str, Callable[[], tf.Tensor]] = {
                "previous": lambda: memory.previous(worker),
                "previous_mean": lambda: memory.previous_mean,
                "momentum": lambda: update,
            }
            for name, vector in vectors.items():
                makers[name] = lambda vector=vector: vector
            needed = {n: makers[n] for n in self.rule.needs}
            index = self.first_worker() + worker
            at = At(step, index, clean, self.layout, rate, needed)
            omega = self.rule.direction(at)
            if active is None:
                return omega
            return tf.where(active, omega, tf.zeros_like(omega))

        return noise

    def _noise_rate(self, optimizer: keras.optimizers.Optimizer) -> tf.Tensor:
        """Returns the noise's eta_t: a scalar, or a vector of shape `(P,)`.

        It is the learning rate, unless the optimizer has a method
        `noise_rates` that gives one for each variable.
        """
        dtype = self.layout.dtype
        inner = getattr(optimizer, "inner_optimizer", optimizer)
        rates = getattr(inner, "noise_rates", lambda variables: None)
        rates = rates(self.variables)
        if rates is None:
            return tf.cast(optimizer.learning_rate, dtype)
        return self.layout.pack(
            [
                tf.fill(shape, tf.cast(rate, dtype))
                for shape, rate in zip(self.layout.shapes, rates, strict=True)
            ]
        )

    def raise_fault(self, strategy: tf.distribute.Strategy) -> None:
        """Raises what a step has recorded, after emptying the memory."""
        try:
            self.signals.raise_fault(strategy)
        except (ValueError, FloatingPointError):
            if self.memory is not None:
                self.memory.reset(strategy)
            raise

    def _make_memory(self) -> GradientMemory | None:
        if self.rule is None or not self.rule.remembers_gradients:
            return None
        rows = self.per_replica if "previous" in self.rule.needs else 0
        return GradientMemory(
            rows,
            self.layout.size,
            self.rule.noise_dtype,
            self.layout.dtype,
            delay=self.parallel - 1 if rows else 0,
            undoable=self.scales_loss,
        )
