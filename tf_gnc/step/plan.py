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
from tf_gnc.noise.layout import WeightLayout
from tf_gnc.noise.rule import NoiseRule
from tf_gnc.step import workers
from tf_gnc.step.gradient_memory import GradientMemory, MemoryStep
from tf_gnc.step.signals import Signals
from tf_gnc.step.step_table import StepTableWriter


class StepPlan:
    """Everything about a model's steps that stays from one to the next.

    Args:
        model: A built and compiled model.
        rule: The noise rule, or None for plain data-parallel SGD.
        num_workers: M, or None for one worker per replica.
        alpha: The coefficient to start with.
        keeps_table: Whether each step leaves a table of its workers.

    Attributes:
        table: Writes and reads that table; None for steps that leave none.
    """

    def __init__(
        self,
        model: keras.Model,
        rule: NoiseRule | None,
        num_workers: int | None,
        alpha: float,
        keeps_table: bool = False,
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
        self.keep_table(keeps_table, strategy)

    def keep_table(
        self, wanted: bool, strategy: tf.distribute.Strategy
    ) -> None:
        """Has steps that are traced from now on leave a table, or none.

        Args:
            wanted: Whether they do.
            strategy: Is to hold the variable.
        """
        self.table: StepTableWriter | None = None
        if wanted:
            with strategy.scope():
                self.table = StepTableWriter(
                    self.num_workers, self.num_replicas, self.layout.dtype
                )

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
        noise = self.noise(optimizer, memory)
        displace = self.displace(clean, optimizer)
        return lambda worker: displace(noise(worker))

    def noise(
        self,
        optimizer: keras.optimizers.Optimizer,
        memory: MemoryStep | None,
    ) -> Callable[[tf.Tensor], tf.Tensor | None]:
        """Returns a function from worker to its noise, before any scaling.

        Args:
            optimizer: Gives the number of steps taken.
            memory: As for `displacement`.

        Returns:
            Takes a worker's index on this replica, 0 to V - 1; returns what
            `NoiseRule.noise` does, shape `(P,)`, or None without a rule.
        """
        rule, layout = self.rule, self.layout
        if rule is None:
            return lambda worker: None
        # Counted from 0, before this step's update.
        step = tf.convert_to_tensor(optimizer.iterations)

        def noise(worker: tf.Tensor) -> tf.Tensor:
            gradient_noise = None if memory is None else memory.noise(worker)
            index = self.first_worker() + worker
            return rule.noise(step, index, gradient_noise, layout)

        return noise

    def displace(
        self, clean: tf.Tensor, optimizer: keras.optimizers.Optimizer
    ) -> Callable[[tf.Tensor | None], tf.Tensor]:
        """Returns a function from a worker's noise to its displaced weights.

        Args:
            clean: The clean weights x, shape `(P,)`.
            optimizer: Gives eta_t.

        Returns:
            Takes what the function from `noise` gives; returns x_i, shape
            `(P,)`.
        """
        rule, layout = self.rule, self.layout
        if rule is None:
            return lambda noise: clean
        rate = self._noise_rate(optimizer)
        scale = rule.scale(clean, self.alpha * rate, layout)
        return lambda noise: rule.displace(clean, scale, noise, layout)

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

    def gradients(
        self, gradient: tf.Tensor, connected: list[bool]
    ) -> list[tf.Tensor | None]:
        """Returns a gradient as one tensor per trainable variable.

        Args:
            gradient: A vector of shape `(P,)`.
            connected: For each variable, whether the loss depends on it.

        Returns:
            Tensors in the variables' dtypes; None where the loss does not
            depend on the variable, as in stock Keras.
        """
        return [
            tf.cast(part, variable.dtype) if has_gradient else None
            for part, variable, has_gradient in zip(
                self.layout.unpack(gradient),
                self.variables,
                connected,
                strict=True,
            )
        ]

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


def check_rule(noise: Any) -> None:
    """Checks that `noise` is a noise rule or None.

    Raises:
        ValueError: If it isn't.
    """
    if noise is not None and not isinstance(noise, NoiseRule):
        raise ValueError(
            "`noise` must be a noise rule such as "
            "tf_gnc.GradientNoise(alpha=0.1), or None, got "
            f"noise={noise!r}."
        )


def check_accumulation(
    optimizer: keras.optimizers.Optimizer, num_workers: int
) -> None:
    """Checks that the optimizer leaves it to the workers to add up gradients.

    Args:
        optimizer: As given to `compile`.
        num_workers: M.

    Raises:
        ValueError: If it accumulates gradients.
    """
    inner = getattr(optimizer, "inner_optimizer", optimizer)
    steps = inner.gradient_accumulation_steps
    if steps:
        raise ValueError(
            "Workers take the place of gradient accumulation, which Keras "
            "can't run under a distribution strategy, got "
            f"gradient_accumulation_steps={steps}. Leave it out, make the "
            f"batch {steps} times as large and pass "
            f"num_workers={steps * num_workers}: each worker's rows then "
            "pass through the model by themselves, as an accumulated batch's "
            "would."
        )
