"""Measures the input pipeline: pictures per second and core.

    python benchmarks/input_pipeline.py

Takes about a minute and needs no data: the pictures are random bytes in the
shapes of the digits and of CIFAR, and for ImageNet JPEGs that are made here:
500 x 375 pixels of waves and grain at quality 90, some 80 kilobytes (the real
ones: 110 on average), in 16 TFRecord files, which the system then has in
memory. "Raw records" is the reading alone. A rate is pictures per second of
processor time, all threads added up, which is what the pipeline takes from a
training step on the same cores. "ResNet-32 step" is what a GNC step with 8
workers of 32 pictures takes of it, in the same unit. "Per example" is the
pipeline's work done by mapping single pictures, the usual way, with the batch
made afterwards.
"""

import dataclasses
import os
import tempfile
import time

import numpy as np
import tensorflow as tf

import tf_gnc
from tf_gnc import data
from tf_gnc.data import pipeline, shards
from tf_gnc.experiments import build_model, make_config

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


def photo(random: np.random.Generator) -> bytes:
    """Returns a JPEG of ImageNet's usual size: waves, and grain."""
    rows, columns = np.mgrid[0:1:375j, 0:1:500j]
    image = np.full((375, 500, 3), 128.0)
    for channel in range(3):
        for _ in range(6):
            high, wide, phase = random.uniform(0, (50, 50, 6))
            wave = np.sin(high * rows + wide * columns + phase)
            image[..., channel] += random.uniform(5, 40) * wave
    image += random.normal(0, 10, (375, 500, 1))
    image = image.clip(0, 255).astype(np.uint8)
    return tf.io.encode_jpeg(image, quality=90).numpy()


def write_records(directory: str) -> shards.Records:
    """Writes 16 files of 256 JPEGs each, 32 different ones in all."""
    random = np.random.default_rng(0)
    jpegs = [photo(random) for _ in range(32)]
    size = np.mean([len(jpeg) for jpeg in jpegs])
    print(f"JPEGs of 500 x 375, {size / 1000:.0f} kB on average")
    paths = tuple(os.path.join(directory, str(i)) for i in range(16))
    for path in paths:
        with tf.io.TFRecordWriter(path) as writer:
            for i in range(256):
                writer.write(jpegs[i % 32])
    label = tf.constant(0, tf.int64)
    return shards.Records(paths, (256,) * 16, lambda raw: (raw, label))


def measure_imagenet() -> None:
    """Prints ImageNet's lines of the table."""

    def show(what: str, dataset: tf.data.Dataset, batch_size: int = 64) -> None:
        rate = measure(dataset, batch_size)
        print(f"{'imagenet':<10}{what:<16}{rate:>16,.0f}")

    with tempfile.TemporaryDirectory() as directory:
        records = write_records(directory)
        options = {"batch_size": 64, "seed": 0}
        batches = pipeline.check_batches(records.num_examples, **options)
        raw = shards.training_records(records, batches).batch(64)
        show("raw records", raw)
        full = data.DATASETS["imagenet2012"].preprocess
        for what, preprocess in {
            "central window": full.without_augmentation(),
            "everything": full,
        }.items():
            files = data.ImageFiles(records, records, 1000, preprocess, 224)
            show(what, files.training(**options))
        # As one of four processes has it.
        show("rows 0 to 15", files.training(rows=(0, 16), **options), 16)


def measure_step() -> float:
    """Returns pictures that a GNC step takes per second of processor time."""
    config = make_config("cifar10", batch_size=_BATCH_SIZE)
    model = build_model(config, 0.1)
    x = np.zeros(
        (_BATCH_SIZE, *data.DATASETS["cifar10"].input_shape), "float32"
    )
    y = np.zeros(_BATCH_SIZE, "int64")
    for _ in range(2):
        model.train_on_batch(x, y)
    start = time.process_time()
    for _ in range(5):
        model.train_on_batch(x, y)
    return 5 * _BATCH_SIZE / (time.process_time() - start)


def main() -> None:
    """Prints the table."""
    tf_gnc.set_threads()
    rates = {}
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
            rate = rates[name, label] = measure(dataset, _BATCH_SIZE)
            print(f"{name:<10}{label:<16}{rate:>16,.0f}")
        dataset = per_example(images, settings.preprocess)
        rate = measure(dataset, _BATCH_SIZE)
        print(f"{name:<10}{'(per example)':<16}{rate:>16,.0f}")
    measure_imagenet()
    step = measure_step()
    print(f"{'cifar10':<10}{'ResNet-32 step':<16}{step:>16,.0f}")
    ratio = rates["cifar10", "everything"] / step
    print(f"CIFAR's pipeline with everything: {ratio:.0f} times the step")


if __name__ == "__main__":
    main()
