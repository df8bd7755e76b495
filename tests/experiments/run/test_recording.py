"""On which data a run is measured, and what it keeps."""

import keras
import numpy as np
import pytest

from tf_gnc import data
from tf_gnc.data import OwnData
from tf_gnc.experiments import make_config
from tf_gnc.experiments.run.building import build_datasets, load_images
from tf_gnc.experiments.run.recording import (
    Recording,
    batch_of_step,
    measuring_data,
    training_set,
)
from tf_gnc.experiments.run.saving import Checkpoints


@pytest.fixture
def digits(digits_dir):
    config = make_config("digits", "gnc", data_dir=digits_dir, seed=3)
    return config, data.load("digits", digits_dir)


def test_batch__of_a_step__is_the_one_the_run_trains_on(digits):
    config, images = digits
    training, _ = build_datasets(config, images)
    steps = list(training.take(6).as_numpy_iterator())
    for step in (0, 2):
        x, y = batch_of_step(config, images, step)
        np.testing.assert_array_equal(x, steps[step][0])
        np.testing.assert_array_equal(y, steps[step][1])
    assert set(measuring_data(["landscape"], config, images)) == {"batch"}
    given = measuring_data(["smoothness"], config, images)
    assert set(given) == {"batch"}
    # A measurement after a step has the next one's; in a row, again, apart.
    for step in (1, 2, 3, 4, 4, 5, 0):
        np.testing.assert_array_equal(given["batch"](step)[0], steps[step][0])
    assert measuring_data(["spectrum", "noise_norm"], config, images) == {}


def test_training_set__of_the_digits__all_pictures_unchanged(digits):
    config, images = digits
    batches = list(training_set(images).as_numpy_iterator())
    pixels = np.concatenate([x for x, _ in batches])
    labels = np.concatenate([y for _, y in batches])
    np.testing.assert_array_equal(labels, images.train_labels)
    # Normalised: one and the same line from bytes to floats for all.
    slope, start = np.polyfit(images.train_images.ravel(), pixels.ravel(), 1)
    expected = images.train_images * slope + start
    np.testing.assert_allclose(pixels, expected, atol=1e-4)
    few = measuring_data(
        ["similarity"], make_config("digits", max_steps=1), images
    )
    assert len(list(few["dataset"])) == 1


def test_training_set__own_data__all_rows_in_their_order():
    x, y = np.arange(6.0)[:, None], np.arange(6)
    batches = training_set(OwnData((x, y), (x[:1], y[:1])))
    ((ours, labels),) = batches.as_numpy_iterator()
    np.testing.assert_array_equal(ours, x)
    np.testing.assert_array_equal(labels, y)


def test_checkpoints__a_save_that_fails__leaves_nothing_half_done(tmp_path):
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    checkpoints = Checkpoints(tmp_path / "checkpoints", every=2)
    checkpoints.set_model(model)
    for epoch in range(4):
        checkpoints.on_epoch_end(epoch)

    def fail(path):
        path.write_bytes(b"half")
        raise OSError("full")

    model.save = fail
    with pytest.raises(OSError, match="full"):
        checkpoints.on_epoch_end(5)
    names = sorted(path.name for path in (tmp_path / "checkpoints").iterdir())
    assert names == ["epoch-0002.keras", "epoch-0004.keras"]


def test_recording__out_of_range__error_shows_it(digits):
    for arguments, message in (
        ({"measures": ["loud"]}, "got probe='loud'"),
        ({"every": 0}, "got every=0"),
        ({"checkpoint_every": -1}, "got checkpoint_every=-1"),
        ({"log_dir": "logs"}, "got log_dir='logs' and none"),
        ({"measures": ["spectrum"], "log_dir": ""}, "got log_dir=''"),
    ):
        with pytest.raises(ValueError, match=message):
            Recording(**arguments)
    config = make_config("digits", "dpsgd", num_workers=1, batch_size=64)
    with pytest.raises(ValueError, match="needs 2 or more, got num_workers=1"):
        Recording(["gradient_noise_scale"]).check(config)


def test_probes__carried__measure_at_the_end_of_each_epoch_as_it_is(tmp_path):
    config = make_config("digits", "gnc", epochs=4, remainder="carry")
    updates = data.Updates(1437, 512, carry=True)
    (probe,) = Recording(["noise_norm"]).probes(
        config, None, tmp_path, updates, 0
    )
    ends = probe.within["noise_norm"]
    steps = [n for n in range(1, 12) if any(n in r for r in ends)]
    assert steps == [updates.before(e) for e in (1, 2, 3, 4)] == [2, 5, 8, 11]


def test_config__fill_without_erasing__is_refused():
    with pytest.raises(ValueError, match="dataset='cifar10' or .* only, got"):
        make_config("digits", erasing_fill="mean")


def test_load_images__jitter_and_fill__reach_the_pipeline(monkeypatch):
    settings = data.DATASETS["cifar10"]
    pictures, labels = np.zeros((4, 32, 32, 3), np.uint8), np.zeros(4, int)
    source = data.Images(
        pictures, labels, pictures, labels, 10, settings.preprocess
    )
    monkeypatch.setattr(data, "load", lambda *_: source)
    config = make_config("cifar10", erasing_fill="mean")
    assert load_images(config).preprocess.erase_fill == "mean"
    assert load_images(make_config("cifar10")).preprocess == settings.preprocess
