"""Gradient noise convolution (GNC) for Keras.

Train any Keras model with GNC through plain `compile` and `fit`:

    model = tf_gnc.GNCModel(inputs, outputs)
    model.compile(..., noise=tf_gnc.GradientNoise(alpha=0.1), num_workers=256)
    model.fit(dataset, epochs=160)
"""

from tf_gnc import _versions

_versions.check()  # Before any import that another version would make fail.

from tf_gnc import (  # noqa: E402
    callbacks,
    data,
    models,
    optimizers,
    schedules,
)
from tf_gnc._version import __version__  # noqa: E402
from tf_gnc.noise import GradientNoise, NoiseRule, RandomNoise  # noqa: E402
from tf_gnc.threads import set_threads  # noqa: E402
from tf_gnc.train_step import GNCModel, GNCTrainStep  # noqa: E402

__all__ = [
    "GNCModel",
    "GNCTrainStep",
    "GradientNoise",
    "NoiseRule",
    "RandomNoise",
    "__version__",
    "callbacks",
    "data",
    "models",
    "optimizers",
    "schedules",
    "set_threads",
]
