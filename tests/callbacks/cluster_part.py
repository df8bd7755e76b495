"""One process of a run that is stopped after a step, or saves its weights.

python cluster_part.py <folder> <step, 0 for none>
"""

import os
import sys
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
sys.path.insert(0, str(Path(__file__).parents[2]))

from tf_gnc.distribute import make_strategy  # noqa: E402

STRATEGY = make_strategy("auto")  # before TensorFlow does anything else

import numpy as np  # noqa: E402

from tests.callbacks import exact  # noqa: E402

if __name__ == "__main__":
    folder, stop = sys.argv[1], int(sys.argv[2]) or None
    found = exact.attempt(folder, stop, {**exact.ELASTIC, "strategy": STRATEGY})
    if found is not None and os.environ["TF_GNC_PROCESS"] == "0":
        weights, history = found
        np.savez(os.path.join(folder, "weights.npz"), *weights,
                 loss=history["loss"])  # fmt: skip
    # Killed for good: without waiting for anybody.
    sys.stdout.flush()
    os._exit(0 if found is not None or stop else 1)
