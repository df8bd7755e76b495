import json
import zipfile

import keras
import numpy as np
import pytest

import tf_gnc
from tests import problems
from tf_gnc import data
from tf_gnc.experiments import METHODS, make_config, run
from tf_gnc.experiments.run.building import build_model
from tf_gnc.experiments.run.runner import (
    build_datasets,
    learning_rates,
    prepare,
    train,
)

TINY = {
    "num_workers": 2,
    "batch_size": 512,
    "epochs": 2,
    "model": "tests.problems:digits_network",
}


def _strict_json(text):
    def refuse(word):
        raise ValueError(f"{word} is no JSON")

    return json.loads(text, parse_constant=refuse)


@pytest.fixture(scope="module")
def finished(digits_dir, tmp_path_factory):
    """A run that switches its rule: configuration, summary and directory."""
    config = make_config(
        "digits", "gnc_to_rnc", data_dir=digits_dir, seed=3, **TINY
    )
    run_dir = tmp_path_factory.mktemp("runs") / "run"
    return config, run(config, run_dir, command="tf-gnc train"), run_dir


def test_run__finished__leaves_the_five_files_and_no_other(finished):
    _, _, run_dir = finished
    assert sorted(path.name for path in run_dir.iterdir()) == [
        "config.json",
        "curves.png",
        "metrics.jsonl",
        "model.keras",
        "summary.json",
    ]


def test_run__config_json__makes_the_same_config(finished):
    config, _, run_dir = finished
    written = _strict_json((run_dir / "config.json").read_text())
    assert type(config).from_dict(written["config"]) == config
    assert written["command"] == "tf-gnc train"
    versions = written["environment"]["versions"]
    assert set(versions) == {
        "tf_gnc", "tensorflow", "keras", "numpy", "python",
    }  # fmt: skip
    assert versions["tf_gnc"] == tf_gnc.__version__


def test_run__metrics__tell_rule_and_rate_of_each_epoch(finished):
    config, _, run_dir = finished
    lines = (run_dir / "metrics.jsonl").read_text().splitlines()
    rows = [_strict_json(line) for line in lines]
    assert [row["epoch"] for row in rows] == [1, 2]
    assert [row["rule"] for row in rows] == ["GradientNoise", "RandomNoise"]
    assert [row["alpha"] for row in rows] == [0.1, 2.0]
    # 1,437 // 512 = 2 steps an epoch, 4 in all: warm-up in step 0, decay from
    # steps 2 and 3 on, so the last updates of the epochs are steps 1 and 3.
    rates = [row["learning_rate"] for row in rows]
    peak = config.learning_rate
    np.testing.assert_allclose(rates, [peak, peak / 100], rtol=1e-6)
    for name in ("loss", "accuracy", "val_loss", "val_accuracy", "seconds"):
        assert all(isinstance(row[name], float) for row in rows)


def test_run__summary__agrees_with_metrics_and_return_value(finished):
    _, summary, run_dir = finished
    written = _strict_json((run_dir / "summary.json").read_text())
    lines = (run_dir / "metrics.jsonl").read_text().splitlines()
    rows = [json.loads(line) for line in lines]
    assert written == summary.to_dict()
    assert written["val_accuracy"] == rows[-1]["val_accuracy"]
    assert written["best_val_accuracy"] == max(r["val_accuracy"] for r in rows)
    assert written["train_loss"] == rows[-1]["loss"]
    assert (written["num_workers"], written["num_replicas"]) == (2, 1)
    assert written["examples_per_second"] > 1024 / written["seconds"]
    assert written["peak_memory_bytes"] > 2**26  # TensorFlow alone is more.


def test_run__saved_model__has_the_accuracy_of_the_summary(finished):
    config, summary, run_dir = finished
    model = keras.models.load_model(run_dir / "model.keras")
    assert type(model).__module__.startswith("keras.") and not model.compiled
    with zipfile.ZipFile(run_dir / "model.keras") as archive:
        assert "tf_gnc" not in archive.read("config.json").decode()
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(loss=loss, metrics=["accuracy"])
    _, test = build_datasets(config, data.load("digits", config.data_dir))
    accuracy = model.evaluate(test, verbose=0, return_dict=True)["accuracy"]
    assert accuracy == pytest.approx(summary.val_accuracy, abs=1e-6)


def test_run__same_directory_again__is_refused_and_untouched(finished):
    config, _, run_dir = finished
    before = {path: path.read_bytes() for path in run_dir.iterdir()}
    with pytest.raises(FileExistsError, match="which holds files"):
        run(config, run_dir)
    assert {path: path.read_bytes() for path in run_dir.iterdir()} == before


def test_prepare__same_seed__all_methods_start_from_the_same_weights(
    digits_dir, tmp_path
):
    starts = {}
    for method in METHODS:
        config = make_config(
            "digits", method, data_dir=digits_dir, seed=5, **TINY
        )
        starts[method] = prepare(config, tmp_path / method).model.get_weights()
    for weights in starts.values():
        for mine, first in zip(weights, starts["dpsgd"], strict=True):
            np.testing.assert_array_equal(mine, first)


def test_prepare__other_seed__starts_from_other_weights(digits_dir, tmp_path):
    kernels = []
    for seed in (1, 2):
        config = make_config(data_dir=digits_dir, seed=seed, **TINY)
        model = prepare(config, tmp_path / str(seed)).model
        kernels.append(model.get_weights()[0])
    assert np.abs(kernels[0] - kernels[1]).max() > 0


