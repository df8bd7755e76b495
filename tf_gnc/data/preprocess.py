"""Augmentation and normalisation of a data set's pictures.

In training: crop, flip, erase, all on the raw bytes, or vary the colours, then
normalise. Zhong et
al. erase last of all augmentations, and so do we; their Algorithm 1 fills with
values from 0 to 255, that is before normalisation.
"""

import dataclasses

import tensorflow as tf

from tf_gnc import _check
from tf_gnc.data import augment


@dataclasses.dataclass(frozen=True)
class Preprocess:
    """Augmentation and normalisation of one data set.

    Args:
        mean: Per channel, in bytes (0..255), subtracted from each picture.
            One number serves all channels.
        stddev: Per channel, in bytes; the pictures are divided by it. Mean 0
            and 255, the defaults, scale to 0..1.
        padding: Black pixels around the picture from which training crops a
            window of the original size; 0 turns cropping off.
        flip: Whether training mirrors every other picture, at random.
        erase: Whether training erases a rectangle in every other picture.
        erase_fill: What then stands there: `"random"` bytes, as in the paper,
            or the `"mean"`, rounded to bytes.
        zoom: Whether training cuts out a window of random area and aspect and
            scales it. Only for pictures that are decoded as they are read, in
            `tf_gnc.data.ImageFiles`.
        jitter: Whether training varies colours; see `augment.color_jitter`.
            Not together with `erase`, which comes last.

    Raises:
        ValueError: If a number is out of range, `mean` and `stddev` differ in
            length, or two settings don't go together.

    Example:
        >>> preprocess = Preprocess(mean=(100.0,), stddev=(50.0,))
        >>> image = tf.constant([[[[0], [200]]]], tf.uint8)  # (1, 1, 2, 1)
        >>> preprocess.evaluation(image).numpy().ravel().tolist()
        [-2.0, 2.0]
    """

    mean: tuple[float, ...] = (0.0,)
    stddev: tuple[float, ...] = (255.0,)
    padding: int = 0
    flip: bool = False
    erase: bool = False
    erase_fill: str = "random"
    zoom: bool = False
    jitter: bool = False

    def __post_init__(self) -> None:
        if len(self.mean) != len(self.stddev):
            raise ValueError(
                "`mean` and `stddev` must have one number per channel each, "
                f"got mean={self.mean} and stddev={self.stddev}."
            )
        for mean, stddev in zip(self.mean, self.stddev, strict=True):
            _check.real("mean", mean)
            _check.real("stddev", stddev, above=0)
        _check.integer("padding", self.padding, minimum=0)
        for name in ("flip", "erase", "zoom", "jitter"):
            _check.boolean(name, getattr(self, name))
        _check.choice("erase_fill", self.erase_fill, ("random", "mean"))
        if self.jitter and self.erase:
            raise ValueError(
                "`jitter` must be False with erase=True, got both. Erasing is "
                "the last of all augmentations and works on bytes."
            )

    def without_augmentation(self) -> "Preprocess":
        """Returns a copy that only normalises, in training too."""
        return Preprocess(self.mean, self.stddev)

    def chosen(self, augment: bool, erasing: bool) -> "Preprocess":
        """Returns a copy that only augments, or erases, if that is wanted."""
        if not augment:
            return self.without_augmentation()
        return dataclasses.replace(self, erase=self.erase and erasing)

    def training(self, images: tf.Tensor, seeds: tf.Tensor) -> tf.Tensor:
        """Returns augmented and normalised float32 pictures.

        `images` are uint8, `(n, height, width, channels)`, `seeds` `(n, 2)`.
        """
        if self.padding:
            images = augment.random_crop(images, seeds, self.padding)
        if self.flip:
            images = augment.random_flip(images, seeds)
        if self.erase:
            fill = self.mean if self.erase_fill == "mean" else None
            images = augment.random_erasing(images, seeds, fill=fill)
        if self.jitter:
            images = augment.color_jitter(images, seeds)
        return self.evaluation(images)

    def evaluation(self, images: tf.Tensor) -> tf.Tensor:
        """Returns normalised float32 pictures, same shape, not augmented.

        `images` are of bytes, uint8 or already float32.
        """
        _, height, width, channels = images.shape
        if len(self.mean) not in (1, channels):
            raise ValueError(
                f"`mean` must have one number or {channels}, one for each "
                f"channel of the pictures, got mean={self.mean}."
            )
        # As one long line per picture: TensorFlow repeats a short last axis
        # at a quarter of the speed.
        shape = (height, width, channels)
        mean = tf.reshape(tf.broadcast_to(self.mean, shape), (-1,))
        stddev = tf.reshape(tf.broadcast_to(self.stddev, shape), (-1,))
        lines = tf.reshape(images, (-1, height * width * channels))
        lines = (tf.cast(lines, tf.float32) - mean) * (1 / stddev)
        return tf.reshape(lines, (-1, *shape))


def in_bytes(*shares: float) -> tuple[float, ...]:
    """Returns numbers from 0 to 1 as bytes, from 0 to 255, not rounded."""
    return tuple(255 * share for share in shares)
