"""Data: sets of pictures, augmentation, and a pipeline that can be repeated.

Importing this package imports neither tensorflow-datasets nor scikit-learn.
"""

from tf_gnc.data.augment import random_crop, random_erasing, random_flip
from tf_gnc.data.imagenet import ImageNet
from tf_gnc.data.load import DatasetNotFoundError, load
from tf_gnc.data.pipeline import (
    evaluation_dataset,
    steps_per_epoch,
    training_dataset,
)
from tf_gnc.data.preprocess import Preprocess
from tf_gnc.data.registry import DATASETS, DatasetSettings
from tf_gnc.data.sources import Images, OwnData, Source, hold_out

__all__ = [
    "DATASETS",
    "DatasetNotFoundError",
    "DatasetSettings",
    "ImageNet",
    "Images",
    "OwnData",
    "Preprocess",
    "Source",
    "evaluation_dataset",
    "hold_out",
    "load",
    "random_crop",
    "random_erasing",
    "random_flip",
    "steps_per_epoch",
    "training_dataset",
]
