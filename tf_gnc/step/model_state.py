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
    """What each worker of a replica hands on to the next one."""

    statistics: tf.Tensor  # the sum of their moving statistics, packed
    metrics: list[tf.Tensor]  # those that the model's layers update
    seeds: list[tf.Tensor]  # states of the generators that the call draws from
    others: list[tf.Tensor]  # whole numbers that the call assigns


class ModelState:
    """The model's state during one step, from its start to its end.

    Make one per traced step, and let it `keep` what a call in `trial_scope`
    assigns. For each worker enter `scope`, then `collect`; after the
    loop and the reduction call `assign`. Statistics are averaged in `dtype`;
    `generator` is Keras's for random numbers drawn without a seed.
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

    def trial_scope(self) -> WorkerScope:
        """Returns a scope for a call that shows what a call assigns."""
        weights = [(v, v.value) for v in self._weights]
        metrics = self._starting(self._metrics)
        return self.scope(weights, tf.constant(0), metrics)

    def keep(self, scope: WorkerScope) -> None:
        """Keeps track of what a call in `trial_scope` has assigned.

        Everything else, the weights of frozen layers for one, stays out of
        sums and loops.
        """

        def assigned(variables: list[keras.Variable]) -> list[keras.Variable]:
            return [v for v in variables if scope.num_updates[id(v)]]

        self._draws = scope.num_updates[id(self._generator.state)]
        updated = assigned(self._states)
        self._statistics = [v for v in updated if v.value.dtype.is_floating]
        self._others = [v for v in updated if not v.value.dtype.is_floating]
        self._metrics = assigned(self._metrics)
        self._seeds = assigned(self._seeds)
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

        Its index is that in the whole cluster, 0 to M - 1; `metrics` are the
        values that the worker before it left.
        """
        seeds = [*self._seeds, self._generator.state]
        return WorkerScope(
            weights
            + [(v, self._start[id(v)]) for v in self._states]
            + list(zip(self._metrics, metrics, strict=True))
            + [(v, self._worker_seed(v, worker)) for v in seeds]
        )

    def statistics(self, scope: WorkerScope) -> tf.Tensor:
        """Returns the moving statistics after a worker's call, packed."""
        after = scope.get_current_value
        if not self._statistics:
            return tf.zeros([0], self.layout.dtype)
        return self.layout.pack([after(v) for v in self._statistics])

    def collect(
        self,
        scope: WorkerScope,
        worker: tf.Tensor,
        carried: CarriedState,
        statistics: tf.Tensor | None = None,
    ) -> CarriedState:
        """Returns what the next worker finds, given this worker's scope.

        Its moving statistics are the scope's, unless others are given.
        """
        after = scope.get_current_value
        if statistics is None:
            statistics = self.statistics(scope)
        return CarriedState(
            statistics=carried.statistics + statistics,
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
        valid: tf.Tensor | None,
    ) -> None:
        """Writes a step's outcome to the model's variables, unless not valid.

        Given are what the replica's last worker left, the mean over all M
        workers of the packed statistics, and what `Signals.incoming` says.
        """
        means = self.layout.unpack(statistics) if self._statistics else []
        for variable, value in [
            *zip(self._statistics, means, strict=True),
            *zip(self._metrics, carried.metrics, strict=True),
            *zip(self._seeds, carried.seeds, strict=True),
            *zip(self._others, carried.others, strict=True),
        ]:
            value = tf.cast(value, variable.value.dtype)
            if valid is not None:
                value = tf.where(valid, value, self._start[id(variable)])
            variable.assign(value)
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

    def _advance_global_seed(self) -> None:
        # Its sequence is not a sum, so it is replayed: as many draws as one
        # worker made, from the state at the start of the step.
        state = self._generator.state
        if not self._draws:
            return
        replay = keras.StatelessScope([(state, self._start[id(state)])])
        with replay:
            for _ in range(self._draws):
                self._generator.next(ordered=False)
        state.assign(replay.get_current_value(state))
