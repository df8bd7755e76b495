"""Measures the input pipeline: pictures per second and core.

    python benchmarks/input_pipeline.py

Takes about half a minute and needs no data: the pictures are random bytes in
the shapes of the digits and of CIFAR. A rate is pictures per second of
processor time, all threads added up, which is what the pipeline takes from a
training step on the same cores. "Per example" is the same work done by mapping
single pictures, the usual way, with the batch made afterwards.
"""

import dataclasses
import time

import numpy as np
import tensorflow as tf

from tf_gnc import data
from tf_gnc.data import pipeline

_BATCH_SIZE = 256
_SECONDS = 1.5


def measure(dataset: tf.data.Dataset, batch_size: int) -> float:
    """Returns pictures per second of processor time, after a warm-up."""
    iterator = iter(dataset)
    for _ in range(8):
        next(iterator)
    start, clock = time.process_time(), time.perf_counter()
    num_batches = 0
    while time.perf_counter() - clock < _SECONDS:
        next(iterator)
        num_batches += 1
    return num_batches * batch_size / (time.process_time() - start)


def per_example(
    images: np.ndarray, preprocess: data.Preprocess
) -> tf.data.Dataset:
    """Returns the same augmentation, one picture per call."""
    all_images = tf.constant(images)

    def load(seed: tf.Tensor) -> tf.Tensor:
        image = all_images[seed[1]][None]
        return preprocess.training(image, seed[None])[0]

    seeds = pipeline.example_seeds(0, 0, len(images))
    dataset = tf.data.Dataset.from_tensor_slices(seeds).repeat()
    dataset = dataset.map(load, num_parallel_calls=tf.data.AUTOTUNE)
    return dataset.batch(_BATCH_SIZE, drop_remainder=True).prefetch(2)


def variants(full: data.Preprocess) -> dict[str, data.Preprocess]:
    """Returns the recipe as a whole, each augmentation alone, and none."""
    bare = full.without_augmentation()
    table = {"normalise only": bare}
    for field in ("padding", "flip", "erase"):
        if getattr(full, field):
            change = {field: getattr(full, field)}
            table[f"+ {field}"] = dataclasses.replace(bare, **change)
    return table | {"everything": full}


def main() -> None:
    """Prints the table."""
    random = np.random.default_rng(0)
    print(f"{'data set':<10}{'augmentation':<16}{'pictures/s/core':>16}")
    for name in ("digits", "cifar10"):
        settings = data.DATASETS[name]
        shape = (4096, *settings.input_shape)
        images = random.integers(0, 256, shape, dtype=np.uint8)
        labels = np.zeros(len(images), np.int64)
        for label, preprocess in variants(settings.preprocess).items():
            dataset = data.training_dataset(
                images,
                labels,
                batch_size=_BATCH_SIZE,
                seed=0,
                preprocess=preprocess,
            )
            rate = measure(dataset, _BATCH_SIZE)
            print(f"{name:<10}{label:<16}{rate:>16,.0f}")
        dataset = per_example(images, settings.preprocess)
        rate = measure(dataset, _BATCH_SIZE)
        print(f"{name:<10}{'(per example)':<16}{rate:>16,.0f}")


if __name__ == "__main__":
    main()
