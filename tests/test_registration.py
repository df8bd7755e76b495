"""Classes that `.keras` files name are known, in whatever order of imports."""

import os
import pathlib
import subprocess
import sys

import pytest

from tests.old_files import make
from tf_gnc.losses import SmoothedCrossentropy

ROOT = pathlib.Path(__file__).parent.parent

_LOAD = """
for name in sys.argv[1:]:
    print(type(keras.models.load_model(name)).__name__)
"""


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Files with a model, a rule, optimizers, schedules and a loss of ours."""
    folder = tmp_path_factory.mktemp("files")
    loss = SmoothedCrossentropy(0.1, from_logits=False)
    models = (
        make.gradient_noise_and_lars(loss),
        make.random_noise_and_momentum(),
    )
    files = [str(folder / f"{number}.keras") for number in range(len(models))]
    for model, file in zip(models, files, strict=True):
        model.save(file)
    return files


def _run(tmp_path, script, arguments):
    """Runs a script that is called tf-gnc.py and returns what it prints."""
    path = tmp_path / "tf-gnc.py"
    path.write_text(script)
    result = subprocess.run(
        [sys.executable, path, *arguments],
        env={
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "TF_CPP_MIN_LOG_LEVEL": "2",
        },
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert result.returncode == 0, result.stderr
    return result.stdout.split()


def test_import__script_of_our_name__brings_no_keras_but_waits_for_it(
    tmp_path, files
):
    script = """
import sys
import tf_gnc
print("keras" in sys.modules, "tensorflow" in sys.modules)
import importlib.util
importlib.util.find_spec("keras")  # Looking for Keras isn't importing it.
import keras
"""
    printed = _run(tmp_path, script + _LOAD, files)
    assert printed == ["False", "False", "GNCModel", "GNCModel"]


def test_import__a_module_of_ours_imports_keras_first__loads_our_files(
    tmp_path, files
):
    script = """
import sys
from tf_gnc.step import trainer
import keras
"""
    assert _run(tmp_path, script + _LOAD, files[:1]) == ["GNCModel"]
