"""Which rows of what `fit` was given each process trains on, and from where.

TensorFlow's own sharding deals out files or elements, so that an example's
worker depends on the number of processes. Here row k of a global batch goes to
the same worker always: process p of P takes rows `[p*B/P, (p+1)*B/P)` of B.

So data sets must yield *global* batches, the same ones in all processes.
Arrays are shuffled alike everywhere, and only a process's own rows are read;
any other data set runs whole in each process, which then keeps its rows. To
read less, give `fit` what `strategy.distribute_datasets_from_function` returns.
"""

import zlib
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tf_gnc import _batch, _keras_compat
from tf_gnc.data.pipeline import endless
from tf_gnc.distribute import collectives


def indices(
    num_examples: int,
    batch_size: int,
    shuffle: bool,
    seed: int,
    first_step: int = 0,
) -> tf.data.Dataset:
    """Returns endless batches of examples' indices, a function of the step.

    Each pass over the data is a permutation of its own, or in order; a last
    batch that is not full holds what is left.

    Example:
        >>> batches = indices(5, 2, shuffle=False, seed=0, first_step=2)
        >>> [b.tolist() for b in batches.take(2).as_numpy_iterator()]
        [[4], [0, 1]]
    """
    steps = -(-num_examples // batch_size)

    def one_pass(number: tf.Tensor) -> tf.data.Dataset:
        order = tf.range(num_examples, dtype=tf.int64)
        if shuffle:
            order = tf.random.experimental.stateless_shuffle(
                order, tf.stack([tf.constant(seed, tf.int64), number])
            )
        started = tf.where(number == first_step // steps, first_step % steps, 0)
        rest = tf.data.Dataset.from_tensor_slices(order[started * batch_size :])
        even = num_examples % batch_size == 0
        return rest.batch(batch_size, drop_remainder=even)

    passes = tf.data.Dataset.counter(first_step // steps)
    return endless(passes.flat_map(one_pass))


def examples_of(arrays: Any) -> Callable[[tf.Tensor], Any]:
    """Returns a function from indices to the examples of arrays in memory."""
    with tf.device("CPU:0"):
        tensors = keras.tree.map_structure(tf.convert_to_tensor, arrays)

    def load(chosen: tf.Tensor) -> Any:
        return keras.tree.map_structure(
            lambda tensor: tf.gather(tensor, chosen), tensors
        )

    return load


def keep_own_rows(
    dataset: tf.data.Dataset,
    strategy: tf.distribute.Strategy,
    load: Callable[[tf.Tensor], Any] | None = None,
) -> tf.distribute.DistributedDataset:
    """Gives each replica of every process its own rows of global batches.

    `load` makes examples of a replica's rows, if those are indices.
    """

    def own_rows(context: tf.distribute.InputContext) -> tf.data.Dataset:
        def take(*batch: Any) -> tf.data.Dataset:
            batch = batch[0] if len(batch) == 1 else batch
            return rows_of_process(batch, context)

        own = dataset.flat_map(take)
        if load is not None:
            own = own.map(load, tf.data.AUTOTUNE, deterministic=True)
        if dataset.cardinality() == tf.data.INFINITE_CARDINALITY:
            own = endless(own)
        return own.prefetch(tf.data.AUTOTUNE)

    return strategy.distribute_datasets_from_function(own_rows)


def rows_of_process(
    batch: Any, context: tf.distribute.InputContext
) -> tf.data.Dataset:
    """Returns this process's rows of a global batch, replica by replica.

    TensorFlow hands each replica the next element.
    """
    replicas = context.num_replicas_in_sync
    local = replicas // context.num_input_pipelines
    first = context.input_pipeline_id * local
    joined, *others = (
        tf.data.Dataset.from_tensors(_batch.part_of(batch, replica, replicas))
        for replica in range(first, first + local)
    )
    for other in others:
        joined = joined.concatenate(other)
    return joined


def make_own_rows(
    make_rows: Callable[[int, int], tf.data.Dataset],
    batch_size: int,
    strategy: tf.distribute.Strategy | None,
) -> Any:
    """Makes only this process's rows of the global batches.

    `make_rows` takes a range `(a, b)` and returns an endless data set of rows
    a to b - 1 of each global batch. With a single process, or no strategy, the
    result is the data set of all rows.
    """
    if strategy is None or not _keras_compat.in_several_processes(strategy):
        return make_rows(0, batch_size)

    def own_rows(context: tf.distribute.InputContext) -> tf.data.Dataset:
        each = context.get_per_replica_batch_size(batch_size)
        count = batch_size // context.num_input_pipelines
        start = context.input_pipeline_id * count
        own = make_rows(start, start + count)
        if each == count:
            return own
        return endless(own.rebatch(each, drop_remainder=True))

    return strategy.distribute_datasets_from_function(own_rows)


def check_same(
    dataset: tf.data.Dataset, strategy: tf.distribute.Strategy
) -> None:
    """Checks that all processes see the same first batch."""
    digest = 0
    for batch in dataset.take(1):
        for leaf in tf.nest.flatten(batch, expand_composites=True):
            values = np.asarray(leaf)
            if values.dtype.hasobject:  # strings, which it points to
                values = np.frombuffer(repr(values.tolist()).encode(), "uint8")
            digest = zlib.crc32(values.tobytes(), digest)
    digests = collectives.gather(strategy, digest)
    if len(set(digests)) > 1:
        raise ValueError(
            "A data set must yield the same global batches in all processes, "
            "each of which then takes its own rows, got a first batch that "
            f"differs between processes (checksums {digests}). Shuffle with a "
            "seed, `shuffle(..., seed=0)`, and don't shard the data set; or "
            "give `fit` each replica's batches yourself, with "
            "`strategy.distribute_datasets_from_function`."
        )
