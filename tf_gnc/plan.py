"""What `compile(noise=..., num_workers=...)` comes to on a built model.

A plan is made once, when the model's variables exist, and belongs to one
noise rule and one list of trainable variables; a new rule or a new `compile`
makes a new plan, and the old one's memory is freed with it.

Symbols   M, R, V  workers, replicas, workers per replica (tf_gnc.workers)
          P        number of trainable scalars (tf_gnc.layout)

Floor 2: may import from floors 0 and 1.
"""

from collections.abc import Callable

import keras
import tensorflow as tf

from tf_gnc import _keras_compat, workers
from tf_gnc.layout import WeightLayout
from tf_gnc.memory import GradientMemory, MemoryStep
from tf_gnc.noise import NoiseRule
from tf_gnc.signals import Signals


class StepPlan:
    """Everything about a model's steps that stays from one to the next.

    Args:
        model: A built and compiled model.
        rule: The noise rule, or None for plain data-parallel SGD.
        num_workers: M, or None for one worker per replica.
        alpha: The coefficient to start with.
    """

    def __init__(
        self,
        model: keras.Model,
        rule: NoiseRule | None,
        num_workers: int | None,
        alpha: float,
    ) -> None:
        strategy = model.distribute_strategy
        self.rule = rule
        self.num_replicas = strategy.num_replicas_in_sync
        self.num_workers = num_workers or self.num_replicas
        self.per_replica = workers.per_replica(
            self.num_workers, self.num_replicas
        )
        self.parallel = workers.num_parallel(
            self.per_replica, self.num_replicas
        )
        self.variables = list(model.trainable_variables)
        dtypes = {v.dtype for v in self.variables}
        dtype = "float64" if "float64" in dtypes else "float32"
        self.layout = WeightLayout([v.shape for v in self.variables], dtype)
        self.scales_loss = isinstance(
            model.optimizer, keras.mixed_precision.LossScaleOptimizer
        )
        with strategy.scope():
            self.generator = _keras_compat.global_seed_generator()
            self.memory = self._make_memory()
            self.alpha = tf.Variable(alpha, trainable=False, dtype=dtype)
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

    def first_worker(self) -> tf.Tensor | int:
        """Returns the global index of this replica's first worker."""
        context = tf.distribute.get_replica_context()
        return context.replica_id_in_sync_group * self.per_replica

    def displacement(
        self,
        clean: tf.Tensor,
        optimizer: keras.optimizers.Optimizer,
        memory: MemoryStep | None,
    ) -> Callable[[tf.Tensor], tf.Tensor]:
        """Returns a function from worker to its displaced weights.

        Args:
            clean: The clean weights x, shape `(P,)`.
            optimizer: Gives eta_t and the number of steps taken.
            memory: The gradients of the step before, if the rule needs them.

        Returns:
            Takes a worker's index on this replica, 0 to V - 1; returns x_i,
            shape `(P,)`.
        """
        rule, layout = self.rule, self.layout
        if rule is None:
            return lambda worker: clean
        rate = self._noise_rate(optimizer)
        scale = rule.scale(clean, self.alpha * rate, layout)
        # Counted from 0, before this step's update.
        step = tf.convert_to_tensor(optimizer.iterations)

        def displaced(worker: tf.Tensor) -> tf.Tensor:
            gradient_noise = None if memory is None else memory.noise(worker)
            index = self.first_worker() + worker
            noise = rule.noise(step, index, gradient_noise, layout)
            return rule.displace(clean, scale, noise, layout)

        return displaced

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
        """Raises what a step has recorded, after emptying the memory.

        Raises:
            ValueError: If the workers couldn't share a batch evenly.
            FloatingPointError: If a worker's gradient wasn't finite.
        """
        try:
            self.signals.raise_fault(strategy)
        except (ValueError, FloatingPointError):
            if self.memory is not None:
                self.memory.reset(strategy)
            raise

    def _make_memory(self) -> GradientMemory | None:
        if self.rule is None or not self.rule.remembers_gradients:
            return None
        return GradientMemory(
            self.per_replica,
            self.layout.size,
            self.rule.noise_dtype,
            self.layout.dtype,
            delay=self.parallel - 1,
            undoable=self.scales_loss,
        )
