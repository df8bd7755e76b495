"""Each process trains on its own rows of what `fit` was given.

TensorFlow's own sharding deals out files or elements, so that an example's
worker depends on the number of processes. Here row k of a global batch goes to
the same worker always: process p of P takes rows `[p*B/P, (p+1)*B/P)`.

The contract for data sets: they yield *global* batches, the same ones in all
processes. Arrays are shuffled alike everywhere and only a process's own rows
are read; any other data set runs whole in each process, which then keeps its
rows. To read less, give `fit` what
`strategy.distribute_datasets_from_function` returns.

Floor 2: may import from floors 0 and 1 and from this floor.
"""

import random
import zlib
from typing import Any

import keras
import tensorflow as tf

from tf_gnc import _keras_compat, workers
from tf_gnc.distribute import processes


def share_rows(
    arguments: dict[str, Any], strategy: tf.distribute.Strategy
) -> None:
    """Has `fit` train each process on its own rows of the global batches.

    Args:
        arguments: Those of `fit`, by name; changed in place.
        strategy: Has several processes.

    Raises:
        ValueError: If the processes' data differ.
    """
    x = arguments.get("x")
    if isinstance(x, tf.distribute.DistributedDataset):
        return
    adapter, arrays = _keras_compat.training_data(arguments)
    shuffle = arguments.get("shuffle", True)
    load = None
    if arrays is not None and shuffle != "batch":
        seed = processes.from_chief(strategy, random.randrange(2**31))
        size = int(keras.tree.flatten(arrays)[0].shape[0])
        dataset = tf.data.Dataset.range(size)
        if shuffle:
            dataset = dataset.shuffle(size, seed=seed)
        dataset = dataset.batch(adapter.batch_size)
        load = _gather_from(arrays)
    else:
        dataset = adapter.get_tf_dataset()
        if not hasattr(x, "__next__"):  # It can't be looked at and rewound.
            _check_same(dataset, strategy)
    shared = strategy.distribute_datasets_from_function(
        lambda context: own_rows(dataset, context, load)
    )
    arguments["x"] = _keras_compat.SharedData(adapter, shared)
    for name in ("y", "sample_weight", "class_weight"):
        arguments.pop(name, None)


def own_rows(
    dataset: tf.data.Dataset,
    context: tf.distribute.InputContext,
    load: Any = None,
) -> tf.data.Dataset:
    """Returns the batches of this process's replicas, one after another.

    Args:
        dataset: Yields global batches.
        context: Says which process this is.
        load: Makes examples of a replica's rows, if those are indices.
    """
    replicas = context.num_replicas_in_sync
    local = replicas // context.num_input_pipelines
    first = context.input_pipeline_id * local

    def take(*batch: Any) -> tf.data.Dataset:
        batch = batch[0] if len(batch) == 1 else batch
        shares = [
            workers.share(batch, replica, replicas)
            for replica in range(first, first + local)
        ]
        sets = [tf.data.Dataset.from_tensors(share) for share in shares]
        joined = sets[0]
        for other in sets[1:]:
            joined = joined.concatenate(other)
        return joined

    dataset = dataset.flat_map(take)
    if load is not None:
        dataset = dataset.map(load, tf.data.AUTOTUNE, deterministic=True)
    options = tf.data.Options()
    options.experimental_distribute.auto_shard_policy = (
        tf.data.experimental.AutoShardPolicy.OFF
    )
    return dataset.with_options(options).prefetch(tf.data.AUTOTUNE)


def _gather_from(arrays: Any) -> Any:
    with tf.device("CPU:0"):
        tensors = keras.tree.map_structure(tf.convert_to_tensor, arrays)
    floats = keras.config.floatx()

    def load(indices: tf.Tensor) -> Any:
        def gather(tensor: tf.Tensor) -> tf.Tensor:
            rows = tf.gather(tensor, indices)
            return tf.cast(rows, floats) if rows.dtype.is_floating else rows

        return keras.tree.map_structure(gather, tensors)

    return load


def _check_same(
    dataset: tf.data.Dataset, strategy: tf.distribute.Strategy
) -> None:
    """Checks that all processes see the same first batch."""
    digest = 0
    for batch in dataset.take(1):
        for leaf in tf.nest.flatten(batch, expand_composites=True):
            digest = zlib.crc32(leaf.numpy().tobytes(), digest)
    digests = processes.gather(strategy, digest)
    if len(set(digests)) > 1:
        raise ValueError(
            "A data set must yield the same global batches in all processes, "
            "each of which then takes its own rows, got a first batch that "
            f"differs between processes (checksums {digests}). Shuffle with a "
            "seed, `shuffle(..., seed=0)`, and don't shard the data set; or "
            "give `fit` each replica's batches yourself, with "
            "`strategy.distribute_datasets_from_function`."
        )
