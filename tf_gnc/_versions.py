"""Checks versions first of all, and says what to install.

Looks at installed packages' metadata, so it imports neither TensorFlow nor
Keras, which another version could make fail in obscure ways.
"""

import json
import os
import pathlib
import re
from importlib import metadata

# The ranges that were really tried: (from, below), the same as in
# pyproject.toml, which a test compares.
SUPPORTED = {
    "tensorflow": ((2, 21), (2, 22)),
    "keras": ((3, 15), (3, 16)),
}


def check() -> None:
    """Checks TensorFlow, Keras and Keras's backend.

    Raises:
        ImportError: If one is missing or out of the range that was tried, or
            if Keras is told to use another backend than TensorFlow.
    """
    wanted = " ".join(
        f'"{name}>={_dotted(low)},<{_dotted(high)}"'
        for name, (low, high) in SUPPORTED.items()
    )
    advice = f"Install fitting versions with: pip install {wanted}"
    for name, (low, high) in SUPPORTED.items():
        found = _installed(name)
        if found is None:
            raise ImportError(
                f"tf_gnc needs {name}, which is not installed. {advice}"
            )
        release = tuple(int(n) for n in re.findall(r"\d+", found)[:2])
        if not low <= release < high:
            raise ImportError(
                f"tf_gnc was tried with {name} {_dotted(low)} up to, and "
                f"without, {_dotted(high)}, got {name} {found}. {advice}"
            )
    backend, source = _backend()
    if backend != "tensorflow":
        raise ImportError(
            "tf_gnc needs Keras's TensorFlow backend, got "
            f"{backend!r} from {source}. Set the environment variable "
            "KERAS_BACKEND=tensorflow."
        )


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


def _installed(name: str) -> str | None:
    # The CPU-only and nightly builds carry the same package under other names.
    aliases = {"tensorflow": ("tensorflow", "tensorflow-cpu", "tf-nightly")}
    for alias in aliases.get(name, (name,)):
        try:
            return metadata.version(alias)
        except metadata.PackageNotFoundError:
            continue
    return None


def _dotted(release: tuple[int, ...]) -> str:
    return ".".join(str(number) for number in release)
