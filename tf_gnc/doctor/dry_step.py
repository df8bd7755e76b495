"""Training steps that end before the update, and what they leave behind.

They are the model's own, traced anew so that the mean gradient is kept instead
of being handed to the optimizer. Afterwards the model is as before.

Symbols   M, P  workers, number of trainable scalars
"""

import contextlib
import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tf_gnc import _keras_compat
from tf_gnc.distribute import sharding
from tf_gnc.step import workers
from tf_gnc.step.control import control_of
from tf_gnc.step.plan import StepPlan
from tf_gnc.step.train_step import GNCTrainStep


@dataclasses.dataclass(frozen=True)
class Measurement:
    """The noise of the step to come."""

    rate: float  # eta_t; NaN if the optimizer has several
    # ||x_i - x|| / ||x|| of each worker, (M,); NaN where a rule makes the
    # noise of the step's own gradients.
    displacements: np.ndarray
    # The largest elements of gradient noise's sum over workers, of any
    # worker's, and of the mean gradient; 0 if the rule remembers none.
    noise_sum: float
    largest_noise: float
    largest_mean: float


class DrySteps:
    """Takes steps without an update; `dry_steps` makes it."""

    def __init__(
        self, model: GNCTrainStep, data: Any, restore: Callable[[], None]
    ) -> None:
        self.moved = False  # whether a step has changed trainable weights
        self._model = model
        self._plan: StepPlan = model.step_plan
        self._strategy = strategy = model.distribute_strategy
        self._restore = restore
        self._batches = strategy.distribute_datasets_from_function(
            lambda context: sharding.rows_of_process(data, context)
        )
        with strategy.scope():
            self._kept = workers.replica_variable(
                [self._plan.layout.size], tf.float64
            )

    def gradient(self) -> np.ndarray:
        """Takes a step from the starting point; only the noise goes on.

        Returns:
            The mean gradient over all workers, as the optimizer would have
            got it, shape `(P,)`; NaN if the step did not come so far.
        """
        self._restore()
        local = self._strategy.experimental_local_results(self._kept)
        for component in local:
            component.assign(tf.fill(component.shape, np.float64(np.nan)))
        before = self._weights()
        self._model.train_function(iter(self._batches))
        self.moved |= self._weights() != before
        return local[0].numpy()

    def keep(self, gradients: list[tf.Tensor | None], variables: Any) -> None:
        """Keeps what the optimizer would have got."""
        kept = _keras_compat.on_this_replica(self._kept)
        vector = self._plan.layout.pack(gradients)
        kept.assign(tf.cast(vector, kept.dtype))

    def _weights(self) -> list[bytes]:
        """Returns the trainable weights, to the bit."""
        components = _components(self._plan.variables, self._strategy)
        return [np.asarray(component).tobytes() for component in components]


def measuring(model: GNCTrainStep) -> Callable[[], Measurement]:
    """Returns a function that measures the noise of the step to come.

    It takes no step and changes nothing. Good until the model gets another
    plan: another rule, or a new `compile`.
    """
    plan, strategy = model.step_plan, model.distribute_strategy

    @tf.function
    def run() -> Any:
        rate, norms, total, largest = strategy.run(
            lambda: _on_replica(plan, model.optimizer)
        )
        total = strategy.reduce("SUM", total, axis=None)
        return (
            strategy.gather(rate, axis=0)[0],
            strategy.gather(norms, axis=0),
            tf.reduce_max(tf.abs(total)),
            tf.reduce_max(strategy.gather(largest, axis=0), axis=0),
        )

    def measure() -> Measurement:
        rate, norms, total, largest = run()
        return Measurement(
            float(rate), norms.numpy(), float(total), *map(float, largest)
        )

    return measure


def _on_replica(
    plan: StepPlan, optimizer: keras.optimizers.Optimizer
) -> tuple[tf.Tensor, ...]:
    memory, clean = plan.begin_step(), plan.clean_weights()
    displaced = plan.displacement(clean, optimizer, memory)
    unknown = plan.rule is not None and plan.rule.takes_two_passes
    zeros = tf.zeros_like(clean)
    mean = zeros
    if plan.memory is not None:
        mean = tf.convert_to_tensor(
            _keras_compat.on_this_replica(plan.memory.mean)
        )

    def look(worker: tf.Tensor, state: Any) -> Any:
        total, largest, norms = state
        noise = zeros
        if plan.rule is not None and "previous" in plan.rule.needs:
            noise = memory.previous(worker) - mean
        if unknown:
            norm = tf.constant(np.nan, clean.dtype)
        else:
            norm = tf.norm(displaced(worker)[1] - clean)
        largest = tf.maximum(largest, tf.reduce_max(tf.abs(noise)))
        return total + noise, largest, norms.write(worker, norm)

    norms = tf.TensorArray(clean.dtype, plan.per_replica, element_shape=[])
    total, largest, norms = workers.for_each(
        look, (zeros, zeros[0], norms), plan.per_replica, 1
    )
    # A MultiOptimizer has none.
    rate = getattr(optimizer, "learning_rate", tf.constant(np.nan))
    rate = tf.cast(tf.convert_to_tensor(rate), clean.dtype)
    return (
        tf.reshape(rate, [1]),
        tf.math.divide_no_nan(norms.stack(), tf.norm(clean)),
        total,
        tf.stack([[largest, tf.reduce_max(tf.abs(mean))]]),
    )


@contextlib.contextmanager
def dry_steps(
    model: GNCTrainStep, data: Any, noise: bool = True
) -> Iterator[DrySteps]:
    """Yields what takes the steps, and afterwards puts the model back.

    The model is built if it wasn't. `noise=False` stands for no rule.
    """
    with model.distribute_strategy.scope():
        _keras_compat.build(model, data)
    with control_of(model).own_plan(noise):
        restore = _snapshot(model)
        try:
            steps = DrySteps(model, data, restore)
            control_of(model).update = steps.keep
            yield steps
        finally:
            restore()


def _snapshot(model: GNCTrainStep) -> Callable[[], None]:
    """Returns a function that gives all variables their present values."""
    variables = [
        *model.variables,
        *model.metrics_variables,
        *model.optimizer.variables,
        model.step_plan.generator.state,
    ]
    components = _components(variables, model.distribute_strategy)
    values = [tf.identity(component) for component in components]

    def restore() -> None:
        for component, value in zip(components, values, strict=True):
            component.assign(value)

    return restore


def _components(
    variables: list[keras.Variable], strategy: tf.distribute.Strategy
) -> list[tf.Variable]:
    """Returns what this process's replicas hold of some variables."""
    held = (strategy.experimental_local_results(v.value) for v in variables)
    return [component for parts in held for component in parts]
