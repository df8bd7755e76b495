"""Four logical CPUs stand in for devices, before TensorFlow starts."""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ.setdefault("MPLBACKEND", "agg")

import keras
import pytest
import tensorflow as tf

from tf_gnc import data

tf.config.set_logical_device_configuration(
    tf.config.list_physical_devices("CPU")[0],
    [tf.config.LogicalDeviceConfiguration() for _ in range(4)],
)


@pytest.fixture(autouse=True)
def _fresh_keras():
    """Same random weights in every test, and no policy left by another."""
    keras.utils.set_random_seed(1)
    yield
    keras.config.set_dtype_policy("float32")
    keras.backend.clear_session(free_memory=False)


@pytest.fixture(scope="session")
def digits_dir(tmp_path_factory):
    """A directory with the digits prepared, instead of the user's own."""
    path = tmp_path_factory.mktemp("digits")
    data.load("digits", path)
    return str(path)
