"""Runs that are killed and taken up again, against ones that are not.

    python -m tests.callbacks.exact

Prints a line of JSON for each scenario: its name, what went wrong (`null` if
all is equal bit for bit) and its CPU seconds. A process of its own, since
TensorFlow can't be told not to be deterministic any more. A kill is an error
out of a callback: what the run had in memory is lost, and a new model takes it
up.
"""

import json
import os
import random
import shutil
import sys
import tempfile
import time
import traceback

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import tensorflow as tf

import tf_gnc
from tests import problems
from tf_gnc import _keras_compat
from tf_gnc.step.control import control_of

STEPS = 4  # in an epoch, unless a scenario says otherwise
GNC = tf_gnc.GradientNoise(alpha=0.5)
RNC = tf_gnc.RandomNoise(alpha=0.1, seed=2)


class Killed(Exception):
    pass


class Kill(keras.callbacks.Callback):
    """Kills after a step (a number) or at the end of an epoch ("epoch n")."""

    backed_up = ()

    def __init__(self, when):
        super().__init__()
        self.when = when

    def on_train_batch_end(self, batch, logs=None):
        if not control_of(self.model).is_skipping:
            self._now(int(self.model.optimizer.iterations.numpy()))

    def on_epoch_end(self, epoch, logs=None):
        self._now(f"epoch {epoch}")

    def on_train_end(self, logs=None):
        self._now("end")

    def _now(self, moment):
        if moment == self.when:
            raise Killed


class Notes(keras.callbacks.Callback):
    """Counts, draws, and changes the rate from batch to batch."""

    def __init__(self):
        super().__init__()
        self.epochs = self.batches = 0
        self.losses, self.by_name = [], {"last": None}
        self.draws = np.zeros(2)

    def on_epoch_begin(self, epoch, logs=None):
        self.epochs += 1

    def on_train_batch_begin(self, batch, logs=None):
        rate = self.model.optimizer.learning_rate
        rate.assign(rate * 0.99)

    def on_train_batch_end(self, batch, logs=None):
        self.batches += 1
        self.losses.append(float(logs["loss"]))
        self.by_name["last"] = (batch, self.losses[-1])
        self.draws = self.draws + [random.random(), np.random.rand()]


class UnseededNoise(keras.layers.Layer):
    """Draws from Keras's global generator."""

    def call(self, x, training=False):
        if training:
            x = x + 0.1 * keras.random.normal(keras.ops.shape(x), dtype=x.dtype)
        return x


def network():
    model = problems.quick_network()
    if keras.config.dtype_policy().name == "float64":
        # Stock Keras can't add a float64 penalty to its float32 loss.
        return problems.dense_network(dropout=0.3)
    outputs = UnseededNoise(dtype=model.output.dtype)(model.output)
    return tf_gnc.GNCModel(model.input, outputs)


def schedules(folder):
    callbacks = keras.callbacks
    return [
        Notes(),
        callbacks.EarlyStopping("loss", patience=50),
        callbacks.ReduceLROnPlateau(
            "val_loss", factor=0.7, patience=0, min_delta=0.5
        ),
        callbacks.LearningRateScheduler(lambda epoch, rate: rate * 0.9),
        tf_gnc.callbacks.AlphaSchedule(lambda epoch, alpha: alpha * 0.9),
        tf_gnc.callbacks.SwitchNoise(2, RNC),
        callbacks.ModelCheckpoint(
            os.path.join(folder, "best.keras"), save_best_only=True
        ),
        callbacks.ModelCheckpoint(
            os.path.join(folder, "third.weights.h5"),
            save_weights_only=True,
            save_freq=3,
        ),
    ]


def notes(folder):
    return [Notes()]


def arrays(backup):
    x, y = problems.vectors(16 * STEPS)
    return {"x": x, "y": y, "batch_size": 16}


