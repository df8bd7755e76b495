"""Gradient noise convolution (GNC) for Keras.

Train any Keras model with GNC through plain `compile` and `fit`:

    model = tf_gnc.GNCModel(inputs, outputs)
    model.compile(..., noise=tf_gnc.GradientNoise(alpha=0.1), num_workers=256)
    model.fit(dataset, epochs=160)

The versions of TensorFlow and Keras are checked before either is imported.
"""

import importlib
from typing import Any

from tf_gnc import _registration, _versions
from tf_gnc._version import __version__

_versions.check()

# public name: the module that holds it, or None for a module itself.
_EXPORTS = {
    "GNCModel": "tf_gnc.step.train_step",
    "GNCTrainStep": "tf_gnc.step.train_step",
    "GradientNoise": "tf_gnc.noise.gradient",
    "NoiseRule": "tf_gnc.noise.rule",
    "RandomNoise": "tf_gnc.noise.random",
    "analysis": None,
    "callbacks": None,
    "data": None,
    "distribute": None,
    "doctor": None,
    "experiments": None,
    "losses": None,
    "models": None,
    "optimizers": None,
    "schedules": None,
    "set_threads": "tf_gnc.threads",
}

__all__ = ["__version__", *_EXPORTS]


def __getattr__(name: str) -> Any:
    """Imports a public name when it is first asked for."""
    if name not in _EXPORTS:
        raise AttributeError(f"module 'tf_gnc' has no attribute {name!r}")
    if _EXPORTS[name] is None:
        return importlib.import_module(f"tf_gnc.{name}")
    value = getattr(importlib.import_module(_EXPORTS[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """Lists the public names, those not imported yet included."""
    return sorted({*globals(), *__all__})


_registration.register_with_keras()
