"""Data: sets of pictures, augmentation, and a pipeline that can be repeated.

A data set is a file in `sets/` and a line in `registry`; what such a file can
say is in `settings`. From its name to batches for `fit`:

    load         finds it in the registry and loads it
    prepared     what tensorflow-datasets has prepared on the disk
    sources      what a run asks of data; arrays in memory, part held out
    pipeline     batches of pictures in memory, a function of (seed, step)
    image_files  batches of pictures that stay in their files, as ImageNet's
    updates      how many batches a run has, and in which epoch they are
    shards       in which order files are read
    preprocess   what happens to a picture: augmentation, normalisation
    augment      the augmentations; _pixels and _random_bits do their work

Importing this package imports neither tensorflow-datasets nor scikit-learn.
"""

from tf_gnc.data.augment import random_crop, random_erasing, random_flip
from tf_gnc.data.image_files import ImageFiles
from tf_gnc.data.load import load
from tf_gnc.data.pipeline import (
    evaluation_dataset,
    steps_per_epoch,
    training_dataset,
)
from tf_gnc.data.prepared import DatasetNotFoundError
from tf_gnc.data.preprocess import Preprocess
from tf_gnc.data.registry import DATASETS
from tf_gnc.data.settings import DatasetDefaults, DatasetSettings
from tf_gnc.data.sources import Images, OwnData, Source, hold_out
from tf_gnc.data.updates import Updates

__all__ = [
    "DATASETS",
    "DatasetDefaults",
    "DatasetNotFoundError",
    "DatasetSettings",
    "ImageFiles",
    "Images",
    "OwnData",
    "Preprocess",
    "Source",
    "Updates",
    "evaluation_dataset",
    "hold_out",
    "load",
    "random_crop",
    "random_erasing",
    "random_flip",
    "steps_per_epoch",
    "training_dataset",
]