def test_build_datasets__same_seed__all_methods_see_the_same(digits_dir):
    images = data.load("digits", digits_dir)
    batches = []
    for method in METHODS:
        training, _ = build_datasets(
            make_config("digits", method, seed=5, **TINY), images
        )
        batches.append(next(training.as_numpy_iterator()))
    for pictures, labels in batches:
        np.testing.assert_array_equal(pictures, batches[0][0])
        np.testing.assert_array_equal(labels, batches[0][1])


def test_build_datasets__augment_off__shows_the_scans_themselves(digits_dir):
    images = data.load("digits", digits_dir)
    config = make_config(augment=False, **TINY)
    training, _ = build_datasets(config, images)
    pictures, labels = next(training.as_numpy_iterator())
    preprocess = data.DATASETS["digits"].preprocess
    scans = preprocess.evaluation(images.train_images).numpy()
    same = (scans == pictures[0]).all(axis=(1, 2, 3))
    assert labels[0] in images.train_labels[same]


@pytest.mark.parametrize("batch_size", [4096, 8192])
def test_learning_rates__paper_settings__equal_its_schedule(batch_size):
    steps = 50_000 // batch_size
    config = make_config("cifar10", batch_size=batch_size)
    mine = learning_rates(config, problems.updates(config, steps))
    paper = tf_gnc.schedules.cifar_schedule(batch_size, steps)
    for step in range(0, 160 * steps, 7):
        # The ramp's two ends may differ by a rounding of the peak.
        assert float(mine(step)) == pytest.approx(float(paper(step)), rel=1e-6)


def test_learning_rates__no_warmup_no_decay__are_constant():
    config = make_config(
        batch_size=256, warmup=0.0, schedule="constant", epochs=1
    )
    rates = learning_rates(config, problems.updates(config, 1))
    assert [float(rates(step)) for step in (0, 1, 9)] == pytest.approx(
        [0.2] * 3
    )


def test_learning_rates__one_step_with_decay__error_says_how_to_mend_it():
    with pytest.raises(ValueError, match="at least two steps, got 1"):
        config = make_config(epochs=1)
        learning_rates(config, problems.updates(config, 1))


def test_prepare__batch_larger_than_data__names_both_and_leaves_nothing(
    digits_dir, tmp_path
):
    config = make_config(data_dir=digits_dir, batch_size=1600)
    with pytest.raises(ValueError, match="batch_size=1600 with 1437"):
        prepare(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("dataset", "method"), [("cifar10", "gnc"), ("cifar100", "rnc")]
)
def test_run__each_data_sets_defaults__train_on_made_up_pictures(
    dataset, method, monkeypatch, tmp_path
):
    settings = data.DATASETS[dataset]
    rng = np.random.default_rng(0)
    pictures = rng.integers(0, 256, (16, *settings.input_shape), np.uint8)
    labels = rng.integers(0, settings.num_classes, 16)
    made_up = data.Images(
        pictures,
        labels,
        pictures,
        labels,
        settings.num_classes,
        settings.preprocess,
    )
    monkeypatch.setattr(data, "load", lambda *args: made_up)
    tiny = {"num_workers": 4, "batch_size": 8, "epochs": 1}
    config = make_config(dataset, method, **tiny)
    assert config.model == settings.defaults.model == "resnet32"
    model = build_model(config, 0.1, made_up)
    assert model(pictures[:1]).shape == (1, settings.num_classes)
    # The deep network differs from it by the number of equal blocks alone.
    config = make_config(dataset, method, model="resnet8", **tiny)
    summary = run(config, tmp_path / "run")
    assert 0 <= summary.val_accuracy <= 1


@pytest.mark.parametrize("method", ["dpsgd", "gnc"])
def test_run__diverges__stops_with_floating_point_error_and_keeps_files(
    method, digits_dir, tmp_path
):
    config = make_config(
        "digits", method, data_dir=digits_dir, learning_rate=1e30, warmup=0.0,
        **TINY,
    )  # fmt: skip
    with pytest.raises(FloatingPointError):
        run(config, tmp_path)
    assert (tmp_path / "config.json").exists()
    assert not (tmp_path / "summary.json").exists()
    for line in (tmp_path / "metrics.jsonl").read_text().splitlines():
        assert _strict_json(line)["loss"] is None


@pytest.mark.parametrize("setting", ["steps_per_execution", "jit_compile"])
def test_run__steps_made_another_way__same_numbers(
    digits_dir, tmp_path, setting
):
    rows = []
    for value in (None, 2 if setting == "steps_per_execution" else True):
        config = make_config(
            "digits",
            data_dir=digits_dir,
            max_steps=2,
            **{setting: value},
            **TINY,
        )
        prepared = prepare(config, tmp_path / str(value))
        train(prepared)
        rows.append(
            [
                json.loads(line)["loss"]
                for line in prepared.files.path("metrics.jsonl").open()
            ]
        )
        model = prepared.model
        assert model.jit_compile is (value is True)
        assert int(model.optimizer.iterations) == 4
    assert rows[1] == pytest.approx(rows[0], rel=1e-5)


def test_train__any_run__fit_reports_the_learning_rate_of_the_rows(
    digits_dir, tmp_path
):
    config = make_config("digits", data_dir=digits_dir, **TINY)
    prepared = prepare(config, tmp_path / "run")
    history = keras.callbacks.History()
    train(prepared, [history])
    lines = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    rates = [json.loads(line)["learning_rate"] for line in lines]
    assert history.history["learning_rate"] == rates
    assert len(set(rates)) > 1
