"""What an epoch leaves over begins the next one's first batch."""

import collections

import numpy as np
import pytest

from tests import imagenet_files
from tf_gnc import data
from tf_gnc.data import shards
from tf_gnc.data.pipeline import check_batches

N, B, E = 23, 5, 4  # 4 updates and 3 examples an epoch; 18 updates in all


def test_updates__of_the_papers_runs__are_the_papers():
    cifar = data.Updates(50_000, 8_192, carry=True)
    assert cifar.before(160) == 976
    # Section 3.4: a switch "around the 800th iteration" of 131,072.
    large = data.Updates(1_281_167, 131_072, carry=True)
    assert (large.before(90), large.before(80)) == (879, 781)
    assert data.Updates(1_281_167, 32_768, carry=True).before(90) == 3_518
    assert {cifar.in_epoch(e) for e in range(160)} == {6, 7}
    assert cifar.per_epoch == pytest.approx(6.1035, abs=1e-4)


def test_updates__dropped__are_alike_and_may_be_fewer():
    updates = data.Updates(N, B)
    assert (updates.before(E), updates.per_epoch) == (16, 4)
    assert data.Updates(N, B, at_most=3).before(E) == 12
    assert data.Updates(N, B, at_most=9).before(E) == 16
    with pytest.raises(ValueError, match="must not exceed"):
        data.Updates(4, 5, carry=True)


def _images(count=N):
    pixels = np.arange(count, dtype=np.uint8).reshape(count, 1, 1, 1)
    return data.Images(pixels, np.arange(count), pixels, np.arange(count), 100)


def _labels(steps, **batches):
    arguments = {"batch_size": B, "seed": 3, "carry": True, **batches}
    training = _images().training(augment=False, **arguments)
    return np.array([y for _, y in training.take(steps).as_numpy_iterator()])


def test_training__carried__is_one_permutation_after_another():
    stream = _labels(18).ravel()
    for epoch in range(3):
        part = stream[epoch * N : (epoch + 1) * N]
        assert sorted(part) == list(range(N))
    # Those of the last epoch that fill no batch are left: E or E - 1 times.
    counts = collections.Counter(stream.tolist())
    assert set(counts.values()) == {E - 1, E} and len(counts) == N
    # The permutations are those of a run that drops.
    dropped = _labels(4, carry=False).ravel()
    np.testing.assert_array_equal(stream[:20], dropped)


@pytest.mark.parametrize("first_step", [1, 4, 5, 13])
def test_training__carried__begins_anywhere_and_in_parts(first_step):
    whole = _labels(18)
    parts = [
        _labels(3, first_step=first_step, rows=rows)
        for rows in ((0, 2), (2, 5))
    ]
    joined = np.concatenate(parts, axis=1)
    np.testing.assert_array_equal(joined, whole[first_step : first_step + 3])


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    return imagenet_files.load(tmp_path_factory.mktemp("carried")).train


def _indices(records, steps, **batches):
    wanted = check_batches(
        records.num_examples, **{"seed": 1, "carry": True, **batches}
    )
    rows = wanted.stop - wanted.start
    found = shards.training_records(records, wanted).take(steps * rows)
    return np.array([seed[1] for seed, _ in found.as_numpy_iterator()])


@pytest.mark.parametrize("batch_size", [4, 6, 12])
def test_records__carried__each_comes_once_an_epoch(files, batch_size):
    n = files.num_examples
    updates = data.Updates(n, batch_size, carry=True)
    steps = updates.before(E)
    stream = _indices(files, steps, batch_size=batch_size)
    counts = collections.Counter(stream.tolist())
    assert set(counts.values()) <= {E - 1, E} and len(counts) == n
    first = steps // 2 + 1
    parts = [
        _indices(
            files,
            2,
            batch_size=batch_size,
            first_step=first,
            rows=rows,
        ).reshape(2, -1)
        for rows in ((0, 1), (1, batch_size))
    ]
    expected = stream[first * batch_size : (first + 2) * batch_size]
    np.testing.assert_array_equal(
        np.concatenate(parts, axis=1).ravel(), expected
    )
