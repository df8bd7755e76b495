"""Writes what a version of tf_gnc leaves behind, for later versions to load.

The archive beside this file was written by commit ea66dae:

    git worktree add /tmp/old ea66dae
    cd /tmp
    PYTHONPATH=/tmp/old python REPOSITORY/tests/old_files/make.py ea66dae

It holds:

model_*.keras  models with noise, optimizers and schedules of ours, and what
               they predict
backup/        a run of two epochs, killed after its first step of the second
expected.npz   predictions of the models, and the weights of that run when
               nobody kills it
"""

import contextlib
import pathlib
import shutil
import sys
import tempfile

import keras
import numpy as np
import tensorflow as tf

import tf_gnc

EXAMPLES = 24


def data():
    """Inputs, and labels of three classes."""
    numbers = np.random.default_rng(3)
    x = numbers.normal(size=(EXAMPLES, 4)).astype("float32")
    return x, numbers.integers(0, 3, EXAMPLES)


def network(loss="sparse_categorical_crossentropy", **compiled):
    """A small model, compiled."""
    inputs = keras.Input((4,))
    hidden = keras.layers.Dense(5, activation="tanh")(inputs)
    hidden = keras.layers.BatchNormalization()(hidden)
    outputs = keras.layers.Dense(3, activation="softmax")(hidden)
    model = tf_gnc.GNCModel(inputs, outputs)
    model.compile(loss=loss, metrics=["accuracy"], num_workers=4, **compiled)
    return model


def gradient_noise_and_lars(loss="sparse_categorical_crossentropy"):
    """GNC and LARS, whose rate warms up, falls and collapses."""
    schedules = tf_gnc.schedules
    rate = schedules.PolynomialDecay(0.5, 20, after=4)
    rate = schedules.FinalCollapse(rate, 18)
    return network(
        loss,
        optimizer=tf_gnc.optimizers.LARS(schedules.WarmUp(0.1, 4, rate)),
        noise=tf_gnc.GradientNoise(alpha=0.2, noise_dtype="bfloat16"),
    )


def random_noise_and_momentum():
    """RNC and momentum, whose rate falls in steps."""
    rate = tf_gnc.schedules.StepDecay(0.05, [2])
    return network(
        optimizer=tf_gnc.optimizers.MomentumSGD(rate, momentum=0.9),
        noise=tf_gnc.RandomNoise(alpha=0.1, seed=5),
    )


def run_to_back_up(callbacks=()):
    """Trains a model for two epochs, and returns it."""
    keras.utils.set_random_seed(1)
    rate = tf_gnc.schedules.StepDecay(0.05, [2])
    model = network(
        optimizer=tf_gnc.optimizers.MomentumSGD(rate, momentum=0.9),
        noise=tf_gnc.GradientNoise(alpha=0.2),
    )
    model.fit(
        *data(), batch_size=8, epochs=2, verbose=0, callbacks=[*callbacks]
    )
    return model


class KillAt(keras.callbacks.Callback):
    """Ends training in the middle of an epoch, as a kill would."""

    def on_train_batch_begin(self, batch, logs=None):
        """Raises at the second step of the second epoch."""
        if self.model.optimizer.iterations.numpy() == 4:
            raise KeyboardInterrupt


def _smoothed():
    from tf_gnc.experiments import building  # where it was at that commit

    return building.SmoothedCrossentropy(0.1, from_logits=False)


def main(version):
    """Writes the archive of a version."""
    tf.config.experimental.enable_op_determinism()
    folder = pathlib.Path(tempfile.mkdtemp())
    x, y = data()
    expected = {}
    models = {
        "lars": gradient_noise_and_lars,
        "momentum": random_noise_and_momentum,
        "smoothed": lambda: gradient_noise_and_lars(_smoothed()),
    }
    for name, make in models.items():
        keras.utils.set_random_seed(2)
        model = make()
        model.fit(x, y, batch_size=8, epochs=1, verbose=0)
        model.save(folder / f"model_{name}.keras")
        expected[f"predictions_{name}"] = model.predict(x, verbose=0)
        expected[f"loss_{name}"] = model.evaluate(x, y, verbose=0)[0]
    backups = [
        tf_gnc.callbacks.BackupAndRestore(path, save_freq=1, keep=1)
        for path in (folder / "backup", tempfile.mkdtemp())
    ]
    killed, whole = ([KillAt(), backups[0]], backups[1:])
    for number, weight in enumerate(run_to_back_up(whole).get_weights()):
        expected[f"weight_{number}"] = weight
    with contextlib.suppress(KeyboardInterrupt):
        run_to_back_up(killed)
    np.savez_compressed(folder / "expected.npz", **expected)
    archive = pathlib.Path(__file__).with_name(version)
    shutil.make_archive(archive, "zip", folder)


if __name__ == "__main__":
    main(sys.argv[1])
