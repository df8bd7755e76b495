"""The version guard, and what `import tf_gnc` does before and after it."""

import os
import pathlib
import re
import subprocess
import sys
import textwrap
import tomllib
from importlib import metadata

import pytest

from tf_gnc import _versions

ROOT = pathlib.Path(__file__).parent.parent
PIP = 'pip install "tensorflow>=2.21,<2.22" "keras>=3.15,<3.16"'


@pytest.fixture
def installed(monkeypatch):
    """Installed packages that a test may change, and no KERAS_BACKEND."""
    packages = {"tensorflow": "2.21.0", "keras": "3.15.0"}

    def version(name):
        if name not in packages:
            raise metadata.PackageNotFoundError(name)
        return packages[name]

    monkeypatch.setattr(metadata, "version", version)
    monkeypatch.delenv("KERAS_BACKEND", raising=False)
    return packages


def test_supported__ranges__are_those_of_the_package_metadata():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    ranges = {}
    for requirement in project["dependencies"]:
        fits = re.fullmatch(
            r"(tensorflow|keras)>=(\d+)\.(\d+),<(\d+)\.(\d+)", requirement
        )
        if fits:
            name, *numbers = fits.groups()
            a, b, c, d = map(int, numbers)
            ranges[name] = ((a, b), (c, d))
    assert ranges == _versions.SUPPORTED


@pytest.mark.parametrize(
    ("name", "version"),
    [
        ("tensorflow", "2.21.0"),  # the lower edge
        ("tensorflow", "2.21.99"),
        ("tensorflow", "2.21.0rc1"),
        ("keras", "3.15.0"),
        ("keras", "3.15.2.dev1"),
        ("tensorflow", "2.21rc1"),
    ],
)
def test_check__fitting_versions__passes(installed, name, version):
    installed[name] = version
    _versions.check()


@pytest.mark.parametrize(
    ("name", "version"),
    [
        ("tensorflow", "2.20.99"),
        ("tensorflow", "2.22.0"),  # the upper edge
        ("tensorflow", "2.3.0"),  # below 2.21 as numbers, not as text
        ("tensorflow", "3.0.0"),
        ("keras", "2.15.0"),
        ("keras", "3.14.1"),
        ("keras", "3.16.0"),
    ],
)
def test_check__too_old_or_too_new__error_names_found_and_pip_command(
    installed, name, version
):
    installed[name] = version
    with pytest.raises(ImportError) as caught:
        _versions.check()
    assert f"got {name} {version}." in str(caught.value)
    assert PIP in str(caught.value)


@pytest.mark.parametrize("name", ["tensorflow", "keras"])
def test_check__package_missing__error_names_it_and_pip_command(
    installed, name
):
    del installed[name]
    with pytest.raises(ImportError) as caught:
        _versions.check()
    assert f"needs {name}, which is not installed" in str(caught.value)
    assert PIP in str(caught.value)


@pytest.mark.parametrize("alias", ["tensorflow-cpu", "tf-nightly"])
def test_check__tensorflow_under_another_name__is_found(installed, alias):
    del installed["tensorflow"]
    installed[alias] = "2.21.1"
    _versions.check()
    installed[alias] = "2.19.1"
    with pytest.raises(ImportError, match=r"got tensorflow 2\.19\.1"):
        _versions.check()


@pytest.mark.parametrize("backend", ["jax", "torch", "Tensorflow"])
def test_check__other_backend__error_names_it(installed, monkeypatch, backend):
    monkeypatch.setenv("KERAS_BACKEND", "tensorflow")
    _versions.check()
    monkeypatch.setenv("KERAS_BACKEND", backend)
    with pytest.raises(ImportError, match=f"KERAS_BACKEND={backend}"):
        _versions.check()


def test_check__release_candidate_of_another_minor__is_refused(installed):
    installed["tensorflow"] = "2.22rc1"
    with pytest.raises(ImportError, match="got tensorflow 2.22rc1"):
        _versions.check()


@pytest.mark.parametrize("variable", ["", None])
def test_check__backend_in_keras_json__counts_unless_the_variable_says(
    installed, monkeypatch, tmp_path, variable
):
    if variable is not None:  # Keras takes an empty one for none.
        monkeypatch.setenv("KERAS_BACKEND", variable)
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    file = tmp_path / "keras.json"
    for harmless in ('{"backend": "tensorflow"}', "{}", "not JSON", "[]"):
        file.write_text(harmless)
        _versions.check()
    file.write_text('{"backend": "jax"}')
    with pytest.raises(ImportError, match="'jax' from .*keras.json"):
        _versions.check()
    monkeypatch.setenv("KERAS_BACKEND", "tensorflow")
    _versions.check()


def test_check__what_is_installed_here__passes(monkeypatch):
    monkeypatch.delenv("KERAS_BACKEND", raising=False)
    _versions.check()


def _run(script):
    """Runs a script in a fresh process and returns what it prints."""
    result = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)],
        cwd=ROOT,
        env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "2"},
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


def test_import__wrong_keras_then_right__stops_early_then_adds_itself_only():
    # One process for both, since TensorFlow takes seconds to import. That the
    # second import succeeds shows that the guard stopped the first.
    printed = _run(
        """
        import sys
        from importlib import metadata

        def new_packages(before):
            new = {name.split(".")[0] for name in set(sys.modules) - before}
            return *sorted(new - sys.stdlib_module_names), "."

        before = set(sys.modules)
        true_version = metadata.version
        metadata.version = (
            lambda name: "3.14.0" if name == "keras" else true_version(name)
        )
        try:
            import tf_gnc
        except ImportError as error:
            print(error)
        print(*new_packages(before))

        metadata.version = true_version
        import keras
        import tensorflow

        before = set(sys.modules)
        import tf_gnc

        print(*new_packages(before))
        print(*({"absl.app", "absl.flags"} & set(sys.modules) - before), ".")
        for name in tf_gnc.__all__:
            getattr(tf_gnc, name)
        print("tensorflow_datasets" in sys.modules)
        """
    )
    error, early, packages, parts, datasets = printed.splitlines()
    assert "got keras 3.14.0" in error
    assert PIP in error
    # Neither TensorFlow nor Keras, which a wrong version could make fail.
    assert early == "tf_gnc ."
    # No tensorflow_datasets, and no matplotlib, sklearn or part of absl beyond
    # what TensorFlow and Keras have brought.
    assert packages == "tf_gnc ."
    assert parts == "."
    assert datasets == "False"
