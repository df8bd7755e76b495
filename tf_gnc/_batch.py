"""Rows of a batch: nested tensors, dense, ragged or sparse, and None.

Symbols   V  workers per replica
          b  rows per worker
"""

from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf


def rows(data: Any, worker: tf.Tensor, workers_per_replica: int) -> Any:
    """Returns one worker's rows of a batch: of worker k `[k*b, (k+1)*b)`.

    Workers are counted from 0 to V - 1, where V divides the number of rows.

    Example:
        >>> rows({"x": tf.range(6), "y": None}, tf.constant(1), 3)["x"].numpy()
        array([2, 3], dtype=int32)
    """

    def take(leaf: Any) -> Any:
        size = num_rows(leaf) // workers_per_replica
        return _slice(leaf, worker * size, size)

    return _map_tensors(take, data)


def part_of(data: Any, part: int, num_parts: int) -> Any:
    """Returns one of several parts, from 0, in order and as even as possible.

    Example:
        >>> part_of(tf.range(5), 1, 2).numpy()
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
