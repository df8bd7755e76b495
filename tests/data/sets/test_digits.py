import multiprocessing
import os

import numpy as np
import pytest
import sklearn.datasets

from tf_gnc.data import DATASETS, load, prepared
from tf_gnc.data.sets import digits


@pytest.fixture(scope="module")
def digits_dir(tmp_path_factory):
    directory = tmp_path_factory.mktemp("digits")
    load("digits", directory)
    return directory


def test_load__digits__hold_scikit_learns_scans(digits_dir):
    got = load("digits", digits_dir)
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
    got, settings = load("digits", digits_dir), DATASETS["digits"]
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
    load("digits", digits_dir)
    assert path.stat().st_mtime_ns == before


def prepare(data_dir, barrier, results):
    barrier.wait()
    results.put(len(load("digits", data_dir).train_images))


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
    directory = digits.prepare(os.fspath(digits_dir))
    assert directory == prepared.find_prepared("digits", digits_dir)
    assert os.listdir(digits_dir) == ["digits"]


def test_load__digits_where_nobody_may_write__error_names_data_dir(tmp_path):
    (tmp_path / "file").write_text("")
    data_dir = tmp_path / "file" / "below"
    with pytest.raises(OSError, match=r"data_dir='.*below'.*may write to"):
        load("digits", data_dir)
