import math

import numpy as np
import pytest
import tensorflow as tf

from tf_gnc.data import _random_bits

MASK = 2**64 - 1


def split_mix_in_python(state, num):
    # Steele, Lea and Flood (2014), with Python's unbounded integers.
    outputs = []
    for _ in range(num):
        state = (state + 0x9E3779B97F4A7C15) & MASK
        z = state
        z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & MASK
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & MASK
        outputs.append(z ^ (z >> 31))
    return outputs


def seeds(n, first=3):
    return tf.stack([tf.fill([n], first), tf.range(n)], axis=1)


@pytest.mark.parametrize("state", [0, 1, 1234567, 2**63, MASK])
def test_split_mix__any_state__equals_python_integers(state):
    got = _random_bits.split_mix(tf.constant([state], tf.uint64), 5)[0]
    assert got.numpy().tolist() == split_mix_in_python(state, 5)


def test_random_bits__some_rows__equal_the_rows_of_all():
    all_rows = _random_bits.random_bits(seeds(50), 1, 4).numpy()
    some_rows = _random_bits.random_bits(seeds(50)[20:30], 1, 4).numpy()
    np.testing.assert_array_equal(some_rows, all_rows[20:30])


def test_random_bits__neighbouring_seeds_and_salts__never_repeat():
    words = [
        _random_bits.random_bits(seeds(1000, first), salt, 4).numpy().ravel()
        for first in (0, 1, -1)
        for salt in (0, 1, 2)
    ]
    # 36,000 words of 64 bits collide with probability 4e-11.
    assert len(np.unique(words)) == 36_000


def test_random_bits__many_seeds__every_bit_is_fair():
    n = 10_000
    words = _random_bits.random_bits(seeds(n), 5, 1).numpy()[:, 0]
    shares = [
        ((words >> np.uint64(b)) & np.uint64(1)).mean() for b in range(64)
    ]
    standard_error = 0.5 / math.sqrt(n)
    # 64 bits: 4.5 standard errors are passed once in 2,300 seeds.
    assert np.abs(np.array(shares) - 0.5).max() < 4.5 * standard_error


def test_uniform__many_words__has_the_moments_of_its_law():
    n = 40_000
    draws = _random_bits.uniform(
        _random_bits.random_bits(seeds(n), 0, 1)
    ).numpy()
    assert 0 <= draws.min() < draws.max() < 1
    assert abs(draws.mean() - 1 / 2) < 4 * math.sqrt(1 / 12 / n)
    # The variance of (u - 1/2)**2 is 1/180.
    assert abs(((draws - 0.5) ** 2).mean() - 1 / 12) < 4 * math.sqrt(
        1 / 180 / n
    )


def test_uniform__extreme_words__stay_in_the_half_open_interval():
    words = tf.constant([0, MASK], tf.uint64)
    assert _random_bits.uniform(words).numpy().tolist() == [0.0, 1 - 2**-24]


@pytest.mark.parametrize("limit", [1, 2, 9, 1000])
def test_below__any_limit__equals_multiply_and_shift(limit):
    words = _random_bits.random_bits(seeds(200), 0, 1).numpy()[:, 0]
    got = _random_bits.below(tf.constant(words), limit).numpy().tolist()
    assert got == [((int(w) >> 32) * limit) >> 32 for w in words]
