"""The version guard, and what `import tf_gnc` does before and after it."""

import importlib.machinery
import importlib.util
import os
import pathlib
import re
import subprocess
import sys
import textwrap
import tomllib
import types
import warnings
from importlib import metadata

import pytest

from tf_gnc import _versions

ROOT = pathlib.Path(__file__).parent.parent
HOW = {"tensorflow": "tf-gnc[tensorflow]", "keras": "keras>=3.12"}


@pytest.fixture
def installed(monkeypatch):
    """Installed packages that a test may change, and no KERAS_BACKEND."""
    packages = {"tensorflow": "2.21.0", "keras": "3.15.0"}

    def version(name):
        if name not in packages:
            raise metadata.PackageNotFoundError(name)
        return packages[name]

    monkeypatch.setattr(metadata, "version", version)
    monkeypatch.setattr(metadata, "packages_distributions", dict)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    # As if nothing had been imported yet.
    fresh = types.SimpleNamespace(modules={}, argv=["script.py"], exit=sys.exit)
    monkeypatch.setattr(_versions, "sys", fresh)
    monkeypatch.delenv("KERAS_BACKEND", raising=False)
    return packages


def _message():
    """What the check refuses with."""
    with pytest.raises(ImportError) as caught:
        _versions.check()
    return str(caught.value)


