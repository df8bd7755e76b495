import time

import numpy as np
import pyarrow.parquet
import pytest
import tensorflow as tf
import tensorflow_datasets as tfds

from tf_gnc.data import DatasetNotFoundError, load, prepared

# tensorflow-datasets 4.9.10 loses examples when it writes more than 100 of
# them as Parquet.
NUM_TRAIN = {"tfrecord": 300, "parquet": 100}


def write_cifar(data_dir, num_train, file_format, version="3.0.2"):
    """Prepares a tiny CIFAR-10 whose pictures say their number and label."""
    splits = {}
    for split, num in (("train", num_train), ("test", 10)):
        images = np.zeros((num, 32, 32, 3), np.uint8)
        labels = np.arange(num) % 10
        images[:, 0, 0, 0] = np.arange(num) % 256
        images[:, 0, 1, 1] = np.arange(num) // 256
        images[:, 31, 31, 2] = labels
        splits[split] = tf.data.Dataset.from_tensor_slices(
            {"image": images, "label": labels}
        )
    tfds.dataset_builders.TfDataBuilder(
        name="cifar10",
        version=version,
        features=tfds.features.FeaturesDict(
            {
                "image": tfds.features.Image(shape=(32, 32, 3)),
                "label": tfds.features.ClassLabel(num_classes=10),
            }
        ),
        split_datasets=splits,
        data_dir=data_dir,
        file_format=file_format,
    ).download_and_prepare()


@pytest.mark.parametrize("file_format", ["tfrecord", "parquet"])
def test_load__tiny_cifar10__every_example_once_with_its_label(
    tmp_path, file_format
):
    write_cifar(tmp_path, NUM_TRAIN[file_format], file_format)
    got = load("cifar10", tmp_path)
    images = got.train_images.astype(int)
    numbers = images[:, 0, 0, 0] + 256 * images[:, 0, 1, 1]
    assert sorted(numbers) == list(range(NUM_TRAIN[file_format]))
    np.testing.assert_array_equal(got.train_labels, numbers % 10)
    np.testing.assert_array_equal(images[:, 31, 31, 2], got.train_labels)
    assert got.test_images.shape == (10, 32, 32, 3)
    assert got.num_classes == 10


@pytest.mark.parametrize("file_format", ["tfrecord", "parquet"])
def test_load__tiny_cifar10__keeps_the_order_of_tfds(tmp_path, file_format):
    write_cifar(tmp_path, NUM_TRAIN[file_format], file_format)
    builder = tfds.builder_from_directory(tmp_path / "cifar10" / "3.0.2")
    want = [e["image"] for e in tfds.as_numpy(builder.as_dataset("train"))]
    got = load("cifar10", tmp_path)
    np.testing.assert_array_equal(got.train_images, want)


def test_load__files_with_examples_missing__error_names_both(tmp_path):
    write_cifar(tmp_path, 100, "parquet")
    directory = tmp_path / "cifar10" / "3.0.2"
    file = directory / "cifar10-train.parquet-00000-of-00001"
    table = pyarrow.parquet.read_table(file)
    pyarrow.parquet.write_table(table.slice(0, 90), file)
    with pytest.raises(ValueError, match="holds 90 examples .* says 100"):
        load("cifar10", tmp_path)


def test_find_prepared__several_versions__takes_the_newest(tmp_path):
    for version in ("3.0.2", "3.0.10", "not_a_version"):
        directory = tmp_path / "cifar10" / version
        directory.mkdir(parents=True)
        (directory / "dataset_info.json").write_text("{}")
    (tmp_path / "cifar10" / "4.0.0").mkdir()  # never completed
    found = prepared.find_prepared("cifar10", tmp_path)
    assert found == str(tmp_path / "cifar10" / "3.0.10")


@pytest.mark.parametrize("name", ["cifar10", "cifar100"])
def test_load__not_prepared__error_says_how_to_at_once(tmp_path, name):
    start = time.perf_counter()
    with pytest.raises(DatasetNotFoundError) as caught:
        load(name, tmp_path)
    assert time.perf_counter() - start < 5
    message = str(caught.value)
    assert "\n" not in message
    assert f"tfds.load({name!r}, data_dir={str(tmp_path)!r})" in message
    assert "download=True (--download)" in message


def test_load__unknown_name__error_lists_the_known():
    with pytest.raises(ValueError, match="'digits', .*, 'imagenet2012', got"):
        load("mnist")
