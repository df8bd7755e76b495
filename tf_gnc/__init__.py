"""Gradient noise convolution (GNC) for Keras.

Train any Keras model with GNC through plain `compile` and `fit`:

    model = tf_gnc.GNCModel(inputs, outputs)
    model.compile(..., noise=tf_gnc.GradientNoise(alpha=0.1), num_workers=256)
    model.fit(dataset, epochs=160)

Where to begin reading: `noise/rule.py` and `noise/gradient.py` are the method,
`step/__init__.py` tells how a training step runs it. A file imports from lower
floors and its own folder only.

    floor 7  cli           `tf-gnc`: a file for each subcommand
    floor 6  experiments   a run from its settings; methods, recipes, comparing,
                           tuning and figures
    floor 5  callbacks     switch the noise, back up, measure
             doctor        is the noise on and right, does it fit
    floor 4  analysis      the paper's measurements of a model
    floor 3  step          the training step inside `fit`
    floor 2  distribute    strategies, processes, who gets which rows
    floor 1  noise         the rules, a file each
             optimizers    momentum, LARS
             schedules     learning rates, exact at every step
             losses        smoothed cross-entropy
             models        ResNets by name
             data          data sets by name, seeded for each example
             store         backups that a kill can't spoil
             launch        processes on this machine; no TensorFlow
             _settings     a setting described once: checks, flags and help
    floor 0  layers        a quicker batch normalization
             _batch, _check, _files, _registration, _versions, threads
             _keras_compat  the only place for private names of Keras

The versions of TensorFlow and Keras are checked, and neither is imported,
before a name that needs them is asked for.
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
    "MomentumNoise": "tf_gnc.noise.momentum",
    "NoiseRule": "tf_gnc.noise.rule",
    "RandomNoise": "tf_gnc.noise.random",
    "SharpnessAware": "tf_gnc.noise.sharpness_aware",
    "analysis": None,
    "callbacks": None,
    "data": None,
    "distribute": None,
    "doctor": None,
    "experiments": None,
    "layers": None,
    "losses": None,
    "models": None,
    "optimizers": None,
    "schedules": None,
    "recalibrate_batch_norm": "tf_gnc.callbacks.batch_norm",
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
