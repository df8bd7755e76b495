import functools
import itertools
import math

import numpy as np
import pytest
import tensorflow as tf

from tf_gnc.data import Preprocess, pipeline

FULL = Preprocess(padding=2, flip=True, erase=True)
N = 700


def arrays(n=N, shape=(8, 8, 3)):
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (n, *shape), dtype=np.uint8)
    return images, np.arange(n)


def batches(num, n=N, shape=(8, 8, 3), **arguments):
    arguments = {"batch_size": 32, "seed": 1, "preprocess": FULL} | arguments
    dataset = pipeline.training_dataset(*arrays(n, shape), **arguments)
    return list(dataset.take(num).as_numpy_iterator())


@functools.cache
def whole(batch_size):
    """The first batches of four epochs or so."""
    return batches(2600 // batch_size, batch_size=batch_size)


def labels(num, **arguments):
    plain = {"preprocess": Preprocess()} | arguments  # It's quickly traced.
    return np.array([batch[1] for batch in batches(num, **plain)])


def seeds(num, **arguments):
    """Batches of what `training_dataset` would augment by, and of labels.

    With the whole augmentation in their place they take long to trace.
    """
    x = np.zeros((N, 1), "uint8")
    dataset = pipeline.shuffled_arrays(
        x,
        np.arange(N),
        lambda chosen, seeds: seeds,
        **{"batch_size": 32, "seed": 1} | arguments,
    )
    return list(dataset.take(num).as_numpy_iterator())


def assert_same(one, two):
    for got, want in zip(one, two, strict=True):
        np.testing.assert_array_equal(got[1], want[1])
        np.testing.assert_array_equal(got[0], want[0])


def test_steps_per_epoch__remainder__is_dropped():
    assert pipeline.steps_per_epoch(99, 33) == 3
    assert pipeline.steps_per_epoch(98, 33) == 2


def test_steps_per_epoch__batch_larger_than_data__error_names_both():
    with pytest.raises(ValueError, match="batch_size=33 with 32 examples"):
        pipeline.steps_per_epoch(32, 33)


def test_training_dataset__batch_size_divides__epoch_is_a_permutation():
    epochs = labels(30, n=320).reshape(3, 320)
    for epoch in epochs:
        assert sorted(epoch) == list(range(320))
    assert (epochs[0] != epochs[1]).any() and (epochs[1] != epochs[2]).any()


def test_training_dataset__remainder__epoch_has_no_repetition():
    # 700 = 21 * 32 + 28
    for epoch in labels(3 * 21).reshape(3, 21 * 32):
        assert len(set(epoch)) == 21 * 32


def test_training_dataset__any__pictures_belong_to_their_labels():
    plain = Preprocess((0.0,), (1.0,))
    images, _ = arrays()
    for got, targets in batches(25, preprocess=plain):
        np.testing.assert_array_equal(got, images[targets])


def test_training_dataset__any__is_infinite_with_static_shapes():
    dataset = pipeline.training_dataset(*arrays(), batch_size=300, seed=0)
    assert dataset.cardinality() == tf.data.INFINITE_CARDINALITY
    assert dataset.element_spec == (
        tf.TensorSpec((300, 8, 8, 3), tf.float32),
        tf.TensorSpec((300,), tf.int64),
    )


def test_training_dataset__same_seed__same_bits():
    assert_same(batches(5, batch_size=32), whole(32)[:5])


@pytest.mark.parametrize("batch_size", [300, 699, 700])
def test_shuffled_arrays__same_seed__same_seeds_of_examples(batch_size):
    assert_same(
        seeds(5, batch_size=batch_size), seeds(5, batch_size=batch_size)
    )


def test_training_dataset__other_seed__other_order():
    assert (labels(3) != labels(3, seed=2)).any()


def test_training_dataset__one_seed__augmentation_differs_by_epoch():
    by_label = [{}, {}]
    for step, (images, targets) in enumerate(batches(20, n=320)):
        by_label[step // 10].update(zip(targets, images, strict=True))
    same = sum(
        np.array_equal(by_label[0][i], by_label[1][i]) for i in range(320)
    )
    # Same crop (1/25), same flip (1/2), neither erased (1/4): 1 in 200.
    assert same <= 320 / 200 + 5 * math.sqrt(320 / 200)


@pytest.mark.parametrize("cuts", [(0, 5, 32), (0, 5, 300, 600)])
def test_training_dataset__rows_in_pieces__equal_the_whole(cuts):
    batch_size = cuts[-1]
    parts = [
        batches(4, batch_size=batch_size, rows=rows)
        for rows in itertools.pairwise(cuts)
    ]
    joined = [
        tuple(np.concatenate(arrays) for arrays in zip(*step, strict=True))
        for step in zip(*parts, strict=True)
    ]
    assert_same(joined, whole(batch_size)[:4])


def test_training_dataset__first_step__equals_skipping():
    assert_same(batches(30, first_step=22), whole(32)[22:52])


@pytest.mark.parametrize("first_step", [1, 20, 21, 22, 50])
def test_shuffled_arrays__first_step__equals_skipping(first_step):
    expected = seeds(first_step + 30)[first_step:]
    assert_same(seeds(30, first_step=first_step), expected)


def test_training_dataset__first_step_far_away__starts_at_once():
    # A million epochs: making the batches before would take hours.
    assert len(labels(1, first_step=21_000_000)) == 1


def test_training_dataset__any_number_of_threads__same_bits_without_python():
    dataset = pipeline.training_dataset(
        *arrays(), batch_size=600, seed=1, preprocess=FULL
    )
    graph = dataset._as_serialized_graph().numpy()
    assert b"RebatchDataset" in graph and b"PyFunc" not in graph
    for num_threads in (1, 8):
        options = tf.data.Options()
        options.threading.private_threadpool_size = num_threads
        options.autotune.enabled = False
        got = dataset.with_options(options).take(4).as_numpy_iterator()
        assert_same(got, whole(600)[:4])


@tf.function
def example_seeds(seed, epoch, num):
    return pipeline.example_seeds(seed, epoch, num)


def test_example_seeds__many_epochs__first_place_is_uniform():
    num_epochs, n = 400, 10
    first = [
        example_seeds(3, epoch, n)[0, 1].numpy()
        for epoch in tf.range(num_epochs)
    ]
    counts = np.bincount(first, minlength=n)
    standard_error = math.sqrt(num_epochs * 1 / n * (1 - 1 / n))
    assert np.abs(counts - num_epochs / n).max() < 4 * standard_error


def test_example_seeds__other_seed_or_epoch__other_seed_per_example():
    first = {
        int(example_seeds(seed, epoch, 4)[0, 0])
        for seed in tf.range(10)
        for epoch in tf.range(10)
    }
    assert len(first) == 100


def test_evaluation_dataset__any__keeps_order_and_the_last_examples():
    images, targets = arrays(70)
    got = list(
        pipeline.evaluation_dataset(
            images, targets, 32, Preprocess((0.0,), (1.0,))
        ).as_numpy_iterator()
    )
    assert [len(batch[1]) for batch in got] == [32, 32, 6]
    np.testing.assert_array_equal(np.concatenate([b[0] for b in got]), images)
    np.testing.assert_array_equal(np.concatenate([b[1] for b in got]), targets)


def test_evaluation_dataset__any__has_finite_cardinality():
    assert pipeline.evaluation_dataset(*arrays(70), 32).cardinality() == 3


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"batch_size": N + 1}, f"batch_size={N + 1} with {N} examples"),
        ({"seed": -1}, "seed=-1"),
        ({"first_step": -1}, "first_step=-1"),
        ({"rows": (4, 4)}, r"rows=\(4, 4\) with batch_size=32"),
        ({"rows": (0, 33)}, r"rows=\(0, 33\) with batch_size=32"),
    ],
)
def test_training_dataset__bad_argument__error_names_it(arguments, message):
    arguments = {"batch_size": 32, "seed": 1} | arguments
    with pytest.raises(ValueError, match=message):
        pipeline.training_dataset(*arrays(), **arguments)


def test_training_dataset__float_images__error_says_what_came():
    with pytest.raises(ValueError, match="got float64 of shape"):
        pipeline.training_dataset(
            np.zeros((4, 2, 2, 1)), np.arange(4), batch_size=2, seed=0
        )


def test_training_dataset__too_few_labels__error_names_both():
    images, targets = arrays(4)
    with pytest.raises(ValueError, match=r"shape \(3,\) for 4 pictures"):
        pipeline.training_dataset(images, targets[:3], batch_size=2, seed=0)