@pytest.fixture
def quiet():
    """Makes warnings errors."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def _project():
    return tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def test_tried__oldest_versions__are_those_of_the_package_metadata():
    project = _project()
    oldest = {name: low for name, (low, _) in _versions.TRIED.items()}
    requirements = list(project["dependencies"])
    for extra in ("tensorflow", "cpu", "cuda", "tpu"):
        requirements += project["optional-dependencies"][extra]
    lower = {
        name: tuple(map(int, version.split(".")))
        for name, version in (r.split(">=") for r in requirements)
        if re.match("keras|tensorflow", name)
    }
    assert lower.pop("keras") == oldest["keras"]
    assert lower.pop("tensorflow-datasets")  # another package
    assert lower == dict.fromkeys(
        (
            "tensorflow",
            "tensorflow-cpu",
            "tensorflow[and-cuda]",
            "tensorflow-tpu",
        ),
        oldest["tensorflow"],
    )


def test_metadata__dependencies__bring_no_tensorflow_and_no_upper_bounds():
    project = _project()
    extras = project["optional-dependencies"]
    assert not [
        r for r in project["dependencies"] if re.match("tensorflow[^-]", r)
    ]
    everything = project["dependencies"] + sum(extras.values(), [])
    assert not [r for r in everything if re.search("<|==|~=|!=", r)]
    assert any("tensorflow" in r.split("[")[-1] for r in extras["test"])


@pytest.mark.parametrize(
    ("name", "version"),
    [
        ("tensorflow", "2.18.0"),  # the lower edge
        ("tensorflow", "2.18.0rc1"),
        ("tensorflow", "2.21.99"),
        ("tensorflow", "2.21.0rc1"),
        ("tensorflow", "2.21rc1"),
        ("keras", "3.12.0"),
        ("keras", "3.15.2.dev1"),
    ],
)
def test_check__tried_versions__passes_without_a_word(
    installed, quiet, name, version
):
    installed[name] = version
    _versions.check()


@pytest.mark.parametrize(
    ("name", "version", "tried"),
    [
        ("tensorflow", "2.22.0", "tensorflow 2.18 to 2.21"),  # the upper edge
        ("tensorflow", "2.22rc1", "tensorflow 2.18 to 2.21"),
        ("tensorflow", "3.0.0", "tensorflow 2.18 to 2.21"),
        ("keras", "3.16.0", "keras 3.12 to 3.15"),
        ("keras", "4.0.0", "keras 3.12 to 3.15"),
    ],
)
def test_check__newer_than_tried__warns_with_the_range_and_goes_on(
    installed, name, version, tried
):
    installed[name] = version
    with pytest.warns(UserWarning) as caught:
        _versions.check()
    assert len(caught) == 1
    text = str(caught[0].message)
    assert f"tried with {tried}, got {name} {version}, which is newer" in text


@pytest.mark.parametrize(
    ("name", "version"),
    [
        ("tensorflow", "2.17.99"),
        ("tensorflow", "2.3.0"),  # below 2.18 as numbers, not as text
        ("tensorflow", "1.15.0"),
        ("keras", "2.15.0"),
        ("keras", "3.11.3"),
    ],
)
def test_check__older_than_tried__error_names_found_and_what_to_install(
    installed, name, version
):
    installed[name] = version
    text = _message()
    assert f"got {name} {version}, which is older." in text
    assert f'pip install "{HOW[name]}"' in text


@pytest.mark.parametrize("name", ["tensorflow", "keras"])
def test_check__package_missing__error_names_it_and_what_to_install(
    installed, name
):
    del installed[name]
    text = _message()
    assert f"needs {name}, which is not installed" in text
    assert f'pip install "{HOW[name]}"' in text


def test_check__no_tensorflow__error_names_every_extra_that_brings_one(
    installed,
):
    del installed["tensorflow"]
    extras = _project()["optional-dependencies"].items()
    bring = {
        extra
        for extra, requirements in extras
        if any(
            re.match(r"tensorflow(-cpu|-tpu|\[and-cuda\])?>", r)
            for r in requirements
        )
    }
    assert set(re.findall(r" \[(\w+)\]", _message())) == bring
    assert bring == {"tensorflow", "cpu", "cuda", "tpu"}


def test_check__under_the_command__ends_with_one_line(installed, monkeypatch):
    del installed["tensorflow"]
    _versions.sys.argv[0] = "/somewhere/bin/tf-gnc"
    with pytest.raises(SystemExit) as caught:
        _versions.check()
    text = caught.value.code  # Python writes it to standard error, exits by 1
    assert text.startswith("tf-gnc: error: tf_gnc needs tensorflow")
    assert len(text.splitlines()) == 1


@pytest.mark.parametrize(
    "alias", ["tensorflow-cpu", "tensorflow-tpu", "tf-nightly"]
)
def test_check__tensorflow_under_another_name__is_found(
    installed, quiet, alias
):
    del installed["tensorflow"]
    installed[alias] = "2.20.1"
    _versions.check()
    installed[alias] = "2.17.1"
    assert "got tensorflow 2.17.1" in _message()


def test_check__tensorflow_of_an_unheard_of_distribution__is_found(
    installed, quiet, monkeypatch
):
    del installed["tensorflow"]
    installed["tensorflow-for-toasters"] = "2.19.0"
    names = {"tensorflow": ["tensorflow-for-toasters"]}
    monkeypatch.setattr(metadata, "packages_distributions", lambda: names)
    _versions.check()
    installed["tensorflow-for-toasters"] = "2.17.0"
    assert "got tensorflow 2.17.0" in _message()


@pytest.mark.parametrize("origin", ["tensorflow/__init__.py", None])
def test_check__no_metadata__asks_the_module_but_no_mere_folder(
    installed, monkeypatch, origin
):
    del installed["tensorflow"]
    spec = importlib.machinery.ModuleSpec("tensorflow", None, origin=origin)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: spec)
    built = types.SimpleNamespace(__version__="2.17.5")
    monkeypatch.setattr(importlib, "import_module", lambda name: built)
    expected = "got tensorflow 2.17.5" if origin else "not installed"
    assert expected in _message()


def test_check__imported_before__counts_more_than_metadata(installed, quiet):
    installed["tensorflow"] = "2.17.0"  # another one, left behind
    imported = types.SimpleNamespace(__version__="2.20.0")
    _versions.sys.modules["tensorflow"] = imported
    _versions.check()
    imported.__version__ = "2.16.2"
    assert "got tensorflow 2.16.2" in _message()


@pytest.mark.parametrize("backend", ["jax", "torch", "Tensorflow"])
def test_check__other_backend__error_names_it(installed, monkeypatch, backend):
    monkeypatch.setenv("KERAS_BACKEND", "tensorflow")
    _versions.check()
    monkeypatch.setenv("KERAS_BACKEND", backend)
    with pytest.raises(ImportError, match=f"KERAS_BACKEND={backend}"):
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
            lambda name: "3.11.0" if name == "keras" else true_version(name)
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
    assert "got keras 3.11.0" in error
    assert HOW["keras"] in error
    # Neither TensorFlow nor Keras, which a wrong version could make fail.
    assert early == "tf_gnc ."
    # No tensorflow_datasets, and no matplotlib, sklearn or part of absl beyond
    # what TensorFlow and Keras have brought.
    assert packages == "tf_gnc ."
    assert parts == "."
    assert datasets == "False"
