"""Models of a run, read back to be measured."""

import dataclasses

import keras
import numpy as np
import pytest

import tf_gnc
from tf_gnc.experiments import make_config, prepare, train
from tf_gnc.experiments.figures.recorded_runs import read_run
from tf_gnc.experiments.run.measure import find_models, load_checkpoint

THIS = "tests.experiments.run.test_measure"


def load():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(48, 8, 8, 1)).astype("float32")
    return (x[:32], np.arange(32) % 3), (x[32:], np.arange(16) % 3)


class Mine(tf_gnc.GNCTrainStep, keras.Sequential):
    pass


def unbuilt():
    return Mine([keras.layers.Flatten(), keras.layers.Dense(3)])


@pytest.mark.parametrize("model", [f"{THIS}:unbuilt", "resnet8"])
def test_load_checkpoint__last_model__is_the_run_as_it_ended(tmp_path, model):
    config = make_config(
        f"{THIS}:load", "gnc_to_rnc", model=model, num_workers=4,
        batch_size=16, epochs=2, switch_epoch=1,
    )  # fmt: skip
    prepared = prepare(config, tmp_path / "run")
    train(prepared)
    ((epoch, path),) = find_models(read_run(tmp_path / "run")).items()
    found = load_checkpoint(path, config, prepared.images, epoch)
    ours, theirs = found.get_weights(), prepared.model.get_weights()
    assert len(ours) == len(theirs)
    for a, b in zip(ours, theirs, strict=True):
        np.testing.assert_array_equal(a, b)
    assert int(found.optimizer.iterations) == 4
    assert found.noise_rule == prepared.model.noise_rule
    rate = prepared.model.optimizer.learning_rate
    assert float(found.optimizer.learning_rate) == float(rate)


def test_load_checkpoint__layers_rates_without_an_optimizer__is_refused(
    tmp_path,
):
    config = make_config(
        f"{THIS}:load", "gnc", model=f"{THIS}:unbuilt", num_workers=4,
        batch_size=16, epochs=1, optimizer="lars", noise_rate="layer",
        learning_rate=0.1, schedule="constant", warmup=0.0,
    )  # fmt: skip
    prepared = prepare(config, tmp_path / "run")
    train(prepared)
    ((epoch, path),) = find_models(read_run(tmp_path / "run")).items()
    with pytest.raises(ValueError, match="Train with --checkpoint_every"):
        load_checkpoint(path, config, prepared.images, epoch)
    # Without noise nothing depends on the optimizer.
    plain = dataclasses.replace(config, method="dpsgd", settings={})
    assert load_checkpoint(path, plain, prepared.images, epoch)
