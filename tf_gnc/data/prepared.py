"""Data sets that tensorflow-datasets prepared: found, and read.

Nothing here reaches for the network unless asked to: left alone,
tensorflow-datasets tries for minutes before it admits that there is none. It
and pyarrow are imported on first use, since they are slow to import.
"""

import os
from typing import TYPE_CHECKING

import numpy as np
import tensorflow as tf

from tf_gnc.data.image_files import ImageFiles
from tf_gnc.data.preprocess import Preprocess
from tf_gnc.data.shards import Records
from tf_gnc.data.sources import Images

if TYPE_CHECKING:
    import tensorflow_datasets as tfds


class DatasetNotFoundError(FileNotFoundError):
    """A data set has not been prepared, and downloads are not allowed."""


def load_images(
    name: str, data_dir: str, download: bool, preprocess: Preprocess
) -> Images:
    """Returns a data set of pictures, read into memory; see `load`."""
    return read_images(locate(name, data_dir, download), preprocess)


def locate(
    name: str, data_dir: str, download: bool, how: str | None = None
) -> str:
    """Returns the directory of a data set, which is prepared if need be.

    `how` is what the user can do to have it, for the error's text.
    """
    directory = find_prepared(name, data_dir)
    if directory is not None:
        return directory
    if download:
        return _download(name, data_dir)
    call = f"tfds.load({name!r}, data_dir={data_dir!r})"
    how = how or (
        "allow the download with download=True (--download), or run: "
        f'python -c "import tensorflow_datasets as tfds; {call}"'
    )
    raise DatasetNotFoundError(
        f"The data set {name!r} is not prepared: no dataset_info.json under "
        f"{os.path.join(data_dir, name)}/<version>/. Point data_dir "
        f"(--data_dir) to where it is, or {how}"
    )


def find_prepared(name: str, data_dir: str | os.PathLike) -> str | None:
    """Returns the directory of the newest prepared version, or None.

    Looks at the files alone, so that the answer comes at once. `data_dir` may
    be a `gs://` address: TensorFlow reads it itself. Of another kind, which it
    doesn't know, a ValueError says so.
    """
    parent = os.path.join(os.fspath(data_dir), name)
    scheme = parent.partition("://")[0] if "://" in parent else ""
    known = tf.io.gfile.get_registered_schemes()
    if scheme not in ("", *known):
        raise ValueError(
            "`data_dir` must be where TensorFlow can read, a local directory "
            f"or gs://, got data_dir={os.fspath(data_dir)!r}. Copy the data "
            "set to one of these (--data_dir)."
        )
    if not tf.io.gfile.isdir(parent):
        return None
    versions = {}
    for entry in tf.io.gfile.listdir(parent):
        path = os.path.join(parent, entry.rstrip("/"))
        numbers = os.path.basename(path).split(".")
        # tensorflow-datasets writes dataset_info.json last.
        complete = tf.io.gfile.exists(os.path.join(path, "dataset_info.json"))
        if complete and all(number.isdigit() for number in numbers):
            versions[tuple(map(int, numbers))] = path
    return versions[max(versions)] if versions else None


def read_images(directory: str, preprocess: Preprocess) -> Images:
    """Returns a directory's splits "train" and "test", read into memory."""
    import tensorflow_datasets as tfds

    builder = tfds.builder_from_directory(directory)
    return Images(
        *_read_split(builder, "train"),
        *_read_split(builder, "test"),
        num_classes=builder.info.features["label"].num_classes,
        preprocess=preprocess,
    )


def read_files(
    directory: str, preprocess: Preprocess, image_size: int, test: str
) -> ImageFiles:
    """Returns a data set whose pictures stay in their files; reads none.

    `test` is the split to test on.
    """
    import tensorflow_datasets as tfds

    builder = tfds.builder_from_directory(directory)
    return ImageFiles(
        _find_records(builder, "train"),
        _find_records(builder, test),
        num_classes=builder.info.features["label"].num_classes,
        preprocess=preprocess,
        image_size=image_size,
    )


def _download(name: str, data_dir: str) -> str:
    import tensorflow_datasets as tfds

    builder = tfds.builder(name, data_dir=data_dir)
    builder.download_and_prepare()
    return os.fspath(builder.data_path)


def _find_records(builder: "tfds.core.DatasetBuilder", split: str) -> Records:
    """Returns where a split's records are."""
    import tensorflow_datasets as tfds

    directory = os.fspath(builder.data_path)
    if builder.info.file_format != tfds.core.FileFormat.TFRECORD:
        raise ValueError(
            f"{directory!r} must hold TFRecord files, got file_format="
            f"{builder.info.file_format.value!r}, which tf.data can't read. "
            f"Run: tfds convert_format --dataset_version_dir={directory} "
            "--out_file_format=tfrecord --out_dir=<other data_dir>/"
            f"{builder.name}/{builder.version}"
        )
    info = builder.info.splits[split]
    there = set(tf.io.gfile.listdir(directory))
    missing = [path.name for path in info.filepaths if path.name not in there]
    if missing:
        raise DatasetNotFoundError(
            f"{directory!r} lacks {len(missing)} of the {len(info.filepaths)} "
            f"files of the split {split!r}, {missing[0]} first. Copy them "
            "again, or delete the directory and prepare it again."
        )
    decoders = {"image": tfds.decode.SkipDecoding()}

    def parse(raw: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        example = builder.info.features.deserialize_example(
            raw, decoders=decoders
        )
        return example["image"], example["label"]

    paths = tuple(map(os.fspath, info.filepaths))
    return Records(paths, tuple(info.shard_lengths), parse)


def _read_split(
    builder: "tfds.core.DatasetBuilder", split: str
) -> tuple[np.ndarray, np.ndarray]:
    """Returns all images and labels of a split, in the order of its files."""
    import tensorflow_datasets as tfds

    if builder.info.file_format == tfds.core.FileFormat.PARQUET:
        dataset = _parquet_examples(builder, split)
    else:
        # A cycle of one file at a time keeps the files' order.
        dataset = builder.as_dataset(
            split=split,
            shuffle_files=False,
            read_config=tfds.ReadConfig(interleave_cycle_length=1),
        )
    dataset = dataset.map(lambda example: (example["image"], example["label"]))
    batches = list(dataset.batch(1024).as_numpy_iterator())
    images, labels = map(np.concatenate, zip(*batches, strict=True))
    promised = builder.info.splits[split].num_examples
    if len(images) != promised:
        raise ValueError(
            f"The split {split!r} in {os.fspath(builder.data_path)!r} holds "
            f"{len(images)} examples but dataset_info.json says "
            f"{promised}. Delete the directory and prepare it again."
        )
    return images, labels


def _parquet_examples(
    builder: "tfds.core.DatasetBuilder", split: str
) -> tf.data.Dataset:
    """Returns the decoded examples of a split that is stored as Parquet.

    Whole columns at a time, decoded in parallel: in a quarter of the time that
    tensorflow-datasets 4.9 takes (CIFAR-10: 5 seconds).
    """
    import pyarrow.parquet

    columns = []
    for path in builder.info.splits[split].filepaths:
        with path.open("rb") as file:
            table = pyarrow.parquet.read_table(file)
        if table.column_names != ["data"]:
            return builder.as_dataset(split=split, shuffle_files=False)
        columns.append(table["data"].to_numpy())
    examples = tf.data.Dataset.from_tensor_slices(np.concatenate(columns))
    decode = builder.info.features.deserialize_example
    return examples.map(decode, tf.data.AUTOTUNE, deterministic=True)
