"""From JPEGs in files to batches for `fit`, the same ones every time.

As in pipeline.py, but the pictures, of all sizes, stay on the disk. Only a
process's own rows are decoded, and of each picture only the part that is
wanted, straight from the JPEG. A window is int32 `(top, left, height, width)`,
inside the picture, made of its size, int32 `(height, width)`.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import tensorflow as tf

from tf_gnc import _check
from tf_gnc.data import _random_bits, shards
from tf_gnc.data.pipeline import check_batches, endless
from tf_gnc.data.preprocess import Preprocess
from tf_gnc.data.shards import Records

# Goyal et al. evaluate on the central 224 pixels after scaling to 256.
_CENTRAL_SHARE = 224 / 256
_EVALUATION_BATCH = 200  # Examples; any number gives the same result.

_WINDOW = 4  # salt; augment.py has the smaller numbers
_NUM_CANDIDATES = 10
_AREA, _ASPECT = (0.08, 1.0), (3 / 4, 4 / 3)


@dataclasses.dataclass(frozen=True)
class ImageFiles:
    """A data set of pictures that stay in their files.

    Paper: Goyal et al. (2017), arXiv:1706.02677, section 5.1, for training: a
    window of random area and aspect, scaled to 224 pixels; its mirror image
    every other time; each colour normalised by its mean and standard deviation.
    Scaled bicubically, as in the code that it cites. Evaluation takes the
    central 224/256 of the shorter side, the square that is left of a picture
    that is scaled to 256 and cropped to 224.
    Deviation from the paper: none. That code also varies brightness, contrast,
    saturation and lighting, of which the paper says nothing; `jitter` of
    `Preprocess` does so.

    Args:
        train: The examples to train on.
        test: Those to test on.
        num_classes: How many different labels there can be.
        preprocess: Augmentation and normalisation. Without `zoom` the window
            is that of evaluation.
        image_size: Height and width to which pictures are scaled.

    Raises:
        ValueError: If `image_size` isn't a whole number, 1 or more.
    """

    train: Records
    test: Records
    num_classes: int
    preprocess: Preprocess
    image_size: int

    def __post_init__(self) -> None:
        _check.integer("image_size", self.image_size, minimum=1)

    @property
    def num_train(self) -> int:
        """How many examples there are to train on."""
        return self.train.num_examples

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """Height, width and channels of a picture."""
        return (self.image_size, self.image_size, 3)

    def training(
        self, *, augment: bool = True, erasing: bool = True, **batches: Any
    ) -> tf.data.Dataset:
        """Returns endless training batches; see `Source` for its arguments."""
        preprocess = self.preprocess.chosen(augment, erasing)
        wanted = check_batches(self.num_train, **batches)

        def load(
            seed: tf.Tensor, raw: tf.Tensor
        ) -> tuple[tf.Tensor, tf.Tensor]:
            window = central_window
            if preprocess.zoom:
                window = functools.partial(random_window, seed=seed)
            contents, label = self.train.parse(raw)
            image = decode(contents, window, self.image_size)
            return preprocess.training(image[None], seed[None])[0], label

        dataset = shards.training_records(self.train, wanted)
        dataset = dataset.map(load, tf.data.AUTOTUNE, deterministic=True)
        num_rows = wanted.stop - wanted.start
        dataset = dataset.batch(num_rows, drop_remainder=True)
        return endless(dataset).prefetch(2)

    def evaluation(self) -> tf.data.Dataset:
        """Returns every test example once, in order."""

        def load(raw: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            contents, label = self.test.parse(raw)
            image = decode(contents, central_window, self.image_size)
            return self.preprocess.evaluation(image[None])[0], label

        dataset = shards.evaluation_records(self.test)
        dataset = dataset.map(load, tf.data.AUTOTUNE, deterministic=True)
        return dataset.batch(_EVALUATION_BATCH).prefetch(2)


def decode(
    contents: tf.Tensor,
    window: Callable[[tf.Tensor], tf.Tensor],
    image_size: int,
) -> tf.Tensor:
    """Returns a window of a JPEG or PNG, scaled to a uint8 square.

    `window` makes it of the picture's size. Of a JPEG nothing else is decoded.
    """

    def from_jpeg() -> tf.Tensor:
        size = tf.io.extract_jpeg_shape(contents)[:2]
        return tf.image.decode_and_crop_jpeg(contents, window(size), channels=3)

    def from_others() -> tf.Tensor:
        image = tf.io.decode_png(contents, channels=3)
        top, left, height, width = tf.unstack(window(tf.shape(image)[:2]))
        return image[top : top + height, left : left + width]

    image = tf.cond(tf.io.is_jpeg(contents), from_jpeg, from_others)
    image = tf.image.resize(image, (image_size, image_size), "bicubic")
    return tf.saturate_cast(tf.round(image), tf.uint8)


def random_window(size: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    r"""Returns a window of random area, aspect and position.

    A window has 8 % to 100 % of the picture's area and an aspect between 3/4
    and 4/3, both uniform; it lies or stands with probability 1/2 each. The
    first of 10 that fits counts, at a uniform position; if none does, the
    largest central square.

    Paper: Goyal et al. (2017), arXiv:1706.02677, section 5.1, "scale and
    aspect ratio data augmentation"; the numbers are those of the code that it
    cites, fb.resnet.torch.
    Deviation from the paper: none.

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
    # A draw is below 1, so that the position is at most size - chosen.
    room = tf.cast(size - chosen + 1, tf.float32)
    window = tf.concat([tf.cast(draws[:2] * room, tf.int32), chosen], axis=0)
    return tf.where(tf.reduce_any(fits), window, central_window(size, 1.0))


def central_window(size: tf.Tensor, share: float = _CENTRAL_SHARE) -> tf.Tensor:
    """Returns the central square whose side is `share` of the shorter side.

    Example:
        >>> central_window([256, 512], 224 / 256).numpy().tolist()
        [16, 144, 224, 224]
    """
    size = tf.cast(size, tf.int32)
    shorter = tf.cast(tf.reduce_min(size), tf.float32)
    side = tf.maximum(tf.cast(tf.round(share * shorter), tf.int32), 1)
    sides = tf.stack([side, side])
    return tf.concat([(size - sides) // 2, sides], axis=0)
