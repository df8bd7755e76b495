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
            # Step, worker and rows of the first fault; zeros for none.
            self.fault = tf.Variable(
                tf.zeros([3], tf.int64),
                trainable=False,
                synchronization=tf.VariableSynchronization.ON_READ,
                aggregation=tf.VariableAggregation.NONE,
            )
            if not model.optimizer.built:
                model.optimizer.build(self.variables)

    @property
    def checks_gradients(self) -> bool:
        """Whether a gradient that isn't finite must stop the training.

        Without memory it is the user's to decide, as in stock Keras; with
        loss scaling the optimizer skips the step and lowers the scale.
        """
        return self.memory is not None and not self.scales_loss

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
        rate = tf.cast(optimizer.learning_rate, layout.dtype)
        scale = rule.scale(clean, self.alpha * rate, layout)
        # Counted from 0, before this step's update.
        step = tf.convert_to_tensor(optimizer.iterations)

        def displaced(worker: tf.Tensor) -> tf.Tensor:
            gradient_noise = None if memory is None else memory.noise(worker)
            index = self.first_worker() + worker
            noise = rule.noise(step, index, gradient_noise, layout)
            return rule.displace(clean, scale, noise, layout)

        return displaced

    def note_fault(
        self, step: tf.Tensor, culprit: tf.Tensor, num_rows: int | tf.Tensor
    ) -> tf.Tensor:
        """Records what this replica found wrong, for `raise_fault`.

        A fault that is recorded already stays, and with it all further steps
        of the same `steps_per_execution` are faulty.

        Args:
            step: Number of steps taken before this one.
            culprit: Global index of the first worker whose gradient isn't
                finite, or -1.
            num_rows: The replica's rows.

        Returns:
            A boolean scalar: whether there is a fault.
        """
        fault = _keras_compat.on_this_replica(self.fault)
        found = tf.stack(
            [
                tf.cast(step, tf.int64) + 1,
                tf.cast(culprit, tf.int64),
                tf.cast(num_rows, tf.int64),
            ]
        )
        bad = (culprit >= 0) | (num_rows % self.per_replica != 0)
        before = tf.convert_to_tensor(fault)
        earlier = before[0] != 0
        fault.assign(tf.where(bad & ~earlier, found, before))
        return bad | earlier

    def raise_fault(self, strategy: tf.distribute.Strategy) -> None:
        """Raises what a step has recorded, and clears it.

        Raises:
            ValueError: If the workers couldn't share a batch evenly.
            FloatingPointError: If a worker's gradient wasn't finite.
        """
        for component in strategy.experimental_local_results(self.fault):
            step, culprit, num_rows = (int(n) for n in component.numpy())
            if not step:
                continue
            self._clear(strategy)
            per_replica = self.per_replica
            where = f"in step {step - 1} (from 0) a batch per replica"
            workers.check_batch(num_rows, per_replica, where)
            raise FloatingPointError(
                f"The gradient of worker {culprit} (of {self.num_workers}, "
                f"counted from 0) was not finite in step {step - 1}. The "
                "model's weights are those from before that step, and the "
                "noise memory has been emptied. Lower the learning rate or "
                "`alpha`, warm up for longer, or bound the noise with "
                "`GradientNoise(max_displacement=...)`."
            )

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

    def _clear(self, strategy: tf.distribute.Strategy) -> None:
        for component in strategy.experimental_local_results(self.fault):
            component.assign(tf.zeros_like(component))
        if self.memory is not None:
            self.memory.reset(strategy)
