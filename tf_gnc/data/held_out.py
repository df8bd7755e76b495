"""Part of the training examples, held out to choose settings on.

What is chosen by test accuracy flatters it: then the test examples have had a
say. Knows nothing of what is chosen.
"""

import dataclasses

import numpy as np

from tf_gnc import data
from tf_gnc.experiments.user_code import OwnData

Source = data.Images | OwnData


def hold_out(source: data.Source, share: float, seed: int) -> Source:
    """Returns a data set whose test examples are some of those to train on.

    Args:
        source: A data set in memory; its own test examples play no part.
        share: Of the training examples, above 0 and below 1; rounded, to one
            example at least.
        seed: Decides which.

    Raises:
        ValueError: If the data set isn't in memory, or nothing would be left.

    Example:
        >>> pictures = np.zeros((10, 1, 1, 1), np.uint8)
        >>> images = data.Images(
        ...     "digits", pictures, np.arange(10), pictures, np.zeros(10), 10)
        >>> held = hold_out(images, 0.2, seed=0)
        >>> held.num_train, len(held.test_images)
        (8, 2)
        >>> sorted([*held.train_labels, *held.test_labels]) == list(range(10))
        True
    """
    if not isinstance(source, data.Images | OwnData):
        raise ValueError(
            "`holdout` needs a data set in memory, got one that is read from "
            "its files. Use --holdout=0, and mind that the choice is then "
            "made on the test examples, whose accuracy it flatters."
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
    if isinstance(source, OwnData):
        x, y = source.train
        return dataclasses.replace(
            source, train=(x[train], y[train]), test=(x[test], y[test])
        )
    images, labels = source.train_images, source.train_labels
    return dataclasses.replace(
        source,
        train_images=images[train],
        train_labels=labels[train],
        test_images=images[test],
        test_labels=labels[test],
    )
