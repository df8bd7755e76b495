"""What a worker's call changes in the model besides asking for a gradient.

A worker calls the model in a stateless scope: nothing that the call assigns
reaches the model's variables. This file decides what becomes of it:

    moving statistics   the mean over all M workers of what each would have
    (any float state)   made of the same starting value
    random seeds        each worker draws from a seed of its own, a function
                        of the layer's seed and the worker's global index;
                        the state then advances once
    metrics             each worker goes on where the one before stopped
    other state         as the replica's last worker left it
    (counters, flags)
"""

from collections import Counter
from typing import Any, NamedTuple

import keras
import tensorflow as tf

from tf_gnc import _keras_compat
from tf_gnc.noise.layout import WeightLayout

# Weyl sequence: worker i's seed is the layer's plus i times this odd number
# (2**64 over the golden ratio), so no two workers and no two layers with small
# seeds meet. Worker 0 has the layer's own seed: one worker is stock Keras.
_SEED_STRIDE = 0x9E3779B97F4A7C15 - 2**64


class WorkerScope(keras.StatelessScope):
    """A stateless scope that counts how often each variable is assigned."""

    def __init__(self, state_mapping: list[tuple[keras.Variable, Any]]) -> None:
        super().__init__(state_mapping, collect_losses=True)
        self.num_updates = Counter()

    def add_update(self, update: tuple[keras.Variable, tf.Tensor]) -> None:
        """Notes an assignment; Keras calls this, users don't."""
        self.num_updates[id(update[0])] += 1
        super().add_update(update)


class CarriedState(NamedTuple):
    """What each worker of a replica hands on to the next one.

    Attributes:
        statistics: Sum over the workers of their moving statistics, packed.
        metrics: Values of the metrics that the model's layers update.
        seeds: States of the seed generators that the call draws from.
        others: Values of whole-number variables that the call assigns.
    """

    statistics: tf.Tensor
    metrics: list[tf.Tensor]
    seeds: list[tf.Tensor]
    others: list[tf.Tensor]


