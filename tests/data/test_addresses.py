"""Data sets asked for at an address: read there, or refused in words."""

import pytest
import tensorflow as tf

from tf_gnc import data


def test_load__digits_not_in_the_bucket__no_local_folder_is_made(
    tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(tf.io.gfile, "isdir", lambda path: False)
    with pytest.raises(data.DatasetNotFoundError, match="'gs://b/data'"):
        data.load("digits", "gs://b/data")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["digits", "cifar10"])
def test_load__an_address_that_tensorflow_cannot_read__is_refused(
    name, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match="or gs://, got data_dir='s3://b/d'"):
        data.load(name, "s3://b/d")
    assert list(tmp_path.iterdir()) == []
