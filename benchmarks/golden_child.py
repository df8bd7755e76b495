"""The processes that benchmarks/golden.py starts, and what it trains them on.

    python benchmarks/golden_child.py REPLICAS KILL_AFTER train [--flags]
    python benchmarks/golden_child.py prepare DIRECTORY

Calls the `tf-gnc` of the tree that PYTHONPATH names: with several replicas on
logical CPUs if there are to be several, and killed after so many training
steps unless that is 0. `load` and `build` are for --data_fn and --model_fn.
"""

import contextlib
import os
import signal
import sys
from pathlib import Path
from typing import Any

TREE = "TF_GNC_GOLDEN_TREE"  # In the environment: where tf_gnc must lie.


def main() -> int:
    """Does what the command line says."""
    if sys.argv[1] == "prepare":
        prepare(sys.argv[2])
        return 0
    replicas, kill_after, words = *map(int, sys.argv[1:3]), sys.argv[3:]
    sys.argv = ["tf-gnc", *words]  # tf_gnc looks at its name.
    check_tree()
    from tf_gnc.cli.main import main

    with contextlib.ExitStack() as stack:
        if replicas > 1:
            stack.enter_context(_mirrored(replicas))
        if kill_after:
            _kill_after(kill_after)
        return main(words)


def check_tree() -> None:
    """Raises unless tf_gnc is the one to be tried."""
    import tf_gnc

    if not Path(tf_gnc.__file__).is_relative_to(os.environ[TREE]):
        raise RuntimeError(f"{tf_gnc.__file__} isn't in {os.environ[TREE]}.")


def _mirrored(count: int) -> contextlib.AbstractContextManager:
    """Returns the scope of a strategy, which `--strategy=none` takes."""
    import tensorflow as tf

    import tf_gnc

    tf_gnc.set_threads()
    tf.config.set_logical_device_configuration(
        tf.config.list_physical_devices("CPU")[0],
        [tf.config.LogicalDeviceConfiguration()] * count,
    )
    devices = [f"CPU:{number}" for number in range(count)]
    return tf_gnc.distribute.make_strategy("mirrored", devices=devices).scope()


def _kill_after(steps: int) -> None:
    import keras

    ended, counted = keras.callbacks.CallbackList.on_train_batch_end, []

    def end(self: Any, *args: Any, **kwargs: Any) -> None:
        ended(self, *args, **kwargs)
        counted.append(args)
        if len(counted) == steps:
            os.kill(os.getpid(), signal.SIGKILL)

    keras.callbacks.CallbackList.on_train_batch_end = end


def prepare(data: str) -> None:
    """Writes tiny data sets with the names and forms of the real ones."""
    import numpy as np
    import tensorflow as tf
    import tensorflow_datasets as tfds

    for name, version, test, encoding in (
        ("cifar10", "3.0.2", "test", "png"),
        ("imagenet2012", "5.1.0", "validation", "jpeg"),
    ):
        rng, splits = np.random.default_rng(3), {}
        for split in ("train", test):
            images = rng.integers(0, 256, (48, 4, 4, 3), "uint8")
            images = images.repeat(8, axis=1).repeat(8, axis=2)
            columns = {"image": images, "label": rng.integers(0, 10, 48)}
            splits[split] = tf.data.Dataset.from_tensor_slices(columns)
        image = tfds.features.Image(shape=(32, 32, 3), encoding_format=encoding)
        label = tfds.features.ClassLabel(num_classes=10)
        tfds.dataset_builders.TfDataBuilder(
            name=name,
            version=version,
            features=tfds.features.FeaturesDict(
                {"image": image, "label": label}
            ),
            split_datasets=splits,
            data_dir=data,
        ).download_and_prepare()


def load() -> tuple:
    """Returns pictures, for `--data_fn`."""
    import numpy as np

    check_tree()
    rng = np.random.default_rng(7)
    y = rng.integers(0, 5, 192)
    x = rng.normal(y[:, None, None, None] / 5, size=(192, 8, 8, 3))
    x = x.astype("float32")
    return (x[:128], y[:128]), (x[128:], y[128:])


def build() -> Any:
    """Returns a network and an optimizer, for `--model_fn`."""
    from keras import Sequential, layers, losses, optimizers

    convolution = layers.Conv2D(8, 3, activation="relu")
    parts = [layers.Input((8, 8, 3)), convolution, layers.BatchNormalization()]
    parts += [layers.Flatten(), layers.Dropout(0.2), layers.Dense(5)]
    model, loss = Sequential(parts), losses.SparseCategoricalCrossentropy(True)
    model.compile(optimizers.Adam(0.01), loss)
    return model


if __name__ == "__main__":
    sys.exit(main())
