"""Batch normalization's moving statistics, estimated anew."""

import contextlib
import itertools
from collections.abc import Iterable, Iterator
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tf_gnc import _check, _keras_compat

Layers = list[keras.layers.BatchNormalization]


def recalibrate_batch_norm(
    model: keras.Model, dataset: Iterable[Any], steps: int | None = None
) -> None:
    r"""Estimates batch normalization's moving statistics at the weights as is.

    Moving statistics lag behind the weights, and those of noisy training are
    of displaced weights. Here the model is called on some batches as in
    training, nothing else in it changes, and each layer's statistics become
    those of all rows together:

    .. math:: \mu = E[\mu_b], \qquad
              \sigma^2 = E[\sigma_b^2 + \mu_b^2] - \mu^2,

    the means over batches, each counted by its rows.

    Source: Wu and Johnson (2021), arXiv:2105.07576, section 3 (PreciseBN).
    Deviation from it: none; layers behind others see inputs that those have
    normalized by batch, as there, so batches should be as large as in training.
    Frozen layers stay as they are. With masks each batch counts by its rows all
    the same; a layer that is called twice has the statistics of its last call.

    In several processes each one does it by itself, on the same batches.

    Args:
        model: Any built Keras model with batch normalization.
        dataset: Yields batches, such as a `tf.data.Dataset` or a list of
            them: `x`, `(x, y)` or more. What follows `x` is not used.
        steps: How many batches; None for all.

    Raises:
        ValueError: If the model has no batch normalization to estimate, or
            there are no batches, fewer than `steps`, or no end to them; or if
            `dataset` is one array, or a tuple of arrays.

    Example:
        >>> model = keras.Sequential(
        ...     [keras.Input((1,)), keras.layers.BatchNormalization()])
        >>> recalibrate_batch_norm(model, [np.array([[1.0], [3.0]])])
        >>> model.layers[0].moving_mean.numpy().tolist()
        [2.0]
    """
    BatchNormStatistics(model).estimate(dataset, steps)


class BatchNormStatistics:
    """The statistics of one model's layers; keeps what it has traced."""

    def __init__(self, model: keras.Model) -> None:
        if not _keras_compat.is_built(model):
            raise ValueError(
                "Batch normalization's statistics need a built model, got "
                f"{model.name!r}, which isn't. Call it on a batch first."
            )
        self._model = model
        self._layers = [
            layer
            for layer in _keras_compat.layers_of(model)
            if isinstance(layer, keras.layers.BatchNormalization)
            and layer.trainable
        ]
        if not self._layers:
            raise ValueError(
                "There are no statistics to estimate: the model has no "
                "keras.layers.BatchNormalization that isn't frozen, got the "
                f"layers {[layer.name for layer in model.layers]}."
            )
        # A last batch may be shorter, each time.
        self._of_batch = tf.function(
            self._call, autograph=False, reduce_retracing=True
        )

    def estimate(self, dataset: Iterable[Any], steps: int | None) -> None:
        """Assigns each layer the statistics of these batches' rows."""
        rows = 0
        sums = [0.0] * (2 * len(self._layers))
        with _momentum_of_zero(self._layers):
            for batch in _first(dataset, steps):
                x = keras.utils.unpack_x_y_sample_weight(batch)[0]
                x = keras.tree.map_structure(tf.convert_to_tensor, x)
                count = int(keras.tree.flatten(x)[0].shape[0])
                for place, value in enumerate(self._of_batch(x)):
                    # Differences of large sums: not in float32.
                    sums[place] += count * np.asarray(value, "float64")
                rows += count
        if not rows:
            raise ValueError(
                "`dataset` must have a batch at least, got none. A data set "
                "that has been read to its end is empty: make it anew."
            )
        half = len(self._layers)
        pairs = zip(sums[:half], sums[half:], strict=True)
        with self._model.distribute_strategy.scope():
            for layer, (mean, square) in zip(self._layers, pairs, strict=True):
                mean, square = mean / rows, square / rows
                layer.moving_mean.assign(mean)
                layer.moving_variance.assign(np.maximum(square - mean**2, 0))

    def _call(self, x: Any) -> list[tf.Tensor]:
        """Returns each layer's mean, and then mean square, of a batch."""
        # From zeros: with a momentum of 0, NaN would else stay what it is.
        zeros = [
            (variable, tf.zeros(variable.shape, variable.dtype))
            for layer in self._layers
            for variable in (layer.moving_mean, layer.moving_variance)
            if not getattr(layer, "renorm", False)  # from Keras 3.14 on
        ]
        means, squares = [], []
        with keras.StatelessScope(zeros) as scope:
            value_of = scope.get_current_value
            before = [value_of(layer.moving_mean) for layer in self._layers]
            _keras_compat.call_for_training(self._model, x)
        for layer, at_first in zip(self._layers, before, strict=True):
            mean = value_of(layer.moving_mean)
            variance = value_of(layer.moving_variance)
            if mean is at_first:  # The model's call doesn't use it.
                mean = layer.moving_mean.value
                variance = layer.moving_variance.value
            mean = tf.cast(mean, tf.float64)
            means.append(mean)
            squares.append(tf.cast(variance, tf.float64) + mean**2)
        return means + squares


