"""Versions, machine and memory of a run, so that it can be repeated."""

import os
import platform
import sys
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tf_gnc import threads
from tf_gnc._version import __version__


def environment() -> dict[str, Any]:
    """Returns the versions and the machine that a run depends on."""
    threading = tf.config.threading
    return {
        "versions": {
            "tf_gnc": __version__,
            "tensorflow": tf.__version__,
            "keras": keras.version(),
            "numpy": np.__version__,
            "python": platform.python_version(),
        },
        "platform": platform.platform(),
        "machine": platform.machine(),
        "num_cores": threads.num_cores(),
        "gpus": len(tf.config.list_physical_devices("GPU")),
        "inter_op_threads": threading.get_inter_op_parallelism_threads(),
        "intra_op_threads": threading.get_intra_op_parallelism_threads(),
        # oneDNN rounds in another order than TensorFlow's own kernels.
        "tf_enable_onednn_opts": os.environ.get("TF_ENABLE_ONEDNN_OPTS"),
    }


def peak_memory_bytes() -> int | None:
    """Returns the most memory that this process has ever held, in bytes.

    Counted from the start of the process, so a process that trains several
    runs reports the largest so far. None where the system doesn't tell.
    """
    try:
        import resource
    except ImportError:  # Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
