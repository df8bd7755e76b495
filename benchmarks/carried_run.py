"""How often a carried run has seen each example, on 1, 2 and 4 processes.

    python benchmarks/carried_run.py [--epochs=3]

Trains on the digits with `tf-gnc train --remainder=carry`, by a network that
counts the examples that pass through it: a moving statistic of each example
becomes the mean over the M workers, so that M times it is a count. Then once
more in two processes, killed in the middle of a step that spans two epochs and
taken up again. Each example must come `epochs` or `epochs - 1` times.
"""

import argparse
import os
import pathlib
import signal
import subprocess
import tempfile

import keras
import numpy as np

import tf_gnc

M, BATCH = 8, 256
KILL_AT, MARKER = "CARRIED_RUN_KILL_AT", "CARRIED_RUN_MARKER"


class Counts(keras.layers.Layer):
    """Passes pictures on and counts them by the number in their last column."""

    def __init__(self, size: int, **kwargs) -> None:
        super().__init__(**kwargs)
        self.size = size

    def build(self, input_shape) -> None:
        """Makes the counts."""
        self.counts = self.add_weight(
            shape=(self.size,), initializer="zeros", trainable=False
        )
        self.steps = self.add_weight(
            shape=(), initializer="zeros", trainable=False
        )

    def call(self, x, training=False):
        """Counts in training; dies where it is told to."""
        if training:
            numbers = keras.ops.cast(x[:, -1], "int32")
            seen = keras.ops.sum(keras.ops.one_hot(numbers, self.size), axis=0)
            self.counts.assign(self.counts + seen)
            self.steps.assign(self.steps + 1)
            if os.environ.get(KILL_AT):
                tf_gnc_die(self.steps)
        return x[:, :-1]


def tf_gnc_die(step) -> None:
    """Kills this process once, in the step that is told."""
    import tensorflow as tf

    def die(step) -> None:
        marker = pathlib.Path(os.environ[MARKER])
        if int(step) == int(os.environ[KILL_AT]) and not marker.exists():
            marker.touch()
            os.kill(os.getpid(), signal.SIGKILL)

    tf.py_function(die, [step], [])


def load():
    """Returns the digits, each with its number in a column of its own."""
    images = tf_gnc.data.load("digits")

    def flat(pictures, first):
        x = pictures.reshape(len(pictures), -1) / 16
        numbers = np.arange(len(x))[:, None] + first
        return np.concatenate([x, numbers], axis=1).astype("float32")

    train = flat(images.train_images, 0), images.train_labels
    return train, (flat(images.test_images, 0), images.test_labels)


def build():
    """Returns the network that counts."""
    size = tf_gnc.data.load("digits").num_train
    inputs = keras.Input((65,))
    x = Counts(size)(inputs)
    x = keras.layers.Dense(32, "relu")(x)
    return keras.Model(inputs, keras.layers.Dense(10)(x))


def count(processes: int, epochs: int, kill_at: int = 0) -> np.ndarray:
    """Returns how often each example was seen in a run."""
    with tempfile.TemporaryDirectory() as folder:
        run_dir = pathlib.Path(folder, "run")
        command = [
            "train", "--data_fn=carried_run:load",
            "--model_fn=carried_run:build", f"--workers={M}",
            f"--batch_size={BATCH}", f"--epochs={epochs}",
            "--remainder=carry", "--backup=1", f"--run_dir={run_dir}",
        ]  # fmt: skip
        if processes > 1 or kill_at:
            launch = ["launch", f"--processes={processes}", "--max_restarts=1"]
            command = [*launch, "--", *command]
        environment = {
            **os.environ,
            "PYTHONPATH": str(pathlib.Path(__file__).parent),
            MARKER: str(pathlib.Path(folder, "killed")),
            KILL_AT: str(kill_at or ""),
        }
        subprocess.run(
            ["tf-gnc", *command],
            env=environment, check=True, stdout=subprocess.DEVNULL,
        )  # fmt: skip
        model = keras.models.load_model(
            run_dir / "model.keras", custom_objects={"Counts": Counts}
        )
        if kill_at and not pathlib.Path(folder, "killed").exists():
            raise RuntimeError(f"no step {kill_at}, so nothing was killed")
        (layer,) = (x for x in model.layers if isinstance(x, Counts))
        return np.rint(M * layer.counts.numpy()).astype(int)


def main() -> None:
    """Prints a line for each run."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=int, default=3)
    epochs = parser.parse_args().epochs
    size = tf_gnc.data.load("digits").num_train
    updates = tf_gnc.data.Updates(size, BATCH, carry=True)
    total, spanning = updates.before(epochs), updates.before(1) + 1
    print(f"{size} examples, {BATCH} at a time, {epochs} epochs, carried")
    first = None
    for processes, kill_at in ((1, 0), (2, 0), (4, 0), (2, spanning)):
        found = count(processes, epochs, kill_at)
        first = found if first is None else first
        times = {int(n): int((found == n).sum()) for n in np.unique(found)}
        ended = f", killed in step {kill_at} and taken up" if kill_at else ""
        print(
            f"{processes} processes{ended}: {found.sum()} = {total} updates x "
            f"{BATCH}; examples by how often: {times}; the same as alone: "
            f"{np.array_equal(found, first)}"
        )


if __name__ == "__main__":
    main()
