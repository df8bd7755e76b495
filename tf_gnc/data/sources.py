"""A data set of pictures in memory, and what a run asks of any data set."""

import dataclasses
from typing import Protocol

import numpy as np
import tensorflow as tf

from tf_gnc.data import pipeline
from tf_gnc.data.registry import DATASETS

_EVALUATION_BATCH = 1000  # Examples; any number gives the same result.


class Source(Protocol):
    """Where a run's batches come from: `Images` or `ImageNet`."""

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
    ) -> tf.data.Dataset:
        """Returns endless training batches, a function of (seed, step).

        Args:
            batch_size: Examples per global batch.
            seed: Decides the order and the augmentation.
            augment: Whether to augment, or only normalise.
            erasing: Whether random erasing is part of it, where the data set
                has it.
            rows: `(a, b)`: only rows a to b - 1 of each global batch.
            first_step: Starts with the batch of this step.
        """

    def evaluation(self) -> tf.data.Dataset:
        """Returns every test example once, in order."""


@dataclasses.dataclass(frozen=True)
class Images:
    """A data set of pictures in memory.

    Args:
        name: The data set's name in the registry.
        train_images: uint8, `(n, height, width, channels)`.
        train_labels: int64, `(n,)`, from 0 to `num_classes - 1`.
        test_images: As `train_images`.
        test_labels: As `train_labels`.
        num_classes: How many different labels there can be.
    """

    name: str
    train_images: np.ndarray
    train_labels: np.ndarray
    test_images: np.ndarray
    test_labels: np.ndarray
    num_classes: int

    @property
    def num_train(self) -> int:
        """How many examples there are to train on."""
        return len(self.train_images)

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """Height, width and channels of a picture."""
        return self.train_images.shape[1:]

    def training(
        self,
        *,
        batch_size: int,
        seed: int,
        augment: bool = True,
        erasing: bool = True,
        rows: tuple[int, int] | None = None,
        first_step: int = 0,
    ) -> tf.data.Dataset:
        """Returns endless training batches; see `training_dataset`."""
        preprocess = DATASETS[self.name].preprocess
        if not augment:
            preprocess = preprocess.without_augmentation()
        if not erasing:
            preprocess = preprocess.without_erasing()
        return pipeline.training_dataset(
            self.train_images,
            self.train_labels,
            batch_size=batch_size,
            seed=seed,
            preprocess=preprocess,
            rows=rows,
            first_step=first_step,
        )

    def evaluation(self) -> tf.data.Dataset:
        """Returns every test example once, in order."""
        return pipeline.evaluation_dataset(
            self.test_images,
            self.test_labels,
            batch_size=_EVALUATION_BATCH,
            preprocess=DATASETS[self.name].preprocess,
        )
