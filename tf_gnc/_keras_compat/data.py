"""Private names that decide what `fit` trains on, and where it begins."""

from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras.src.trainers import data_adapters as _data_adapters
from keras.src.trainers.data_adapters import array_slicing as _array_slicing
from keras.src.trainers.data_adapters import data_adapter as _data_adapter


def set_initial_epoch(model: keras.Model, epoch: int | None) -> None:
    """Makes the running `fit` begin with an epoch; None for its own choice.

    Why: Keras's own callback for backups says it this way, from
    `on_train_begin`; there is no public one.
    """
    model._initial_epoch = epoch


def training_data(
    arguments: dict[str, Any],
) -> tuple[_data_adapter.DataAdapter, Any]:
    """Returns Keras's adapter for what `fit` was given to train on.

    Why: arrays, generators and data loaders all become a `tf.data.Dataset`
    there, and the adapters are private.

    With it come the data as one structure of tensors where they are plain
    arrays, else None. Of the arguments of `fit`, a `validation_split` becomes
    `validation_data`.
    """
    arrays = tuple(arguments.get(k) for k in ("x", "y", "sample_weight"))
    split = arguments.pop("validation_split", None)
    if split and arguments.get("validation_data") is None:
        arrays, rest = _array_slicing.train_validation_split(arrays, split)
        arguments["validation_data"] = rest
    x, y, sample_weight = arrays
    is_dataset = isinstance(x, tf.data.Dataset)
    adapter = _data_adapters.get_data_adapter(
        x,
        y,
        sample_weight,
        batch_size=arguments.get("batch_size"),
        steps_per_epoch=arguments.get("steps_per_epoch"),
        shuffle=False if is_dataset else arguments.get("shuffle", True),
        class_weight=arguments.get("class_weight"),
    )
    if not isinstance(adapter, _data_adapters.ArrayDataAdapter):
        return adapter, None
    arrays = _array_slicing.convert_to_sliceable(adapter._inputs, "tensorflow")
    leaves = keras.tree.flatten(arrays)
    plain = all(isinstance(leaf, np.ndarray | tf.Tensor) for leaf in leaves)
    return adapter, keras.tree.lists_to_tuples(arrays) if plain else None


class PreparedData(_data_adapter.DataAdapter):
    """Hands `fit` a data set, distributed or not, as it is.

    Why: `fit` takes a `DistributedDataset` or a `Dataset`, but would warn of
    arguments that have been dealt with, and doesn't learn from the former how
    many batches an epoch has. The adapter knows; None is for data without an
    end.
    """

    def __init__(self, adapter: _data_adapter.DataAdapter | None, dataset: Any):
        self._adapter = adapter
        self._dataset = dataset

    def get_tf_dataset(self) -> Any:
        """Returns the data set."""
        return self._dataset

    @property
    def num_batches(self) -> int | None:
        """Batches in one pass over the data, if known."""
        return self._adapter and self._adapter.num_batches

    def on_epoch_begin(self) -> None:
        """Passes on that an epoch begins."""
        if self._adapter:
            self._adapter.on_epoch_begin()

    def on_epoch_end(self) -> None:
        """Passes on that an epoch has ended."""
        if self._adapter:
            self._adapter.on_epoch_end()
