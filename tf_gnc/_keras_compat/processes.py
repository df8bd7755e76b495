"""Private names behind several replicas and several processes."""

import itertools
import types
from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf


def on_this_replica(variable: tf.Variable) -> tf.Variable:
    """Returns the calling replica's own component of a variable.

    Why: a variable that every replica holds for itself cannot be read or
    written by rows; its components can, and TensorFlow hands them out through
    a private method only. On TPUs, where one trace serves all replicas, the
    variable itself stands for the replica's.
    """
    if isinstance(tf.distribute.get_strategy(), tf.distribute.TPUStrategy):
        return variable
    if isinstance(variable, tf.distribute.DistributedValues):
        return variable._get_on_device_or_primary()
    return variable


def in_several_processes(strategy: tf.distribute.Strategy) -> bool:
    """Tells whether a strategy's replicas are in several processes.

    Why: a MultiWorkerMirroredStrategy with a cluster of one behaves as a
    MirroredStrategy, and which of the two it is stands in a private place.
    """
    return (
        isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy)
        and strategy.extended._in_multi_worker_mode()
    )


class SeveralProcesses:
    """Mixin that lets `fit` and `evaluate` run in several processes.

    Why: stock Keras's fail there, in 3.0 to 3.15 at least (keras issue 20585,
    open). It hands a whole batch, a nested structure, to `strategy.reduce`,
    reduces scalar logs along their first axis, and puts the collectives of
    several steps into a loop where they have no keys. Under any strategy, it
    builds a model from a batch that a generator doesn't yield again. Without
    one nothing is changed, and Keras itself never.
    """

    def _maybe_symbolic_build(
        self, iterator: Any = None, data_batch: Any = None
    ) -> None:
        """Builds from what the data say of a replica's share of a batch."""
        if iterator is not None:
            data_batch = keras.tree.map_structure(
                lambda spec: getattr(spec, "_value_specs", (spec,))[0],
                iterator._distributed_dataset.element_spec,
            )
            iterator = None
        super()._maybe_symbolic_build(iterator=iterator, data_batch=data_batch)

    def _make_function(self, step: Callable[[Any], Any]) -> Callable:
        """Averages the logs in one small collective, whatever their number."""
        strategy = self.distribute_strategy
        make = super()._make_function
        if not in_several_processes(strategy):
            return make(step)

        def step_with_common_logs(data: Any) -> Any:
            logs = step(data)
            leaves = [tf.convert_to_tensor(v) for v in keras.tree.flatten(logs)]
            flat = [tf.reshape(tf.cast(v, "float32"), [-1]) for v in leaves]
            context = tf.distribute.get_replica_context()
            mean = context.all_reduce(
                tf.distribute.ReduceOp.MEAN, tf.concat(flat, axis=0)
            )
            parts = tf.split(mean, [tf.size(v) for v in flat], num=len(flat))
            return keras.tree.pack_sequence_as(
                logs,
                [
                    tf.reshape(part, tf.shape(leaf))
                    for part, leaf in zip(parts, leaves, strict=True)
                ],
            )

        def first(values: Any, strategy: Any, reduction: str) -> Any:
            return keras.tree.map_structure(
                lambda v: strategy.experimental_local_results(v)[0], values
            )

        # The same code, reading `reduce_per_replica` from a copy of its names.
        code = make.__func__
        names = {**code.__globals__, "reduce_per_replica": first}
        mended = types.FunctionType(
            code.__code__, names, code.__name__, code.__defaults__
        )
        function = mended(self, step_with_common_logs)
        if self.steps_per_execution == 1:
            return function

        def step_by_step(iterator: Any) -> Any:
            # TensorFlow's collectives can't be in a `tf.function` inside the
            # loop that Keras makes of the steps of an iterator that it knows.
            return function(itertools.chain([next(iterator)], iterator))

        return step_by_step
