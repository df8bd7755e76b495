r"""Which part of a picture to cut out, for pictures of any size.

Numbers only: the cutting is done where the picture is decoded. All windows
are int32 `(top, left, height, width)`, inside the picture.

Symbols   size  (2,), height and width of the picture
          seed  (2,), integers, of this picture in this epoch
"""

import tensorflow as tf

from tf_gnc.data import _random_bits

_WINDOW = 4  # salt; augment.py has the smaller numbers
_NUM_CANDIDATES = 10
_AREA, _ASPECT = (0.08, 1.0), (3 / 4, 4 / 3)


def random_window(size: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    r"""Returns a window of random area, aspect and place.

    A window has 8 % to 100 % of the picture's area and an aspect between 3/4
    and 4/3, both uniform; it lies or stands with probability 1/2 each. The
    first of 10 that fits counts, at a uniform place; if none does, the
    largest central square.

    Paper: Goyal et al. (2017), arXiv:1706.02677, section 5.1, "scale and
    aspect ratio data augmentation"; the numbers are those of the code that it
    cites, fb.resnet.torch.
    Deviation from the paper: none.

    Args:
        size: Height and width of the picture, integers, `(2,)`.
        seed: Integers, `(2,)`.

    Example:
        >>> random_window([375, 500], [0, 7]).numpy().tolist()
        [4, 81, 355, 296]
    """
    size = tf.cast(size, tf.int32)
    bits = _random_bits.random_bits([seed], _WINDOW, 2 + 3 * _NUM_CANDIDATES)[0]
    draws = _random_bits.uniform(bits)
    areas, aspects, turned = tf.unstack(tf.reshape(draws[2:], (3, -1)))
    pixels = tf.cast(tf.reduce_prod(size), tf.float32)
    pixels *= _AREA[0] + (_AREA[1] - _AREA[0]) * areas
    aspects = _ASPECT[0] + (_ASPECT[1] - _ASPECT[0]) * aspects
    aspects = tf.where(turned < 0.5, aspects, 1 / aspects)
    sizes = tf.sqrt(tf.stack([pixels / aspects, pixels * aspects], axis=1))
    sizes = tf.maximum(tf.cast(tf.round(sizes), tf.int32), 1)  # (10, 2)
    fits = tf.reduce_all(sizes <= size, axis=1)
    chosen = sizes[tf.argmax(tf.cast(fits, tf.int32))]
    # A draw is below 1, so that the place is at most size - chosen.
    room = tf.cast(size - chosen + 1, tf.float32)
    window = tf.concat([tf.cast(draws[:2] * room, tf.int32), chosen], axis=0)
    return tf.where(tf.reduce_any(fits), window, central_window(size, 1.0))


def central_window(size: tf.Tensor, share: float) -> tf.Tensor:
    """Returns the central square whose side is `share` of the shorter side.

    Args:
        size: Height and width of the picture, integers, `(2,)`.
        share: Above 0, at most 1.

    Example:
        >>> central_window([256, 512], 224 / 256).numpy().tolist()
        [16, 144, 224, 224]
    """
    size = tf.cast(size, tf.int32)
    shorter = tf.cast(tf.reduce_min(size), tf.float32)
    side = tf.maximum(tf.cast(tf.round(share * shorter), tf.int32), 1)
    sides = tf.stack([side, side])
    return tf.concat([(size - sides) // 2, sides], axis=0)
