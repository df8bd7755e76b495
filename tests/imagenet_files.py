"""Tiny data sets with ImageNet's name, schema and files, made by tfds."""

import dataclasses

import numpy as np
import tensorflow as tf
import tensorflow_datasets as tfds

from tf_gnc import data

NUM_TRAIN, NUM_TEST, NUM_FILES = 61, 10, 4


def picture(number):
    """A smooth picture of a size of its own; lies or stands."""
    height, width = 24 + number % 17, 24 + number % 23
    rows, columns = np.mgrid[:height, :width]
    levels = [5 * rows, 5 * columns, 4 * number + rows - columns]
    return np.clip(np.stack(levels, axis=2), 0, 255).astype(np.uint8)


def label(number):
    """Another one for each number."""
    return 7 * number % 1000


def jpeg(number):
    """The picture, encoded so that a part is decoded as the whole would be.

    Of colours at half resolution, pixels at the rim depend on those beyond.
    """
    return tf.io.encode_jpeg(picture(number), chroma_downsampling=False)


def write(data_dir, **options):
    """Prepares the data set; returns its directory."""
    splits = {}
    for split, num in (("train", NUM_TRAIN), ("validation", NUM_TEST)):
        examples = {
            "image": [jpeg(i).numpy() for i in range(num)],
            "label": [label(i) for i in range(num)],
            "file_name": [f"{split}_{i}.JPEG" for i in range(num)],
        }
        splits[split] = tf.data.Dataset.from_tensor_slices(examples)
    builder = tfds.dataset_builders.TfDataBuilder(
        name="imagenet2012",
        version="5.1.0",
        features=tfds.features.FeaturesDict(
            {
                "image": tfds.features.Image(encoding_format="jpeg"),
                "label": tfds.features.ClassLabel(num_classes=1000),
                "file_name": tfds.features.Text(),
            }
        ),
        split_datasets=splits,
        data_dir=data_dir,
        **options,
    )
    builder.download_and_prepare(
        download_config=tfds.download.DownloadConfig(num_shards=NUM_FILES)
    )
    return builder.data_path


def load(data_dir):
    """The same, as the package reads it."""
    write(data_dir)
    return data.load("imagenet2012", data_dir)


def resized(source, image_size):
    """The data set, its pictures scaled to another size."""
    return dataclasses.replace(source, image_size=image_size)
