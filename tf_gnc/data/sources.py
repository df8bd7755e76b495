"""What a run needs from any data set, and the data sets in memory."""

import dataclasses
from typing import Any, Protocol

import numpy as np
import tensorflow as tf

from tf_gnc.data import pipeline
from tf_gnc.data.preprocess import Preprocess

# Examples; any number gives the same result.
_EVALUATION_BATCH = 1000
_OWN_EVALUATION_BATCH = 500


class Source(Protocol):
    """Where a run's batches come from: `Images`, `ImageFiles`, `OwnData`."""

    @property
    def num_train(self) -> int:
        """How many examples there are to train on."""

    @property
    def num_classes(self) -> int:
        """Labels run from 0 to this number less one."""

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of one example."""

    def training(
        self,
        *,
        batch_size: int,
        seed: int,
        augment: bool = True,
        erasing: bool = True,
        rows: tuple[int, int] | None = None,
        first_step: int = 0,
        carry: bool = False,
    ) -> tf.data.Dataset:
        """Returns endless training batches, a function of (seed, step).

        The arguments are those of `tf_gnc.data.training_dataset`.
        `augment=False` only normalises; `erasing=False` leaves out random
        erasing. `carry` is given to a run with `remainder="carry"` alone.
        """

    def evaluation(self) -> tf.data.Dataset:
        """Returns every test example once, in order."""


@dataclasses.dataclass(frozen=True)
class Images:
    """A data set of pictures in memory.

    Args:
        train_images: uint8, `(n, height, width, channels)`, as `test_images`.
        train_labels: int64, `(n,)`, from 0 to `num_classes - 1`, as
            `test_labels`.
        num_classes: How many different labels there can be.
        preprocess: Augmentation and normalisation. Default: scale to 0..1.
    """

    train_images: np.ndarray
    train_labels: np.ndarray
    test_images: np.ndarray
    test_labels: np.ndarray
    num_classes: int
    preprocess: Preprocess = Preprocess()

    @property
    def num_train(self) -> int:
        """How many examples there are to train on."""
        return len(self.train_images)

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """Height, width and channels of a picture."""
        return self.train_images.shape[1:]

    def training(
        self, *, augment: bool = True, erasing: bool = True, **batches: Any
    ) -> tf.data.Dataset:
        """Returns endless training batches; see `Source` for its arguments."""
        return pipeline.training_dataset(
            self.train_images,
            self.train_labels,
            preprocess=self.preprocess.chosen(augment, erasing),
            **batches,
        )

    def evaluation(self) -> tf.data.Dataset:
        """Returns every test example once, in order."""
        return pipeline.evaluation_dataset(
            self.test_images,
            self.test_labels,
            _EVALUATION_BATCH,
            self.preprocess,
        )


@dataclasses.dataclass(frozen=True)
class OwnData:
    """The user's own arrays, in memory; nothing is augmented.

    Args:
        train: `(x, y)`, with n examples on axis 0 each, as `test`.
    """

    train: tuple[np.ndarray, np.ndarray]
    test: tuple[np.ndarray, np.ndarray]

    @property
    def num_train(self) -> int:
        """How many examples there are to train on."""
        return len(self.train[0])

    @property
    def num_classes(self) -> int:
        """One more than the largest label."""
        return 1 + int(max(self.train[1].max(), self.test[1].max()))

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of one example."""
        return self.train[0].shape[1:]

    def training(
        self, *, augment: bool = True, erasing: bool = True, **batches: Any
    ) -> tf.data.Dataset:
        """Returns endless training batches; see `Source` for its arguments."""
        del augment, erasing
        return pipeline.shuffled_arrays(*self.train, **batches)

    def evaluation(self) -> tf.data.Dataset:
        """Returns every test example once, in order."""
        dataset = tf.data.Dataset.from_tensor_slices(self.test)
        return dataset.batch(_OWN_EVALUATION_BATCH).prefetch(2)


def hold_out(source: Source, share: float, seed: int) -> Images | OwnData:
    """Returns a data set whose test examples are held out of the training set.

    To choose settings by: the accuracy on the real test examples would then
    no longer be that on examples that played no part.

    Args:
        source: A data set in memory; its own test examples aren't used.
        share: Of the training examples, above 0 and below 1; rounded, to one
            example at least.
        seed: Decides which.

    Raises:
        ValueError: If the data set isn't in memory, or nothing would be left.

    Example:
        >>> pictures = np.zeros((10, 1, 1, 1), np.uint8)
        >>> images = Images(
        ...     pictures, np.arange(10), pictures, np.zeros(10), 10)
        >>> held = hold_out(images, 0.2, seed=0)
        >>> held.num_train, len(held.test_images)
        (8, 2)
        >>> sorted([*held.train_labels, *held.test_labels]) == list(range(10))
        True
    """
    if not isinstance(source, Images | OwnData):
        raise ValueError(
            "`holdout` needs a data set in memory, got one that is read from "
            "its files. Use --holdout=0; the choice is then made on the test "
            "examples, so that their accuracy comes out too high."
        )
    size = source.num_train
    count = max(1, round(share * size))
    if count >= size:
        raise ValueError(
            "`holdout` must leave examples to train on, got "
            f"holdout={share:g} of {size} examples."
        )
    order = np.random.default_rng(seed).permutation(size)
    # In their old order, which the seed of a run shuffles anyway.
    test, train = np.sort(order[:count]), np.sort(order[count:])
    own = isinstance(source, OwnData)
    x, y = source.train if own else (source.train_images, source.train_labels)
    parts = x[train], y[train], x[test], y[test]
    if own:
        return OwnData(parts[:2], parts[2:])
    return Images(*parts, source.num_classes, source.preprocess)
