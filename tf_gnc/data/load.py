"""Finds a data set by name, and reads it into arrays if it fits.

Everything comes from a directory that tensorflow-datasets prepared. This file
never reaches for the network unless asked to: left alone, tensorflow-datasets
tries for minutes before it admits that there is none. It knows nothing of
augmentation or of batches.

tensorflow-datasets, pyarrow and scikit-learn are imported on first use,
since they make `import tf_gnc` slow for those who bring their own data.
"""

import contextlib
import io
import os
import pathlib
import shlex
import shutil
import tempfile
from typing import TYPE_CHECKING

import numpy as np
import tensorflow as tf

from tf_gnc import _check
from tf_gnc.data.imagenet import ImageNet
from tf_gnc.data.registry import DATASETS
from tf_gnc.data.shards import Records
from tf_gnc.data.sources import Images

if TYPE_CHECKING:
    import tensorflow_datasets as tfds


_ARCHIVES = ("ILSVRC2012_img_train.tar", "ILSVRC2012_img_val.tar")


class DatasetNotFoundError(FileNotFoundError):
    """A data set has not been prepared, and nobody allowed a download."""


def load(
    name: str,
    data_dir: str | os.PathLike | None = None,
    download: bool = False,
) -> Images | ImageNet:
    """Returns a data set: arrays in memory, or ImageNet in its files.

    The digits need no download: they are prepared on the spot if need be. The
    others must have been prepared by tensorflow-datasets, for ImageNet as
    TFRecord files.

    Args:
        name: 'digits', 'cifar10', 'cifar100' or 'imagenet2012'.
        data_dir: Where prepared data sets lie. Default: where
            tensorflow-datasets keeps them, `~/tensorflow_datasets` or
            `$TFDS_DATA_DIR`.
        download: Whether to download and prepare what is missing. Nobody may
            download ImageNet for you; once its archives are there, this
            prepares them.

    Raises:
        DatasetNotFoundError: If the data set is not there and `download` is
            false.
        OSError: If the digits cannot be written to `data_dir`.
        ValueError: If there is no data set of that name, or ImageNet is
            there in another form.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as data_dir:
        ...     digits = load("digits", data_dir)
        >>> digits.train_images.shape, digits.test_labels[:5].tolist()
        ((1437, 8, 8, 1), [0, 5, 0, 5, 0])
    """
    name = _check.choice("name", name, DATASETS)
    download = _check.boolean("download", download)
    if data_dir is None:
        import tensorflow_datasets as tfds

        data_dir = tfds.core.constants.DATA_DIR
    data_dir = os.path.expanduser(os.fspath(data_dir))
    directory = find_prepared(name, data_dir)
    if directory is None and name == "digits":
        directory = _prepare_digits(data_dir)
    elif directory is None and download and not _missing(name, data_dir):
        directory = _download(name, data_dir)
    elif directory is None:
        raise DatasetNotFoundError(_how_to_prepare(name, data_dir))
    return _read(name, directory)


def find_prepared(name: str, data_dir: str | os.PathLike) -> str | None:
    """Returns the directory of the newest prepared version, or None.

    Looks at the files alone, so that the answer comes at once.

    Args:
        name: A data set without a configuration of its own, e.g. 'cifar10'.
        data_dir: Where prepared data sets lie; may be a `gs://` address.
    """
    parent = os.path.join(os.fspath(data_dir), name)
    if not tf.io.gfile.isdir(parent):
        return None
    versions = {}
    for entry in tf.io.gfile.listdir(parent):
        numbers = entry.rstrip("/").split(".")
        path = os.path.join(parent, entry.rstrip("/"))
        # tensorflow-datasets writes dataset_info.json last.
        complete = tf.io.gfile.exists(os.path.join(path, "dataset_info.json"))
        if complete and all(number.isdigit() for number in numbers):
            versions[tuple(map(int, numbers))] = path
    return versions[max(versions)] if versions else None


def _missing(name: str, data_dir: str) -> list[str]:
    """Returns the archives that must be there before tfds can prepare."""
    if name != "imagenet2012":
        return []
    paths = [os.path.join(_manual_dir(data_dir), file) for file in _ARCHIVES]
    return [path for path in paths if not tf.io.gfile.exists(path)]