def attempt(folder, when, options):
    """One life of a run; returns what came out, or None if it was killed."""
    options = {"data": arrays, "callbacks": schedules, "noise": GNC, **options}
    _keras_compat.set_random_seed(1)
    keras.config.set_dtype_policy(options.get("policy", "float32"))
    backup = tf_gnc.callbacks.BackupAndRestore(
        os.path.join(folder, "backup"), **{"save_freq": 1, **options["backup"]}
    )
    strategy = options.get("strategy")
    with (
        strategy.scope()
        if strategy
        else problems.mirrored(options.get("replicas", 1))
    ):
        # Keras makes another generator for unseeded draws in each replica's
        # thread.
        alone = tf.distribute.get_strategy().num_replicas_in_sync == 1
        alone = alone and not options.get("elastic")
        model = network() if alone else problems.quick_network()
        model.compile(
            options.get("optimizer", problems.sgd)(),
            problems.cross_entropy(),
            metrics=["accuracy"],
            noise=options["noise"],
            num_workers=options.get("num_workers", 4),
            **options.get("compile", {}),
        )
    callbacks = options["callbacks"](folder)
    # A run that is taken up must go on whatever the seeds of its new process.
    backups = os.path.join(folder, "backup")
    if os.path.isdir(backups) and os.listdir(backups):
        _keras_compat.set_random_seed(1 + len(os.listdir(backups)))
    fit = {"epochs": 4}
    if callbacks and not isinstance(callbacks[-1], Notes):
        fit["validation_data"] = problems.vectors(24, seed=5)
    try:
        history = model.fit(
            **options["data"](backup),
            verbose=0,
            callbacks=[backup, *callbacks, Kill(when)],
            **{**fit, **options.get("fit", {})},
        )
    except Killed:
        return None
    if options.get("elastic"):
        return problems.float_weights(model), history.history
    return outcome(model, history, callbacks)


def outcome(model, history, callbacks):
    found = {f"{n} {v.name}": v.numpy() for n, v in enumerate(model.variables)}
    for number, variable in enumerate(model.optimizer.variables):
        found[f"optimizer {number}"] = variable.numpy()
    plan, strategy = model.step_plan, model.distribute_strategy
    if plan.memory is not None:
        local = strategy.experimental_local_results(plan.memory.mean)
        found["mean"] = local[0].numpy().astype("float64")
        for replica in range(len(local)):
            rows = plan.memory.rows(replica, strategy)
            found[f"rows {replica}"] = rows.astype("float64")
    found["alpha"] = model.noise_alpha
    found["rule"] = repr(model.noise_rule)
    found["history"] = {"epoch": history.epoch, **history.history}
    found["draws"] = [random.random(), np.random.rand()]
    found["unseeded"] = keras.random.uniform([3]).numpy()
    for number, callback in enumerate(callbacks):
        for name in ("epochs", "batches", "losses", "by_name", "draws", "best",
                     "wait", "cooldown_counter", "stopped_epoch"):  # fmt: skip
            if hasattr(callback, name):
                found[f"callback {number} {name}"] = getattr(callback, name)
    return found


def differences(first, second):
    """Names of what isn't equal."""
    names = first.keys() ^ second.keys()
    for name in first.keys() & second.keys():
        a, b = first[name], second[name]
        if isinstance(a, np.ndarray):
            equal = a.dtype == b.dtype and np.array_equal(a, b)
        else:
            equal = a == b
        if not equal:
            names.add(name)
    return sorted(names)


class Stop(keras.callbacks.Callback):
    """Has `fit` stop after a batch."""

    def on_train_batch_end(self, batch, logs=None):
        if int(self.model.optimizer.iterations.numpy()) == 6:
            self.model.stop_training = True


def stopping_at_six(folder):
    return [Notes(), Stop()]


def compare(kills, backup=None, files=(), **options):
    """Runs it undisturbed, and killed again and again."""
    options["backup"] = backup or {}
    with tempfile.TemporaryDirectory() as folder:
        calm, hard = (os.path.join(folder, name) for name in ("calm", "hard"))
        reference = attempt(calm, None, options)
        for when in kills:
            if attempt(hard, when, options) is not None:
                return f"not killed at {when}"
        found = attempt(hard, None, options)
        wrong = differences(reference, found)
        for name in files:
            kept = [os.path.join(root, name) for root in (calm, hard)]
            weights = [checkpoint(path) for path in kept]
            if not all(map(np.array_equal, *weights)):
                wrong.append(name)
        shutil.rmtree(folder, ignore_errors=True)
    if wrong:
        return ", ".join(wrong)
    return None


def checkpoint(path):
    model = network()
    model.load_weights(path)
    return model.get_weights()


def overflowing():
    """Loss scaling that overflows at first and later again."""
    return keras.mixed_precision.LossScaleOptimizer(
        problems.sgd(), initial_scale=2.0**17, dynamic_growth_steps=3
    )


