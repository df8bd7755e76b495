"""Checks versions first of all, and says what to install.

Looks at installed packages' metadata, so it imports neither TensorFlow nor
Keras, which another version could make fail in obscure ways.
"""

import importlib
import importlib.util
import json
import os
import pathlib
import re
import sys
import warnings
from importlib import metadata

# The oldest and the newest that scripts/versions.sh has tried. pyproject.toml
# asks for the oldest, which a test compares.
TRIED = {
    "tensorflow": ((2, 18), (2, 21)),
    "keras": ((3, 12), (3, 15)),
}

# The distributions that bring a module, the likely ones. Others are searched
# for, which takes longer.
_DISTRIBUTIONS = {
    "tensorflow": (
        "tensorflow",
        "tensorflow-cpu",
        "tensorflow-tpu",
        "tf-nightly",
    ),
    "keras": ("keras", "keras-nightly"),
}

_ADVICE = {
    "tensorflow": (
        "tf_gnc's extras bring one each: [tensorflow], [cpu] (smaller, without "
        "GPUs), [cuda] (with NVIDIA's libraries) and [tpu] (for Cloud TPU), as "
        'in: pip install "tf-gnc[tensorflow]", or pip install ".[tensorflow]" '
        "in a checkout."
    ),
    "keras": 'Install a fitting one with: pip install "keras>=3.12"',
}


def check() -> None:
    """Checks TensorFlow, Keras and Keras's backend.

    Warns of versions that are newer than all that were tried.

    Raises:
        ImportError: If TensorFlow or Keras is missing or too old, or if Keras
            is told to use another backend than TensorFlow. The command
            `tf-gnc` ends with the message alone.
    """
    problem = _problem()
    if problem is None:
        return
    if pathlib.Path(sys.argv[0]).stem == "tf-gnc":
        sys.exit(f"tf-gnc: error: {problem}")
    raise ImportError(problem)


def _problem() -> str | None:
    """Says why tf_gnc can't run here, if it can't."""
    for module, (oldest, newest) in TRIED.items():
        found = _installed(module)
        advice = _ADVICE[module]
        if found is None:
            return f"tf_gnc needs {module}, which is not installed. {advice}"
        release = tuple(int(n) for n in re.findall(r"\d+", found)[:2])
        tried = f"{module} {_dotted(oldest)} to {_dotted(newest)}"
        if release < oldest:
            return (
                f"tf_gnc was tried with {tried}, got {module} {found}, which "
                f"is older. {advice}"
            )
        if release > newest:
            warnings.warn(
                f"tf_gnc was tried with {tried}, got {module} {found}, which "
                "is newer and may behave otherwise.",
                stacklevel=4,  # the import of tf_gnc
            )
    backend, source = _backend()
    if backend != "tensorflow":
        return (
            "tf_gnc needs Keras's TensorFlow backend, got "
            f"{backend!r} from {source}. Set the environment variable "
            "KERAS_BACKEND=tensorflow."
        )
    return None


def _backend() -> tuple[str, str]:
    """Returns the backend that Keras will use, and what has set it."""
    backend = os.environ.get("KERAS_BACKEND")
    if backend:
        return backend, f"KERAS_BACKEND={backend}"
    home = os.environ.get("KERAS_HOME") or pathlib.Path.home() / ".keras"
    file = pathlib.Path(home) / "keras.json"
    try:
        backend = json.loads(file.read_text()).get("backend")
    except (OSError, ValueError, AttributeError):
        backend = None  # Keras passes over a file that it can't read, too.
    return backend or "tensorflow", str(file)


def _installed(module: str) -> str | None:
    """Returns the version of an importable module, without importing it."""
    if module in sys.modules:
        return sys.modules[module].__version__
    for distribution in _DISTRIBUTIONS[module]:
        try:
            return metadata.version(distribution)
        except metadata.PackageNotFoundError:
            continue
    for distribution in metadata.packages_distributions().get(module, ()):
        return metadata.version(distribution)
    # A build without metadata; a folder of that name alone has no origin.
    spec = importlib.util.find_spec(module)
    if spec is not None and spec.origin is not None:
        return importlib.import_module(module).__version__
    return None


def _dotted(release: tuple[int, ...]) -> str:
    return ".".join(str(number) for number in release)
