import multiprocessing
import os
import time

import numpy as np
import pyarrow.parquet
import pytest
import sklearn.datasets
import tensorflow as tf
import tensorflow_datasets as tfds

from tf_gnc.data import DATASETS, DatasetNotFoundError, load

# tensorflow-datasets 4.9.10 loses examples when it writes more than 100 of
# them as Parquet.
NUM_TRAIN = {"tfrecord": 300, "parquet": 100}


@pytest.fixture(scope="module")
def digits_dir(tmp_path_factory):
    directory = tmp_path_factory.mktemp("digits")
    load.load("digits", directory)
    return directory


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


def test_load__digits__hold_scikit_learns_scans(digits_dir):
    got = load.load("digits", digits_dir)
    scans = sklearn.datasets.load_digits()
    test = np.arange(1797) % 5 == 0
    assert len(got.train_images) == 1437 and len(got.test_images) == 360
    np.testing.assert_array_equal(got.train_labels, scans.target[~test])
    np.testing.assert_array_equal(got.test_labels, scans.target[test])
    pixels = np.concatenate([got.train_images, got.test_images])[..., 0]
    want = np.concatenate([scans.images[~test], scans.images[test]])
    # A unit of ink is 16 bytes, so that rounding loses nothing.
    np.testing.assert_array_equal((pixels * (16 / 255)).round(), want)


def test_load__digits__settings_say_what_they_are(digits_dir):
    got, settings = load.load("digits", digits_dir), DATASETS["digits"]
    assert got.train_images.shape[1:] == settings.input_shape
    assert got.train_images.dtype == np.uint8
    assert got.train_labels.dtype == np.int64
    assert got.num_classes == settings.num_classes == 10
    # The settings have two decimals.
    assert abs(got.train_images.mean() - settings.preprocess.mean) <= 0.005
    assert abs(got.train_images.std() - settings.preprocess.stddev) <= 0.005


def test_load__digits_again__reads_what_is_there(digits_dir):
    path = digits_dir / "digits" / "1.0.0" / "dataset_info.json"
    before = path.stat().st_mtime_ns
    load.load("digits", digits_dir)
    assert path.stat().st_mtime_ns == before


def prepare(data_dir, barrier, results):
    barrier.wait()
    results.put(len(load.load("digits", data_dir).train_images))


def test_load__digits_from_two_processes_at_once__both_succeed(tmp_path):
    context = multiprocessing.get_context("spawn")
    barrier, results = context.Barrier(2), context.Queue()
    arguments = (tmp_path, barrier, results)
    other = context.Process(target=prepare, args=arguments)
    other.start()
    prepare(*arguments)
    other.join(timeout=120)
    assert other.exitcode == 0
    assert [results.get(timeout=5) for _ in range(2)] == [1437, 1437]
    assert os.listdir(tmp_path) == ["digits"]


def test_prepare_digits__somebody_was_first__takes_what_is_there(digits_dir):
    directory = load._prepare_digits(os.fspath(digits_dir))
    assert directory == load.find_prepared("digits", digits_dir)
    assert os.listdir(digits_dir) == ["digits"]


def test_load__digits_where_nobody_may_write__error_names_data_dir(tmp_path):
    (tmp_path / "file").write_text("")
    data_dir = tmp_path / "file" / "below"
    with pytest.raises(OSError, match=r"data_dir='.*below'.*may write to"):
        load.load("digits", data_dir)


@pytest.mark.parametrize("file_format", ["tfrecord", "parquet"])
def test_load__tiny_cifar10__every_example_once_with_its_label(
    tmp_path, file_format
):
    write_cifar(tmp_path, NUM_TRAIN[file_format], file_format)
    got = load.load("cifar10", tmp_path)
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
    got = load.load("cifar10", tmp_path)
    np.testing.assert_array_equal(got.train_images, want)


def test_load__files_with_examples_missing__error_names_both(tmp_path):
    write_cifar(tmp_path, 100, "parquet")
    directory = tmp_path / "cifar10" / "3.0.2"
    file = directory / "cifar10-train.parquet-00000-of-00001"
    table = pyarrow.parquet.read_table(file)
    pyarrow.parquet.write_table(table.slice(0, 90), file)
    with pytest.raises(ValueError, match="holds 90 examples .* promises 100"):
        load.load("cifar10", tmp_path)


def test_find_prepared__several_versions__takes_the_newest(tmp_path):
    for version in ("3.0.2", "3.0.10", "not_a_version"):
        directory = tmp_path / "cifar10" / version
        directory.mkdir(parents=True)
        (directory / "dataset_info.json").write_text("{}")
    (tmp_path / "cifar10" / "4.0.0").mkdir()  # never completed
    found = load.find_prepared("cifar10", tmp_path)
    assert found == str(tmp_path / "cifar10" / "3.0.10")


@pytest.mark.parametrize("name", ["cifar10", "cifar100"])
def test_load__not_prepared__error_says_how_to_at_once(tmp_path, name):
    start = time.perf_counter()
    with pytest.raises(DatasetNotFoundError) as caught:
        load.load(name, tmp_path)
    assert time.perf_counter() - start < 5
    message = str(caught.value)
    assert "\n" not in message
    assert f"tfds.load({name!r}, data_dir={str(tmp_path)!r})" in message
    assert "download=True (--download)" in message


def test_load__unknown_name__error_lists_the_known():
    with pytest.raises(ValueError, match="'digits', .*, 'imagenet2012', got"):
        load.load("mnist")
