"""The arguments of `fit`, made ready before Keras's own `fit` begins.

batches    every worker needs the same number of rows
processes  each trains on its own rows; only the first one writes files
backups    data that can be rewound begin where a backup left off
"""

import random
from typing import Any

import keras
import tensorflow as tf

from tf_gnc import _keras_compat
from tf_gnc.distribute import chief, collectives, sharding
from tf_gnc.step import workers
from tf_gnc.step.control import control_of


class Resumable:
    """A callback of `fit` that may begin in the middle of a run.

    Such a callback goes last, so that it sees what the others have made of a
    batch or an epoch.
    """

    def open(self, model: keras.Model, callbacks: list) -> None:
        """Learns the model, built, and the callbacks beside it."""
        raise NotImplementedError

    def data_position(self, first_step: int, seed: int) -> tuple[int, int]:
        """Returns the step at which the data go on, and the seed of shuffling.

        Given are those of a run that begins. Called for data that can begin
        at any step.
        """
        raise NotImplementedError

    def close(self) -> None:
        """Lets go of what `open` took, however `fit` has ended."""
        raise NotImplementedError


def prepare(model: keras.Model, arguments: dict[str, Any]) -> list[Resumable]:
    """Changes the arguments of `fit`, and returns its one `Resumable`, if any.

    The arguments are those that were given, by name, and change in place.

    Raises:
        ValueError: If the workers can't share a batch evenly, or the
            processes don't see the same data.
    """
    for size in batch_sizes(arguments):
        workers.check_batch(size, model.num_workers, "a batch")
    strategy = model.distribute_strategy
    several = _keras_compat.in_several_processes(strategy)
    given = arguments.get("callbacks") or []
    backups = []
    if isinstance(given, keras.callbacks.CallbackList):
        if any(isinstance(c, Resumable) for c in given.callbacks):
            raise ValueError(
                "`fit` takes a BackupAndRestore in a list of callbacks, got "
                "it in a CallbackList, whose order is fixed. Pass a list."
            )
    else:
        given = list(keras.tree.flatten(given))
        backups = [c for c in given if isinstance(c, Resumable)]
    if len(backups) > 1:
        raise ValueError(
            "`fit` takes a single BackupAndRestore, got "
            f"{len(backups)} of them in `callbacks`."
        )
    if several:
        collectives.linger_at_exit()
        collectives.take_sigterm_back()
        chief.only_one_writes(arguments, given, strategy)
    if backups:
        given = [c for c in given if not isinstance(c, Resumable)]
        if not any(isinstance(c, keras.callbacks.History) for c in given):
            # Keras would put its own behind the backup.
            given.append(keras.callbacks.History())
        arguments["callbacks"] = [*given, *backups]
    if backups or several:
        _prepare_data(model, arguments, backups, given)
    return backups


def _prepare_data(
    model: keras.Model,
    arguments: dict[str, Any],
    backups: list[Resumable],
    callbacks: list,
) -> None:
    strategy = model.distribute_strategy
    several = _keras_compat.in_several_processes(strategy)
    x = arguments.get("x")
    if isinstance(x, tf.distribute.DistributedDataset):
        _open(model, backups, callbacks, x)
        return
    adapter, arrays = _keras_compat.training_data(arguments)
    shuffle = arguments.get("shuffle", True)
    load = None
    if arrays is None or shuffle == "batch":
        dataset = adapter.get_tf_dataset()
        _open(model, backups, callbacks, dataset)
        if several and not hasattr(x, "__next__"):  # It can't be rewound.
            sharding.check_same(dataset, strategy)
    else:
        load = sharding.examples_of(arrays)
        size = int(keras.tree.flatten(arrays)[0].shape[0])
        example = tf.data.Dataset.from_tensors(tf.range(1)).map(load)
        _open(model, backups, callbacks, example)
        seed = collectives.from_chief(strategy, random.randrange(2**31))
        steps = arguments.get("steps_per_epoch") or adapter.num_batches
        arguments["steps_per_epoch"] = steps
        first_step = arguments.get("initial_epoch", 0)
        first_step *= control_of(model).whole_calls(steps)
        for backup in backups:
            first_step, seed = backup.data_position(first_step, seed)
        dataset = sharding.indices(
            size, adapter.batch_size, bool(shuffle), seed, first_step
        )
        adapter = None  # The data have no end.
    if several:
        dataset = sharding.keep_own_rows(dataset, strategy, load)
    elif load is not None:
        dataset = dataset.map(load, tf.data.AUTOTUNE, deterministic=True)
        dataset = dataset.prefetch(tf.data.AUTOTUNE)
    arguments["x"] = _keras_compat.PreparedData(adapter, dataset)
    for name in ("y", "sample_weight", "class_weight"):
        arguments.pop(name, None)


def _open(
    model: keras.Model, backups: list[Resumable], callbacks: list, data: Any
) -> None:
    """Builds the model from a batch, and lets the backup see it."""
    if not backups:
        return
    strategy = model.distribute_strategy
    for batch in data:
        batch = keras.tree.map_structure(
            lambda leaf: strategy.experimental_local_results(leaf)[0], batch
        )
        with strategy.scope():
            _keras_compat.build(model, batch)
        break
    backups[0].open(model, callbacks)


def batch_sizes(arguments: dict[str, Any]) -> list[int]:
    """Returns the sizes of the batches that `fit` will see, where known."""
    x = arguments.get("x")
    if isinstance(x, tf.data.Dataset):
        specs = keras.tree.flatten(x.element_spec)
        shape = getattr(specs[0], "shape", None) if specs else None
        return [shape[0]] if shape and shape[0] else []
    leaves = [leaf for leaf in keras.tree.flatten(x) if leaf is not None]
    if not leaves or not getattr(leaves[0], "shape", None):
        return []
    if isinstance(leaves[0], tf.distribute.DistributedValues):
        return []
    num_examples = int(leaves[0].shape[0])
    split = arguments.get("validation_split")
    if split and arguments.get("validation_data") is None:
        num_examples = int(num_examples * (1 - split))
    if not num_examples:
        return []
    batch_size = min(arguments.get("batch_size") or 32, num_examples)
    steps = arguments.get("steps_per_epoch")
    last = num_examples % batch_size
    if last and (not steps or steps * batch_size > num_examples):
        return [batch_size, last]
    return [batch_size]
