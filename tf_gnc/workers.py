"""M workers on R replicas: their rows, their memory, their loop.

The paper's M workers are a number here, not machines: each of R replicas
carries V = M / R of them, one after another or a few at a time, and what a
worker computes depends on its index in the whole cluster alone. This file
knows rows and loops; it knows neither Keras models nor noise rules.

Symbols   M  number of workers in the whole cluster (`num_workers`)
          R  number of replicas in sync
          V  workers per replica, M / R
          P  number of trainable scalars
          b  examples per worker

Floor 1: may import from floor 0 only.
"""

from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf

from tf_gnc import _check, threads


def per_replica(num_workers: int, num_replicas: int) -> int:
    """Returns V, the number of workers that each replica carries.

    Args:
        num_workers: M, counted over the whole cluster.
        num_replicas: R, the strategy's replicas in sync.

    Raises:
        ValueError: If R does not divide M.

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
    """Checks that the workers can share a batch evenly.

    Args:
        num_rows: Rows of the batch.
        num_workers: The workers among whom they are to be split.
        what: Names the batch in the error, with its article.

    Raises:
        ValueError: If `num_workers` does not divide `num_rows`.
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

    Args:
        workers_per_replica: V.
        num_replicas: R, in the whole cluster.
    """
    list_devices = tf.config.list_logical_devices
    if list_devices("GPU") or list_devices("TPU"):
        return 1
    replicas_here = min(num_replicas, len(list_devices("CPU")))
    cores = tf.config.threading.get_inter_op_parallelism_threads()
    cores = cores or threads.num_cores()
    return max(1, min(workers_per_replica, cores // replicas_here))


def rows(data: Any, worker: tf.Tensor, workers_per_replica: int) -> Any:
    """Returns one worker's rows of a batch.

    Args:
        data: Nested structure of dense, ragged or sparse tensors and None,
            with the replica's rows on axis 0.
        worker: Index of the worker on its replica, 0 to V - 1.
        workers_per_replica: V, a divisor of the number of rows.

    Returns:
        The same structure; worker k gets rows `[k*b, (k+1)*b)`.

    Example:
        >>> rows({"x": tf.range(6), "y": None}, tf.constant(1), 3)["x"].numpy()
        array([2, 3], dtype=int32)
    """

    def take(leaf: Any) -> Any:
        size = num_rows(leaf) // workers_per_replica
        return _slice(leaf, worker * size, size)

    return _map_tensors(take, data)


def share(data: Any, part: int, num_parts: int) -> Any:
    """Returns one of several parts of a batch, as even as can be.

    Args:
        data: As for `rows`, with any number of rows.
        part: Which part, 0 to `num_parts - 1`.
        num_parts: Parts to cut the rows into, in their order.

    Example:
        >>> share(tf.range(5), 1, 2).numpy()
        array([2, 3, 4], dtype=int32)
    """

    def take(leaf: Any) -> Any:
        size = num_rows(leaf)
        begin = part * size // num_parts
        return _slice(leaf, begin, (part + 1) * size // num_parts - begin)

    return _map_tensors(take, data)


def between(data: Any, begin: int, end: int) -> Any:
    """Returns rows `[begin, end)` of a batch; see `rows`."""
    return _map_tensors(lambda leaf: _slice(leaf, begin, end - begin), data)


def even_rows(data: Any, workers_per_replica: int) -> Any:
    """Returns as many of a batch's first rows as the workers can share."""

    def take(leaf: Any) -> Any:
        size = num_rows(leaf)
        return _slice(leaf, 0, size - size % workers_per_replica)

    return _map_tensors(take, data)


def num_rows(data: Any) -> int | tf.Tensor:
    """Returns the rows of a batch, as an int where they are known."""
    leaf = next(x for x in keras.tree.flatten(data) if x is not None)
    if isinstance(leaf, tf.RaggedTensor):
        return leaf.shape[0] or leaf.nrows(out_type=tf.int32)
    if isinstance(leaf, tf.SparseTensor):
        return leaf.shape[0] or tf.cast(leaf.dense_shape[0], tf.int32)
    leaf = tf.convert_to_tensor(leaf)
    return leaf.shape[0] or tf.shape(leaf)[0]


def _map_tensors(take: Callable[[Any], Any], data: Any) -> Any:
    return keras.tree.map_structure(
        lambda leaf: None if leaf is None else take(leaf),
        data,
        none_is_leaf=True,
    )


def _slice(leaf: Any, begin: int | tf.Tensor, size: int | tf.Tensor) -> Any:
    """Returns rows `[begin, begin + size)`, their number static if known."""
    if isinstance(leaf, tf.RaggedTensor):
        return leaf[begin : begin + size]
    if isinstance(leaf, tf.SparseTensor):
        others = leaf.dense_shape[1:]
        start = tf.concat([[tf.cast(begin, tf.int64)], 0 * others], axis=0)
        extent = tf.concat([[tf.cast(size, tf.int64)], others], axis=0)
        return tf.sparse.slice(leaf, start, extent)
    leaf = tf.convert_to_tensor(leaf)
    rest = leaf.shape.rank - 1
    taken = tf.slice(leaf, [begin] + [0] * rest, [size] + [-1] * rest)
    static = size if isinstance(size, int) else None
    return tf.ensure_shape(taken, [static, *leaf.shape[1:]])


def for_each(
    body: Callable[[tf.Tensor, Any], Any],
    state: Any,
    workers_per_replica: int,
    parallel: int,
) -> Any:
    """Runs `body` for each worker of this replica and returns the last state.

    The body is traced once, however many workers there are. Workers run
    `parallel` at a time; what a body hands on in `state` is computed in
    the order of the workers, so sums do not depend on timing.

    A worker waits for whatever the one before it wrote to a variable
    (TensorFlow lets all results of a loop's body wait for its side effects),
    so a body that writes what it has just computed makes the workers run one
    after another; see `GradientMemory.remember`.

    Args:
        body: Takes a worker's index on this replica, 0 to V - 1, and the
            state that the worker before it left; returns the new state.
        state: Nested structure of tensors and TensorArrays.
        workers_per_replica: V.
        parallel: How many workers may be under way at a time.
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
