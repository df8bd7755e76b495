"""Batches for `fit` from arrays in memory, repeatable by seed.

What a batch holds is a function of (seed, step) alone: not of the number of
threads, of how many processes read, or of whether the run began at step 0. No
Python runs inside the data sets, which stay deterministic under
`tf.config.experimental.enable_op_determinism()`.

Symbols   n      number of examples
          step   counts batches over the whole run, from 0
          epoch  counts passes over the data, from 0
          seeds  (m, 2): a number from (seed, epoch), and the example's index
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from tf_gnc import _check
from tf_gnc.data import _random_bits
from tf_gnc.data.preprocess import Preprocess

_ORDER, _EXAMPLE = 16, 17  # salts; augment.py has the smaller numbers

# Rows that one thread works on at a time. Measured: smaller pieces pay for
# TensorFlow's overhead, larger ones leave the processor's cache.
_CHUNK = 256


def steps_per_epoch(num_examples: int, batch_size: int) -> int:
    """Returns how many full batches one pass over the data gives.

    What is left is dropped, always another part of the data, unless it is
    carried over.

    Raises:
        ValueError: If the data do not fill a single batch.

    Example:
        >>> steps_per_epoch(50_000, 8192)
        6
    """
    num_examples = _check.integer("num_examples", num_examples, minimum=1)
    batch_size = _check.integer("batch_size", batch_size, minimum=1)
    if batch_size > num_examples:
        raise ValueError(
            "`batch_size` must not exceed the number of examples, got "
            f"batch_size={batch_size} with {num_examples} examples. Lower "
            "the batch size or bring more data."
        )
    return num_examples // batch_size


def training_dataset(
    images: np.ndarray,
    labels: np.ndarray,
    *,
    batch_size: int,
    seed: int,
    preprocess: Preprocess | None = None,
    rows: tuple[int, int] | None = None,
    first_step: int = 0,
    carry: bool = False,
) -> tf.data.Dataset:
    """Returns endless shuffled, augmented batches.

    Each epoch is a fresh permutation of the examples, a function of (seed,
    epoch), cut into `steps_per_epoch(n, batch_size)` batches. What augmentation
    does to an example is a function of (seed, epoch, example). With `carry`
    what is left of an epoch begins the next one's first batch.

    Args:
        images: uint8, `(n, height, width, channels)`; stays in memory.
        labels: Integers, `(n,)`.
        batch_size: Examples per global batch, at most n.
        seed: At least 0.
        preprocess: Augmentation and normalisation. Default: scale to 0..1.
        rows: `(a, b)` yields only rows a to b - 1 of each global batch, and
            reads and augments no others. Default: all rows.
        first_step: Starts with the batch of this step, without making those
            before it.
        carry: Leaves no example of an epoch out; see `tf_gnc.data.Updates`.

    Returns:
        An infinite dataset of (float32 images, labels), with static shapes
        `(b - a, height, width, channels)` and `(b - a,)`.

    Raises:
        ValueError: If the arrays do not match, or a number is out of range.

    Example:
        >>> images = np.zeros((5, 1, 1, 1), np.uint8)
        >>> dataset = training_dataset(
        ...     images, np.arange(5), batch_size=2, seed=0)
        >>> two_epochs = dataset.take(4).as_numpy_iterator()
        >>> [labels.tolist() for _, labels in two_epochs]
        [[4, 2], [3, 1], [1, 0], [2, 4]]
    """
    _check_arrays(images, labels)
    preprocess = preprocess or Preprocess()
    if preprocess.zoom:
        raise ValueError(
            "`preprocess` must have zoom=False for pictures in memory, which "
            "all have their final size, got zoom=True. Use padding=4 instead, "
            "or read from files with tf_gnc.data.ImageFiles."
        )
    return shuffled_arrays(
        images,
        labels,
        preprocess.training,
        batch_size=batch_size,
        seed=seed,
        rows=rows,
        first_step=first_step,
        carry=carry,
    )


def shuffled_arrays(
    x: np.ndarray,
    y: np.ndarray,
    augment: Callable[[tf.Tensor, tf.Tensor], tf.Tensor] | None = None,
    **batches: Any,
) -> tf.data.Dataset:
    """Returns endless batches of n examples; see `training_dataset`.

    `augment` makes of some examples, and their seeds, what a batch holds.
    """
    batches = check_batches(len(x), **batches)
    num_rows = batches.stop - batches.start
    with tf.device("CPU:0"):
        all_x, all_y = tf.constant(x), tf.constant(y)

    def epoch_seeds(epoch: tf.Tensor) -> tf.Tensor:
        seeds = example_seeds(batches.seed, epoch, len(x))
        skip = tf.where(epoch == batches.first_epoch, batches.skipped, 0)
        return seeds[skip : batches.used]

    def load(seeds: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        index = seeds[:, 1]
        chosen = tf.gather(all_x, index)
        if augment is not None:
            chosen = augment(chosen, seeds)
        return chosen, tf.gather(all_y, index)

    seeds = tf.data.Dataset.counter(batches.first_epoch).map(epoch_seeds)
    seeds = seeds.rebatch(batches.size, drop_remainder=True)
    seeds = seeds.map(lambda batch: batch[batches.start : batches.stop])
    # Chunks may span two steps and two epochs, since each row has its seed.
    chunks = seeds.rebatch(min(num_rows, _CHUNK), drop_remainder=True)
    dataset = chunks.map(load, tf.data.AUTOTUNE, deterministic=True)
    if num_rows > _CHUNK:
        dataset = dataset.rebatch(num_rows, drop_remainder=True)
    return endless(dataset).prefetch(2)


def endless(dataset: tf.data.Dataset) -> tf.data.Dataset:
    """Marks a data set as endless, which TensorFlow no longer knows.

    Several processes would have to agree before each step that it goes on.
    """
    return dataset.apply(
        tf.data.experimental.assert_cardinality(tf.data.INFINITE_CARDINALITY)
    )


def evaluation_dataset(
    images: np.ndarray,
    labels: np.ndarray,
    batch_size: int,
    preprocess: Preprocess | None = None,
) -> tf.data.Dataset:
    """Returns every example once, in order, normalised, not augmented.

    Args:
        images: uint8, `(n, height, width, channels)`; stays in memory.
        labels: Integers, `(n,)`.
        batch_size: Examples per batch; the last one holds what is left.
        preprocess: Normalisation; its augmentation plays no part here.
            Default: scale to 0..1.

    Returns:
        A finite dataset of (float32 images, labels).

    Raises:
        ValueError: If the arrays do not match, or `batch_size` is below 1.

    Example:
        >>> images = np.zeros((5, 1, 1, 1), np.uint8)
        >>> dataset = evaluation_dataset(images, np.arange(5), batch_size=2)
        >>> [labels.tolist() for _, labels in dataset.as_numpy_iterator()]
        [[0, 1], [2, 3], [4]]
    """
    _check_arrays(images, labels)
    batch_size = _check.integer("batch_size", batch_size, minimum=1)
    preprocess = preprocess or Preprocess()
    with tf.device("CPU:0"):
        all_images, all_labels = tf.constant(images), tf.constant(labels)

    def load(start: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        stop = tf.minimum(start + batch_size, len(images))
        # Gathered: TensorFlow warns of slices that are cut anew, by `rebatch`.
        return (
            preprocess.evaluation(all_images[start:stop]),
            tf.gather(all_labels, tf.range(start, stop)),
        )

    dataset = tf.data.Dataset.range(0, len(images), batch_size)
    dataset = dataset.map(load, tf.data.AUTOTUNE, deterministic=True)
    return dataset.prefetch(2)


def example_seeds(
    seed: int, epoch: int | tf.Tensor, num_examples: int
) -> tf.Tensor:
    """Returns the examples of an epoch in their order, each with its seed.

    int64, `(num_examples, 2)`: column 1 is the example's index, a random
    permutation; the whole row is the seed of its augmentation.
    """
    both = tf.stack([tf.cast(seed, tf.int64), tf.cast(epoch, tf.int64)])
    order = _random_bits.permutation(both, _ORDER, num_examples)
    salted = _random_bits.random_bits(both[None], _EXAMPLE, 1)[0]
    first = tf.repeat(tf.bitcast(salted, tf.int64), num_examples)
    return tf.stack([first, tf.cast(order, tf.int64)], axis=1)


def _check_arrays(images: np.ndarray, labels: np.ndarray) -> None:
    if images.dtype != np.uint8 or images.ndim != 4:
        raise ValueError(
            "`images` must be uint8 of shape (n, height, width, channels), "
            f"got {images.dtype} of shape {images.shape}. Bytes keep the data "
            "small; the pipeline turns them into floats."
        )
    if labels.dtype.kind not in "iu" or labels.shape != images.shape[:1]:
        raise ValueError(
            "`labels` must hold one integer for each picture, got "
            f"{labels.dtype} of shape {labels.shape} for {len(images)} "
            "pictures."
        )


class Batches(NamedTuple):
    """Which rows of which batches; what `check_batches` has found legal."""

    size: int
    seed: int
    start: int
    stop: int
    first_step: int
    used: int  # examples of each epoch
    carry: bool

    @property
    def first_epoch(self) -> int:
        """The epoch of the first step's first example."""
        return self.first_step * self.size // self.used

    @property
    def skipped(self) -> int:
        """Examples of that epoch before the first step."""
        return self.first_step * self.size % self.used


def check_batches(
    num_examples: int,
    *,
    batch_size: int,
    seed: int,
    rows: tuple[int, int] | None = None,
    first_step: int = 0,
    carry: bool = False,
) -> Batches:
    """Checks what `training_dataset` and others are given by these names."""
    per_epoch = steps_per_epoch(num_examples, batch_size)
    seed = _check.integer("seed", seed, minimum=0, maximum=2**63 - 1)
    first_step = _check.integer("first_step", first_step, minimum=0)
    start, stop = map(int, rows or (0, batch_size))
    if not 0 <= start < stop <= batch_size:
        raise ValueError(
            "`rows` must be (a, b) with 0 <= a < b <= batch_size, got "
            f"rows=({start}, {stop}) with batch_size={batch_size}."
        )
    used = num_examples if carry else per_epoch * batch_size
    return Batches(batch_size, seed, start, stop, first_step, used, carry)