def odd_arrays(backup):
    x, y = problems.vectors(16 * 5)
    return {"x": x, "y": y, "batch_size": 16}


def plain_dataset(backup):
    x, y = problems.vectors(16 * 5)
    return {"x": tf.data.Dataset.from_tensor_slices((x, y)).batch(16)}


def uncounted_dataset(backup):
    data = plain_dataset(backup)["x"]
    return {"x": data.filter(lambda x, y: True)}


def positioned_dataset(backup):
    x, y = problems.images(70)  # of which the model gets five pixels
    data = tf_gnc.data.training_dataset(
        (x * 30 + 128).clip(0, 255).astype("uint8"), y,
        batch_size=16, seed=3,
        preprocess=tf_gnc.data.Preprocess(
            mean=(128.0,), stddev=(30.0,), padding=1, flip=True
        ),
        first_step=backup.first_step(),
    )  # fmt: skip
    data = data.map(lambda x, y: (tf.reshape(x, [16, 36])[:, :5], y))
    return {"x": data, "steps_per_epoch": STEPS}


def stopping(folder):
    callbacks = keras.callbacks
    return [
        Notes(),
        callbacks.EarlyStopping(
            "val_loss", mode="max", patience=1, min_delta=10,
            restore_best_weights=True,
        ),
    ]  # fmt: skip


def arrays_for_twelve(backup):
    x, y = problems.vectors(24 * STEPS)
    return {"x": x, "y": y, "batch_size": 24}


# The options of a run that is begun and taken up on several devices.
ELASTIC = {
    "elastic": True,
    "num_workers": 12,
    "data": arrays_for_twelve,
    "backup": {"save_freq": 2},
    "callbacks": notes,
    "fit": {"epochs": 3},
}

SCENARIOS = {
    # With nothing saved; after the first step; in mid-epoch, so that the
    # epoch's last step is the newest, the next one's first, one under the
    # second rule; and when all has been done but the end of `fit`.
    "everywhere": lambda: compare(
        [1, 2, 4, 5, 6, 10, "end"], files=["best.keras", "third.weights.h5"]
    ),
    "epochs": lambda: compare(
        ["epoch 1"], {"save_freq": "epoch"}, noise=None, fit={"epochs": 3}
    ),
    "loss scaling": lambda: compare(
        [2, 3, 4], policy="mixed_float16", optimizer=overflowing,
        callbacks=notes, fit={"epochs": 3},
    ),
    "bfloat16 memory, positioned data": lambda: compare(
        [3], callbacks=notes, data=positioned_dataset, fit={"epochs": 2},
        noise=tf_gnc.GradientNoise(alpha=0.5, noise_dtype="bfloat16"),
    ),
    "float64, initial epoch": lambda: compare(
        [3], policy="float64", callbacks=notes, fit={"initial_epoch": 2}
    ),
    "several steps a call, arrays": lambda: compare(
        [4, 10], callbacks=notes, data=odd_arrays,
        compile={"steps_per_execution": 2}, fit={"epochs": 2},
    ),
    "several steps a call, data set": lambda: compare(
        [4, 9], callbacks=notes, data=plain_dataset,
        compile={"steps_per_execution": 2}, fit={"epochs": 2},
    ),
    "data set of unknown size": lambda: compare(
        [3, 7], callbacks=notes, data=uncounted_dataset, fit={"epochs": 2},
    ),
    "early stopping": lambda: compare([6, "end"], callbacks=stopping),
    "stopped in mid-epoch": lambda: compare(
        ["epoch 1"], callbacks=stopping_at_six,
    ),
    "two replicas": lambda: compare(
        [3], replicas=2, callbacks=notes, fit={"epochs": 2},
    ),
}  # fmt: skip


def main(names):
    tf.config.set_logical_device_configuration(
        tf.config.list_physical_devices("CPU")[0],
        [tf.config.LogicalDeviceConfiguration() for _ in range(4)],
    )
    tf.config.experimental.enable_op_determinism()
    for name in names or SCENARIOS:
        began = time.process_time()
        try:
            wrong = SCENARIOS[name]()
        except Exception:
            wrong = traceback.format_exc()
        seconds = round(time.process_time() - began, 1)
        print(json.dumps([name, wrong, seconds]), flush=True)
        keras.backend.clear_session()


if __name__ == "__main__":
    main(sys.argv[1:])
