"""What it takes to add something: added at run time, and found everywhere."""

import numpy as np
import pytest

from tf_gnc import data
from tf_gnc.cli import compare, doctor, train, tune
from tf_gnc.cli.main import main
from tf_gnc.data import DatasetDefaults, DatasetSettings
from tf_gnc.experiments import RunConfig, make_config
from tf_gnc.experiments.compare.plan import make_plan
from tf_gnc.experiments.figures.page import to_html
from tf_gnc.experiments.figures.recorded_runs import read_runs
from tf_gnc.experiments.figures.registry import View, draw_all
from tf_gnc.experiments.run.runner import run

# A data set


def _load_stripes(name, data_dir, download, preprocess):
    """8 pictures of 4x4 pixels: lying and standing stripes."""
    lying = np.tile(np.array([[0], [255]], np.uint8), (2, 4))
    pictures = np.stack([lying, lying.T] * 4)[..., None]
    labels = np.array([0, 1] * 4)
    return data.Images(pictures, labels, pictures, labels, 2, preprocess)


@pytest.fixture
def stripes(monkeypatch):
    """The line in the registry; what it holds would be a file of its own."""
    settings = DatasetSettings(
        input_shape=(4, 4, 1),
        num_classes=2,
        preprocess=data.Preprocess(padding=1),
        defaults=DatasetDefaults(
            model="resnet8",
            num_workers=2,
            examples_per_worker=4,
            epochs=3,
            base_rate=1.6,
            rates={4: 0.7},
            methods={
                "gnc": {"alpha": 0.5},
                "rnc": {"alpha": {4: 0.25, 8: 0.125}},
            },
            settings={"schedule": "constant"},
            derive=lambda chosen, batch_size: {"warmup": 1 / batch_size},
        ),
        load=_load_stripes,
    )
    monkeypatch.setitem(data.DATASETS, "stripes", settings)
    return settings


@pytest.mark.parametrize("command", [train, compare, tune, doctor])
def test_data_set__one_entry__is_in_the_flags_and_their_help(command, stripes):
    flag_set = command.build_flags()
    assert flag_set.parse(["--dataset=stripes"])[0]["dataset"] == "stripes"
    assert "stripes" in flag_set.help()


def test_data_set__one_entry__brings_its_defaults(stripes):
    config = make_config("stripes", "gnc")
    assert (config.model, config.schedule) == ("resnet8", "constant")
    assert (config.num_workers, config.batch_size) == (2, 8)
    assert (config.learning_rate, config.warmup) == (1.6 * 8 / 128, 1 / 8)
    assert (config.epochs, config.settings["alpha"]) == (3, 0.5)
    small = make_config("stripes", "rnc", batch_size=4, num_workers=2)
    assert (small.learning_rate, small.warmup) == (0.7, 1 / 4)
    assert small.settings["alpha"] == 0.25
    runs = make_plan(("dpsgd", "gnc"), (0,), dataset="stripes").runs
    assert {run.dataset for run in runs} == {"stripes"}
    assert RunConfig.from_dict(config.to_dict()) == config


def test_data_set__one_entry__passes_the_doctor(stripes, capfd):
    assert main(["doctor", "--dataset=stripes"]) == 0
    assert "stripes, resnet8" in capfd.readouterr().out


def test_data_set__one_entry__trains_and_is_reported(stripes, tmp_path):
    config = make_config("stripes", "gnc", max_steps=1, epochs=1)
    run(config, tmp_path / "run")
    runs = read_runs([tmp_path / "run"])
    assert len(runs[0].metrics) == 1
    page = to_html(runs, draw_all(runs, View()), "command")
    assert "stripes" in page
