"""What only a process of its own can show.

What loads where only Keras is; then, in the same process, what an import brings
in, and a switch of TensorFlow's that can't be undone.
"""

import json
import subprocess
import sys

import keras
import numpy as np
import pytest

import tf_gnc
from tests import problems, processes
from tf_gnc import models

# Keras may import some of the slow packages on its own account.
PROGRAM = """
import hashlib, json, sys
import keras
import numpy as np
folder, root = sys.argv[1:]

types = {}
for name in ("resnet", "full_network"):
    model = keras.models.load_model(f"{folder}/{name}.keras")
    x = np.load(f"{folder}/{name}-x.npy")
    np.save(f"{folder}/{name}-y.npy", model.predict(x, verbose=0))
    types[name] = type(model).__name__
ours = [name for name in sys.modules if name.startswith("tf_gnc")]

sys.path.insert(0, root)
import tensorflow as tf
before = set(sys.modules)
import tf_gnc.data
slow = {"tensorflow_datasets", "sklearn", "matplotlib", "pyarrow"}
slow = sorted(slow & (set(sys.modules) - before))
from tests.data import test_pipeline

def digest():
    checksum = hashlib.sha256()
    for images, labels in test_pipeline.batches(3, batch_size=600):
        checksum.update(images.tobytes() + labels.tobytes())
    return checksum.hexdigest()

digests = [digest()]
tf.config.experimental.enable_op_determinism()
digests.append(digest())
print(json.dumps(
    {"types": types, "ours": ours, "slow": slow, "digests": digests}
))
"""


def _resnet():
    """A residual network of ours in stock Keras, and pictures for it."""
    x = np.random.default_rng(0).normal(size=(16, 8, 8, 1)).astype("float32")
    model = models.build("resnet8", 10, (8, 8, 1))
    model.compile(
        "sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    )
    model.train_on_batch(x, np.arange(16) % 10)
    return model, x


def _full_network():
    """A GNCModel after training, and pictures for it."""
    x, y = problems.images()
    model, _ = problems.trained(
        problems.full_network(),
        x,
        y,
        noise=tf_gnc.GradientNoise(alpha=0.1),
        num_workers=4,
    )
    return model, x


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    """What the process prints; and what each model predicts, here and there."""
    folder = tmp_path_factory.mktemp("fresh")
    here = {}
    for name, make in (("resnet", _resnet), ("full_network", _full_network)):
        model, x = make()
        saved = model.to_keras() if name == "full_network" else model
        saved.save(folder / f"{name}.keras")
        np.save(folder / f"{name}-x.npy", x)
        here[name] = model.predict(x, verbose=0)
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(folder), str(processes.ROOT)],
        capture_output=True,
        text=True,
        cwd=folder,
    )
    assert done.returncode == 0, done.stderr
    there = {name: np.load(folder / f"{name}-y.npy") for name in here}
    return json.loads(done.stdout.splitlines()[-1]), here, there


def test_saved__resnet_after_training__loads_where_only_keras_is(report):
    printed, here, there = report
    assert printed["ours"] == []
    # Another process may sum in another order: 2e3 terms of order 1 at most.
    np.testing.assert_allclose(
        there["resnet"], here["resnet"], rtol=1e-4, atol=1e-4
    )


def test_to_keras__saved__loads_and_predicts_without_tf_gnc(report):
    printed, here, there = report
    assert printed["ours"] == []
    assert printed["types"]["full_network"] == "Functional"
    np.testing.assert_allclose(
        there["full_network"], here["full_network"], rtol=1e-5
    )


def test_import__data__leaves_slow_packages_alone(report):
    assert report[0]["slow"] == []


def test_training_dataset__op_determinism__gives_the_same_bits(report):
    before, after = report[0]["digests"]
    assert before == after
