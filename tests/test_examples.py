"""The examples: they run, and show what they say they show."""

import difflib
import importlib.util
import json
import pathlib
import re
import runpy
import sys

import keras
import numpy as np
import pytest

import tf_gnc
from tf_gnc.cli.main import main

EXAMPLES = pathlib.Path(__file__).parents[1] / "examples"
SCRIPTS = ["own_script_before.py", "own_script.py"]


def _lines(script):
    return (EXAMPLES / script).read_text().splitlines()


def _import_mymodel():
    """Imports examples/mymodel.py, as the command line does by its name."""
    path = EXAMPLES / "mymodel.py"
    spec = importlib.util.spec_from_file_location("mymodel", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_own_script__beside_the_one_before__differs_in_three_lines():
    diff = difflib.ndiff(*map(_lines, SCRIPTS))
    changed = [line for line in diff if line[0] in "+-" and line[1:].strip()]
    assert changed == [
        "+ import tf_gnc",
        "- model = keras.Model(inputs, outputs)",
        "+ model = tf_gnc.GNCModel(inputs, outputs)",
        "- model.compile(**settings)",
        "+ model.compile(**settings, noise=tf_gnc.GradientNoise(alpha=0.1), "
        "num_workers=16)",
    ]


@pytest.mark.parametrize("script", SCRIPTS)
def test_own_script__ten_epochs__learns_the_digits(
    script, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", [script, "10"])
    runpy.run_path(str(EXAMPLES / script), run_name="__main__")
    printed = capsys.readouterr().out
    accuracy = re.search(r"^test accuracy (0\.\d+)$", printed, re.M)
    assert float(accuracy.group(1)) > 0.8, printed  # 0.1 by chance
    assert list(tmp_path.iterdir()) == []


def test_mymodel__on_the_command_line__trains(tmp_path, monkeypatch):
    flags = ["--epochs=1", f"--run_dir={tmp_path / 'run'}"]
    command = re.search(r"tf-gnc (train --.+)", _import_mymodel().__doc__)
    # Found in the current folder, as with any command.
    monkeypatch.chdir(EXAMPLES)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.delitem(sys.modules, "mymodel", raising=False)
    assert main([*command.group(1).split(), *flags]) == 0
    row = json.loads((tmp_path / "run" / "metrics.jsonl").read_text())
    assert row["epoch"] == 1
    model = keras.models.load_model(tmp_path / "run" / "model.keras")
    assert model.output_shape == (None, 10)


def test_mymodel__load__returns_all_digits_once_in_range():
    (x_train, y_train), (x_test, y_test) = _import_mymodel().load()
    assert all(
        isinstance(array, np.ndarray)
        for array in (x_train, y_train, x_test, y_test)
    )
    assert (x_train.shape, x_test.shape) == ((1437, 8, 8, 1), (360, 8, 8, 1))
    assert (y_train.shape, y_test.shape) == ((1437,), (360,))
    assert x_train.dtype == x_test.dtype == np.float32
    pictures = np.concatenate([x_train, x_test])
    assert (pictures.min(), pictures.max()) == (0, 1)
    # 178 zeros, 182 ones, ...: as the data set's description counts them.
    counts = [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]
    assert np.bincount(np.concatenate([y_train, y_test])).tolist() == counts


def test_mymodel__build__returns_a_plain_uncompiled_model_with_logits():
    mymodel = _import_mymodel()
    model = mymodel.build()
    assert isinstance(model, keras.Model)
    assert not isinstance(model, tf_gnc.GNCTrainStep)
    assert not model.compiled
    (x_train, _), _ = mymodel.load()
    outputs = model(x_train[:100]).numpy()
    assert outputs.shape == (100, 10)
    assert outputs.min() < 0  # no probabilities