def _manual_dir(data_dir: str) -> str:
    return os.path.join(data_dir, "downloads", "manual")


def _how_to_prepare(name: str, data_dir: str) -> str:
    where = (
        f"The data set {name!r} is not prepared: no dataset_info.json under "
        f"{os.path.join(data_dir, name)}/<version>/. Point data_dir "
        "(--data_dir) to where it is, or "
    )
    if name == "imagenet2012":
        return (
            f"{where}prepare it: (1) register at https://image-net.org and "
            f"download {' and '.join(_ARCHIVES)} (138 and 6.3 GB) yourself, "
            f"since no program may; (2) move both to {_manual_dir(data_dir)}; "
            f"(3) run: tfds build {name} --data_dir={shlex.quote(data_dir)} "
            "(it takes hours, and as much disk again), or give download=True "
            "(--download), which does the same."
        )
    call = f"tfds.load({name!r}, data_dir={data_dir!r})"
    return (
        f"{where}allow the download with download=True (--download), or run: "
        f'python -c "import tensorflow_datasets as tfds; {call}"'
    )


def _download(name: str, data_dir: str) -> str:
    import tensorflow_datasets as tfds

    builder = tfds.builder(name, data_dir=data_dir)
    builder.download_and_prepare()
    return os.fspath(builder.data_path)


def _prepare_digits(data_dir: str) -> str:
    """Prepares the digits under `data_dir` and returns their directory.

    Several processes may do so at once: each works in a directory of its own,
    and the one that is first to move its work into place has won.
    """
    from tf_gnc.data.digits import digits_dataset_builder

    try:
        os.makedirs(data_dir, exist_ok=True)
        private = tempfile.mkdtemp(prefix=".digits-", dir=data_dir)
    except OSError as error:
        raise OSError(
            f"Cannot prepare the data set 'digits' in data_dir={data_dir!r}: "
            f"{error}. Give a data_dir (--data_dir) that you may write to."
        ) from error
    try:
        builder = digits_dataset_builder.Builder(data_dir=private)
        # Its messages name the private directory and a download.
        silence = io.StringIO()
        with (
            contextlib.redirect_stdout(silence),
            contextlib.redirect_stderr(silence),
        ):
            builder.download_and_prepare()
        made = pathlib.Path(builder.data_path)
        place = pathlib.Path(data_dir, *made.relative_to(private).parts)
        place.parent.mkdir(exist_ok=True)
        try:
            made.rename(place)
        except OSError:
            if find_prepared("digits", data_dir) is None:
                raise
    finally:
        shutil.rmtree(private, ignore_errors=True)
    return os.fspath(place)


def _read(name: str, directory: str) -> Images | ImageNet:
    import tensorflow_datasets as tfds

    builder = tfds.builder_from_directory(directory)
    num_classes = builder.info.features["label"].num_classes
    if not DATASETS[name].in_memory:
        train = _find_records(builder, "train")
        test = _find_records(builder, "validation")
        return ImageNet(train, test, num_classes)
    train_images, train_labels = _read_split(builder, "train")
    test_images, test_labels = _read_split(builder, "test")
    return Images(
        name=name,
        train_images=train_images,
        train_labels=train_labels,
        test_images=test_images,
        test_labels=test_labels,
        num_classes=num_classes,
    )


def _find_records(builder: "tfds.core.DatasetBuilder", split: str) -> Records:
    """Returns a split that stays in its files; reads none of them."""
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

    paths = tuple(os.fspath(path) for path in info.filepaths)
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
            f"{len(images)} examples where dataset_info.json promises "
            f"{promised}. Delete the directory and prepare it again."
        )
    return images, labels


def _parquet_examples(
    builder: "tfds.core.DatasetBuilder", split: str
) -> tf.data.Dataset:
    """Returns the decoded examples of a split that is stored as Parquet.

    tensorflow-datasets 4.9 reads Parquet through a Python generator, one
    example at a time. Reading whole columns and decoding in parallel takes
    less than a quarter of the time (CIFAR-10: 5 seconds).
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
