"""M workers on R replicas: how many on each, their variables, their loop.

The paper's M workers are a number here, not machines: each of R replicas
carries V = M / R of them, one after another or a few at a time, and what a
worker computes depends on its index in the whole cluster alone. This file
knows rows and loops; it knows neither Keras models nor noise rules.

Symbols   M  number of workers in the whole cluster (`num_workers`)
          R  number of replicas in sync
          V  workers per replica, M / R
          P  number of trainable scalars
          b  examples per worker
"""

from collections.abc import Callable
from typing import Any

import tensorflow as tf

from tf_gnc import _check, threads


def per_replica(num_workers: int, num_replicas: int) -> int:
    """Returns V, or raises a ValueError if R doesn't divide M.

    Example:
        >>> per_replica(256, 8)
        32
    """
    num_workers = _check.integer("num_workers", num_workers, minimum=1)
    if num_workers % num_replicas:
        nearest = num_replicas * max(1, round(num_workers / num_replicas))
        raise ValueError(
            "`num_workers` must be a multiple of the number of replicas in "
            f"sync, got num_workers={num_workers} with {num_replicas} "
            f"replicas. Use num_workers={nearest}, or change the distribution "
            "strategy."
        )
    return num_workers // num_replicas


def check_batch(num_rows: int, num_workers: int, what: str) -> None:
    """Raises a ValueError if the workers can't share a batch evenly.

    `what` names the batch in it, with its article.
    """
    if num_rows % num_workers:
        fitting = num_workers * max(1, num_rows // num_workers)
        raise ValueError(
            f"Every worker needs the same number of rows, got {what} of "
            f"{num_rows} rows for {num_workers} workers. Use a batch of "
            f"{fitting} rows, drop the last partial batch "
            "(`Dataset.batch(..., drop_remainder=True)`, or a number of "
            f"examples that is a multiple of {num_workers}), or change "
            "`num_workers`."
        )


def num_parallel(workers_per_replica: int, num_replicas: int) -> int:
    """Returns how many workers a replica runs at a time.

    Workers are independent until their mean, so on a CPU each belongs on a
    core of its own. An accelerator runs one at a time, and holds the
    activations of one.
    """
    list_devices = tf.config.list_logical_devices
    if list_devices("GPU") or list_devices("TPU"):
        return 1
    replicas_here = min(num_replicas, len(list_devices("CPU")))
    cores = tf.config.threading.get_inter_op_parallelism_threads()
    cores = cores or threads.num_cores()
    return max(1, min(workers_per_replica, cores // replicas_here))


def replica_variable(shape: list[int], dtype: str) -> tf.Variable:
    """Returns zeros that each replica changes by itself; make it in the scope.

    A replica reaches its own by `_keras_compat.on_this_replica`.
    """
    return tf.Variable(
        lambda: tf.zeros(shape, dtype),
        trainable=False,
        synchronization=tf.VariableSynchronization.ON_READ,
        aggregation=tf.VariableAggregation.NONE,
    )


def for_each(
    body: Callable[[tf.Tensor, Any], Any],
    state: Any,
    workers_per_replica: int,
    parallel: int,
) -> Any:
    """Runs `body` for each worker of this replica and returns the last state.

    It takes the worker's index on this replica, 0 to V - 1, and the nested
    state of tensors and TensorArrays that the worker before it left, and
    returns the new one. It is traced once, however many workers there are.
    Workers run `parallel` at a time; what they hand on in `state` is computed
    in their order, so sums do not depend on timing.

    A worker waits for whatever the one before it wrote to a variable
    (TensorFlow lets all results of a loop's body wait for its side effects),
    so a body that writes what it has just computed makes the workers run one
    after another; see `MemoryStep.remember`.
    """
    if workers_per_replica == 1:
        return body(tf.constant(0), state)
    _, state = tf.while_loop(
        lambda worker, state: worker < workers_per_replica,
        lambda worker, state: (worker + 1, body(worker, state)),
        (tf.constant(0), state),
        parallel_iterations=parallel,
        maximum_iterations=workers_per_replica,
    )
    return state


def mean_over_replicas(vector: tf.Tensor) -> tf.Tensor:
    """Returns the mean of each replica's vector: one collective a step."""
    context = tf.distribute.get_replica_context()
    if context.num_replicas_in_sync == 1:
        return vector
    return context.all_reduce(tf.distribute.ReduceOp.MEAN, vector)
