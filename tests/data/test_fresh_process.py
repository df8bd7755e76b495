"""What only a process of its own can show.

A switch of TensorFlow's that cannot be undone, and what an import brings in.
"""

import json
import pathlib
import subprocess
import sys

import pytest

# Keras may import some of the slow packages on its own account.
PROGRAM = """
import hashlib, json, sys
import keras
import tensorflow as tf
before = set(sys.modules)
import tf_gnc.data
slow = {"tensorflow_datasets", "sklearn", "matplotlib", "pyarrow"}
slow = sorted(slow & (set(sys.modules) - before))
sys.path.insert(0, sys.argv[1])
import test_pipeline

def digest():
    checksum = hashlib.sha256()
    for images, labels in test_pipeline.batches(3, batch_size=600):
        checksum.update(images.tobytes() + labels.tobytes())
    return checksum.hexdigest()

digests = [digest()]
tf.config.experimental.enable_op_determinism()
digests.append(digest())
print(json.dumps({"slow": slow, "digests": digests}))
"""


@pytest.fixture(scope="module")
def report():
    directory = str(pathlib.Path(__file__).parent)
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, directory],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_import__data__leaves_slow_packages_alone(report):
    assert report["slow"] == []


def test_training_dataset__op_determinism__gives_the_same_bits(report):
    before, after = report["digests"]
    assert before == after