class ModelState:
    """The model's state during one step, from its start to its end.

    Make one per traced step, and let it `keep` what a call in `trial_scope`
    assigns. For each worker enter `scope`, then `collect`; after the
    loop and the reduction call `assign`.

    Args:
        model: A built and compiled model.
        generator: Keras's generator for random numbers drawn without a seed.
        dtype: Floating-point dtype in which statistics are averaged.
    """

    def __init__(
        self,
        model: keras.Model,
        generator: keras.random.SeedGenerator,
        dtype: str,
    ) -> None:
        states = list(model.non_trainable_variables)
        self._generator = generator
        self._dtype = dtype
        self._seeds = [v for v in states if _keras_compat.is_seed_state(v)]
        self._states = [v for v in states if not _keras_compat.is_seed_state(v)]
        self._metrics = list(model.metrics_variables)
        self._weights = list(model.trainable_variables)
        self._start = {
            id(v): tf.convert_to_tensor(v.value)
            for v in [*states, *self._metrics, generator.state]
        }
        self._updates = Counter()

    def trial_scope(self) -> WorkerScope:
        """Returns a scope for a call that shows what a call assigns."""
        variables = [*self._states, *self._seeds, *self._metrics]
        variables.append(self._generator.state)
        return WorkerScope(
            [(v, v.value) for v in self._weights]
            + [(v, self._start[id(v)]) for v in variables]
        )

    def keep(self, scope: WorkerScope) -> None:
        """Keeps track of what a call in `trial_scope` has assigned.

        Everything else, the weights of frozen layers for one, stays out of
        sums and loops.
        """
        self._updates = scope.num_updates
        updated = [v for v in self._states if self._updates[id(v)]]
        self._statistics = [v for v in updated if v.value.dtype.is_floating]
        self._others = [v for v in updated if not v.value.dtype.is_floating]
        self._metrics = [v for v in self._metrics if self._updates[id(v)]]
        self._seeds = [v for v in self._seeds if self._updates[id(v)]]
        self.layout = WeightLayout(
            [v.shape for v in self._statistics], self._dtype
        )

    def first(self) -> CarriedState:
        """Returns what the first worker of a replica finds."""
        return CarriedState(
            statistics=tf.zeros([self.layout.size], self.layout.dtype),
            metrics=self._starting(self._metrics),
            seeds=self._starting(self._seeds),
            others=self._starting(self._others),
        )

    def scope(
        self,
        weights: list[tuple[keras.Variable, tf.Tensor]],
        worker: tf.Tensor,
        metrics: list[tf.Tensor],
    ) -> WorkerScope:
        """Returns the scope in which a worker calls the model.

        Args:
            weights: The trainable variables with the worker's own values.
            worker: The worker's index in the whole cluster, 0 to M - 1.
            metrics: Their values, as the worker before it left them.
        """
        seeds = [*self._seeds, self._generator.state]
        return WorkerScope(
            weights
            + [(v, self._start[id(v)]) for v in self._states]
            + list(zip(self._metrics, metrics, strict=True))
            + [(v, self._worker_seed(v, worker)) for v in seeds]
        )

    def collect(
        self, scope: WorkerScope, worker: tf.Tensor, carried: CarriedState
    ) -> CarriedState:
        """Returns what the next worker finds, given this worker's scope."""
        after = scope.get_current_value
        statistics = carried.statistics
        if self._statistics:
            statistics += self.layout.pack([after(v) for v in self._statistics])
        return CarriedState(
            statistics=statistics,
            metrics=[after(v) for v in self._metrics],
            # An advance by what was added to the worker's own seed.
            seeds=[
                self._start[id(v)] + after(v) - self._worker_seed(v, worker)
                for v in self._seeds
            ],
            others=[after(v) for v in self._others],
        )

    def assign(
        self,
        carried: CarriedState,
        statistics: tf.Tensor,
        valid: tf.Tensor | None = None,
    ) -> None:
        """Writes a step's outcome to the model's variables.

        Args:
            carried: What the replica's last worker returned.
            statistics: Mean over all M workers of the packed statistics.
            valid: Boolean scalar: if False, all stays as it was. None stands
                for a step that can't be invalid.
        """
        means = self.layout.unpack(statistics) if self._statistics else []
        for variables, values in (
            (self._statistics, means),
            (self._metrics, carried.metrics),
            (self._seeds, carried.seeds),
            (self._others, carried.others),
        ):
            for variable, value in zip(variables, values, strict=True):
                self._assign_if(variable, value, valid)
        self._advance_global_seed()

    def _starting(self, variables: list[keras.Variable]) -> list[tf.Tensor]:
        return [self._start[id(v)] for v in variables]

    def _worker_seed(
        self, variable: keras.Variable, worker: tf.Tensor
    ) -> tf.Tensor:
        seed = self._start[id(variable)]  # (seed, counter)
        offset = tf.cast(worker, seed.dtype) * tf.constant(
            _SEED_STRIDE, seed.dtype
        )
        return seed + tf.stack([offset, tf.zeros_like(offset)])

    def _assign_if(
        self,
        variable: keras.Variable,
        value: tf.Tensor,
        valid: tf.Tensor | None,
    ) -> None:
        value = tf.cast(value, variable.value.dtype)
        if valid is not None:
            value = tf.where(valid, value, self._start[id(variable)])
        variable.assign(value)

    def _advance_global_seed(self) -> None:
        # Its sequence is not a sum, so it is replayed: as many draws as one
        # worker made, from the state at the start of the step.
        state = self._generator.state
        draws = self._updates[id(state)]
        if not draws:
            return
        replay = keras.StatelessScope([(state, self._start[id(state)])])
        with replay:
            for _ in range(draws):
                self._generator.next(ordered=False)
        state.assign(replay.get_current_value(state))
