"""ImageNet through the runner and the command line."""

import json

import numpy as np
import pytest

from tests import imagenet_files, problems
from tf_gnc import data, schedules
from tf_gnc.cli.main import main
from tf_gnc.experiments import make_config
from tf_gnc.experiments.run.building import build_datasets, learning_rates


def test_make_config__imagenet__has_the_papers_sizes_and_coefficients():
    config = make_config("imagenet2012")
    assert (config.model, config.epochs) == ("resnet50", 90)
    assert (config.num_workers, config.batch_size) == (1024, 32768)
    assert config.settings["alpha"] == 0.0001
    switching = make_config("imagenet2012", "gnc_to_rnc")
    assert switching.settings["alpha"] == 0.01
    assert switching.settings["alpha_rnc"] == 0.01
    assert switching.settings["switch_epoch"] == 80
    assert (config.optimizer, config.weight_decay) == ("lars", 1e-4)
    assert (config.learning_rate, config.start_rate) == (23.0, 1.0)


@pytest.mark.parametrize("batch_size", [32768, 131072])
def test_learning_rates__imagenet__are_the_papers(batch_size):
    steps = 1281167 // batch_size
    config = make_config("imagenet2012", batch_size=batch_size)
    rates = learning_rates(config, problems.updates(config, steps))
    paper = schedules.imagenet_schedule(batch_size, steps)
    for step in range(0, 90 * steps, steps // 3):
        assert float(rates(step)) == float(paper(step))


def test_make_config__imagenet_at_another_size__scales_the_rate_and_the_end():
    config = make_config("imagenet2012", batch_size=16384, epochs=45)
    assert config.learning_rate == pytest.approx(11.5)
    assert config.start_rate is None
    assert (config.decay_steps, config.collapse_epoch) == (4120, 40)
    plain = make_config("imagenet2012", schedule="constant", epochs=1)
    assert (plain.decay_steps, plain.collapse_epoch) == (None, None)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """A directory with a tiny ImageNet."""
    folder = tmp_path_factory.mktemp("imagenet")
    imagenet_files.write(folder)
    return folder


def test_build_datasets__first_step__is_handed_on(prepared):
    source = data.load("imagenet2012", prepared)
    config = make_config("imagenet2012", batch_size=8, num_workers=2, seed=4)
    whole, test = build_datasets(config, source)
    late, _ = build_datasets(config, source, first_step=8)
    want = list(whole.take(9).as_numpy_iterator())[8]
    got = next(late.as_numpy_iterator())
    np.testing.assert_array_equal(got[0], want[0])
    np.testing.assert_array_equal(got[1], want[1])
    assert sum(len(targets) for _, targets in test) == imagenet_files.NUM_TEST


def test_train__tiny_imagenet__runs_to_its_end(prepared, tmp_path, capfd):
    code = main(
        [
            "train",
            "--dataset=imagenet2012",
            f"--data_dir={prepared}",
            "--model=resnet8",
            "--image_size=32",
            "--workers=2",
            "--batch_size=16",
            "--epochs=1",
            "--learning_rate=0.01",
            f"--run_dir={tmp_path / 'run'}",
        ]
    )
    assert code == 0, capfd.readouterr().err
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert 0 <= summary["val_accuracy"] <= 1


def test_train__imagenet_not_prepared__says_what_to_do(tmp_path, capfd):
    assert (
        main(["train", "--dataset=imagenet2012", f"--data_dir={tmp_path}"]) == 2
    )
    message = capfd.readouterr().err
    assert message.count("\n") == 1
    assert "tfds build imagenet2012" in message
