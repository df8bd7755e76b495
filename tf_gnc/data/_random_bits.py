"""Random bits that depend on a seed alone: many seeds, one call.

TensorFlow's stateless draws take one seed per call, which for each picture
costs far more than the draw. The generator is SplitMix64 (Steele, Lea and
Flood, OOPSLA 2014): a counter goes through a 64-bit mixing function.

Symbols   n      number of seeds
          seeds  (n, 2) integers, in the manner of tf.random.stateless_*
          salt   a number per purpose: one seed, independent streams
"""

import tensorflow as tf

_GOLDEN = 0x9E3779B97F4A7C15  # 2**64 over the golden ratio, made odd


def _uint64(value: int) -> tf.Tensor:
    return tf.constant(value, tf.uint64)


def _mix(state: tf.Tensor) -> tf.Tensor:
    """Returns SplitMix64's output for each state, a bijection of uint64."""
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        shifted = tf.bitwise.right_shift(state, _uint64(shift))
        state = tf.bitwise.bitwise_xor(state, shifted) * _uint64(factor)
    shifted = tf.bitwise.right_shift(state, _uint64(31))
    return tf.bitwise.bitwise_xor(state, shifted)


def split_mix(state: tf.Tensor, num: int | tf.Tensor) -> tf.Tensor:
    """Returns the first `num` outputs from each uint64 state, `(n, num)`.

    Example:
        >>> state = tf.constant([1234567], tf.uint64)
        >>> split_mix(state, 2).numpy().tolist()
        [[6457827717110365317, 3203168211198807973]]
    """
    counter = tf.cast(tf.range(1, num + 1), tf.uint64)
    return _mix(state[:, None] + counter * _uint64(_GOLDEN))


def random_bits(seeds: tf.Tensor, salt: int, num: int | tf.Tensor) -> tf.Tensor:
    """Returns random uint64 words, `(n, num)`; row i is `seeds[i]`'s alone."""
    seeds = tf.cast(seeds, tf.uint64)
    # Two rounds, so that neighbouring seeds end far from one another.
    first = _mix(seeds[:, 0] + _uint64(_GOLDEN * (salt + 1) % 2**64))
    return split_mix(_mix(tf.bitwise.bitwise_xor(first, seeds[:, 1])), num)


def permutation(seed: tf.Tensor, salt: int, num: int | tf.Tensor) -> tf.Tensor:
    """Returns the numbers below `num` in random order; `seed` is `(2,)`."""
    keys = random_bits(seed[None], salt, num)[0]
    return tf.argsort(tf.bitcast(keys, tf.int64), stable=True)


def uniform(bits: tf.Tensor) -> tf.Tensor:
    """Returns float32 in [0, 1), 24 bits of each word, same shape."""
    top = tf.cast(tf.bitwise.right_shift(bits, _uint64(40)), tf.int32)
    return tf.cast(top, tf.float32) * 2.0**-24


def below(bits: tf.Tensor, limit: int | tf.Tensor) -> tf.Tensor:
    """Returns int32 in [0, limit), equally likely up to limit / 2**32.

    `limit` is below 2**31 and broadcasts against `bits`.
    """
    high = tf.bitwise.right_shift(bits, _uint64(32))
    product = high * tf.cast(limit, tf.uint64)
    return tf.cast(tf.bitwise.right_shift(product, _uint64(32)), tf.int32)
