"""What an earlier version has written is loaded, or refused with a reason."""

import pathlib
import shutil
import warnings

import keras
import numpy as np
import pytest

import tf_gnc
from tests.old_files import make
from tf_gnc.store import disk

ARCHIVE = pathlib.Path(__file__).with_name("old_files") / "ea66dae.zip"


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory):
    """The archive's files; not to be changed."""
    folder = tmp_path_factory.mktemp("old")
    shutil.unpack_archive(ARCHIVE, folder)
    return folder


@pytest.fixture
def backup(unpacked, tmp_path):
    """A copy of the archive's backup."""
    return shutil.copytree(unpacked / "backup", tmp_path / "backup")


@pytest.fixture(scope="module")
def expected(unpacked):
    """Numbers that the version that wrote the files found."""
    return dict(np.load(unpacked / "expected.npz"))


@pytest.mark.skipif(
    tuple(map(int, keras.__version__.split(".")[:2])) < (3, 15),
    reason="they are of Keras 3.15, and no Keras loads a later one's files",
)
@pytest.mark.parametrize("name", ["lars", "momentum", "smoothed"])
def test_keras_file__of_an_earlier_version__predicts_and_trains_as_there(
    unpacked, expected, name
):
    model = keras.models.load_model(unpacked / f"model_{name}.keras")
    x, y = make.data()
    predictions = model.predict(x, verbose=0)
    np.testing.assert_allclose(
        predictions, expected[f"predictions_{name}"], rtol=1e-5
    )
    loss, _ = model.evaluate(x, y, verbose=0)
    assert loss == pytest.approx(float(expected[f"loss_{name}"]), rel=1e-5)
    rule = {"momentum": tf_gnc.RandomNoise(0.1, seed=5)}.get(
        name, tf_gnc.GradientNoise(0.2, noise_dtype="bfloat16")
    )
    assert (model.noise_rule, model.num_workers) == (rule, 4)
    assert int(model.optimizer.iterations) == 3
    model.train_on_batch(x, y)
    assert int(model.optimizer.iterations) == 4


def test_backup__of_an_earlier_version__goes_on_to_the_same_weights(
    backup, expected, capsys
):
    callback = tf_gnc.callbacks.BackupAndRestore(backup)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        model = make.run_to_back_up([callback])
    assert "Goes on at step 4" in capsys.readouterr().err
    for number, weight in enumerate(model.get_weights()):
        np.testing.assert_allclose(
            weight, expected[f"weight_{number}"], rtol=1e-4, atol=1e-6
        )


def test_backup__laid_out_in_another_way__is_refused_with_the_reason(backup):
    manifest = backup / "step-000000000004" / "manifest.json"
    content = disk.read_json(manifest)
    del content["sha256"]
    manifest.unlink()
    disk.write_json(manifest, {**content, "format": 2})
    callback = tf_gnc.callbacks.BackupAndRestore(backup)
    with (
        pytest.warns(UserWarning, match="can't be used"),
        pytest.raises(ValueError, match="none that can be used.* format 2"),
    ):
        make.run_to_back_up([callback])