@contextlib.contextmanager
def _momentum_of_zero(layers: Layers) -> Iterator[None]:
    """Has moving statistics become a batch's own while calls are traced."""
    before = [layer.momentum for layer in layers]
    try:
        for layer in layers:
            layer.momentum = 0.0
        yield
    finally:
        for layer, momentum in zip(layers, before, strict=True):
            layer.momentum = momentum


def _first(dataset: Iterable[Any], steps: int | None) -> Iterator[Any]:
    """Yields the first batches, all without a number; never endlessly many."""
    if isinstance(dataset, tuple | dict) or hasattr(dataset, "shape"):
        raise ValueError(
            "`dataset` must yield batches, got "
            f"{type(dataset).__name__}, which holds examples. Pass "
            "tf.data.Dataset.from_tensor_slices(x).batch(256)."
        )
    if steps is None:
        size = getattr(dataset, "cardinality", lambda: None)()
        if size is not None and int(size) == tf.data.INFINITE_CARDINALITY:
            raise ValueError(
                "`steps` must be given with a data set that has no end, got "
                "steps=None."
            )
        yield from dataset
        return
    steps = _check.integer("steps", steps, minimum=1)
    count = 0
    for batch in itertools.islice(dataset, steps):
        count += 1
        yield batch
    if count < steps:
        raise ValueError(
            f"`dataset` must have `steps` batches, got steps={steps} with "
            f"{count} batches. Ask for fewer, or repeat the data set."
        )


class RecalibrateBatchNorm(keras.callbacks.Callback):
    """Estimates the moving statistics before each validation, and at the end.

    It does so as `tf_gnc.recalibrate_batch_norm` does, at the clean weights.
    Training doesn't read the statistics and goes on as without the callback.
    Put it behind `keras.callbacks.SwapEMAWeights` in the list, so that a
    validation of the averages has their statistics.

    Args:
        dataset: Batches; those of each estimate are its first ones.
        steps: How many batches; None for all.

    Raises:
        ValueError: In `fit`, as for `recalibrate_batch_norm`.

    Example:
        >>> x, y = np.array([[0.0], [2.0]] * 8), np.ones((16, 1))
        >>> model = keras.Sequential(
        ...     [keras.Input((1,)), keras.layers.BatchNormalization()])
        >>> model.compile("sgd", "mse")
        >>> again = RecalibrateBatchNorm(tf.data.Dataset.from_tensors(x))
        >>> history = model.fit(x, y, callbacks=[again], verbose=0)
        >>> model.layers[0].moving_mean.numpy().tolist()
        [1.0]
    """

    backed_up = ()  # see tf_gnc.callbacks.callback_state

    def __init__(
        self, dataset: Iterable[Any], steps: int | None = None
    ) -> None:
        super().__init__()
        self.dataset, self.steps = dataset, steps
        self._statistics: BatchNormStatistics | None = None

    def on_train_begin(self, logs: dict | None = None) -> None:
        """Looks for batch normalization, before any step is taken."""
        self._statistics = BatchNormStatistics(self.model)

    def on_test_begin(self, logs: dict | None = None) -> None:
        """Estimates before a validation."""
        if self._statistics is not None:
            self._statistics.estimate(self.dataset, self.steps)

    def on_train_end(self, logs: dict | None = None) -> None:
        """Estimates for the weights that `fit` leaves."""
        self.on_test_begin()
        self._statistics = None
