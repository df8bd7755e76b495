"""Augmentations: functions of a picture and a seed.

Row i of a result depends on picture i and seed i alone, never on the other
rows, on threads or on how many pictures are done at once. All but the jitter
stay in uint8, and all work on whole batches, because a call per picture costs
several times the work itself. Here seeds become numbers (where to cut);
_pixels.py does what the numbers say.
"""

import math

import tensorflow as tf

from tf_gnc import _check
from tf_gnc.data import _pixels, _random_bits

# One stream of random numbers per purpose, so that the same seed can be given
# to every augmentation of a picture.
_CROP, _FLIP, _ERASE, _FILL = range(4)
_JITTER = 5  # 4 is image_files.py's

# Each candidate rectangle misses with probability 0.05 under the default
# hyperparameters, so all eight of them miss once in 10**10 pictures.
_NUM_CANDIDATES = 8

# Of fb.resnet.torch. The eigenvectors, in columns, and the eigenvalues are
# those of the colours of ImageNet's pixels, 0 to 1.
_JITTER_SHARE, _LIGHTING = 0.4, 0.1
_EIGENVALUES = (0.2175, 0.0188, 0.0045)
_EIGENVECTORS = (
    (-0.5675, 0.7192, 0.4009),
    (-0.5808, -0.0045, -0.8140),
    (-0.5836, -0.6948, 0.4203),
)


def random_crop(
    images: tf.Tensor, seeds: tf.Tensor, padding: int = 4
) -> tf.Tensor:
    """Returns uint8 windows of the pictures' size, cut from the padded ones.

    Paper: He et al. (2016), arXiv:1512.03385, section 4.2, 4 pixels a side.
    Deviation from the paper: the padding is black. He et al. subtract the
    mean first, so that their zeros are the mean colour; most later code,
    that of Zhong et al. among it, pads with black as here.

    Args:
        images: uint8 pictures, `(n, height, width, channels)` or rank 3.
        seeds: Integers, `(n, 2)`, or `(2,)` for one picture.
        padding: Black pixels added on each of the four sides, at least 0.

    Example:
        >>> image = tf.constant([[[1], [2]], [[3], [4]]], tf.uint8)
        >>> random_crop(image, (7, 1), padding=1)[..., 0].numpy().tolist()
        [[0, 1], [0, 3]]
    """
    padding = _check.integer("padding", padding, minimum=0)
    pictures, seeds = _batch(images, seeds)
    tops, lefts = crop_offsets(seeds, padding)
    return _like(images, _pixels.crop(pictures, tops, lefts, padding))


def random_flip(images: tf.Tensor, seeds: tf.Tensor) -> tf.Tensor:
    """Returns each picture or, with probability 1/2, its mirror image.

    Left and right are swapped. Paper: He et al. (2016), arXiv:1512.03385,
    section 4.2. Deviation from the paper: none.

    Args:
        images: uint8 pictures, `(n, height, width, channels)` or rank 3.
        seeds: Integers, `(n, 2)`, or `(2,)` for one picture.

    Example:
        >>> image = tf.constant([[[1], [2]]], tf.uint8)  # (1, 2, 1)
        >>> [random_flip(image, (0, s)).numpy().ravel().tolist()
        ...  for s in range(4)]
        [[2, 1], [1, 2], [1, 2], [1, 2]]
    """
    pictures, seeds = _batch(images, seeds)
    return _like(images, _pixels.flip(pictures, flip_decisions(seeds)))


def random_erasing(
    images: tf.Tensor,
    seeds: tf.Tensor,
    probability: float = 0.5,
    area: tuple[float, float] = (0.02, 0.4),
    aspect: tuple[float, float] = (0.3, 1 / 0.3),
    fill: tuple[float, ...] | None = None,
) -> tf.Tensor:
    """Returns pictures in which a random rectangle became random noise.

    Or of one colour, if `fill` says which.

    Paper: Zhong et al. (2017), arXiv:1708.04896, Algorithm 1, with the
    hyperparameters of its CIFAR experiments as defaults.
    Deviation from the paper: Algorithm 1 draws size and position together,
    again and again until the rectangle lies inside the picture. Here, as in the
    authors' published code, only the size is drawn again and the position is
    then uniform; and the sizes are 8 candidates, of which the first that is
    smaller than the picture in both directions counts. If none is, the picture
    stays whole (once in 10**10 pictures with the defaults).

    Args:
        images: uint8 pictures, `(n, height, width, channels)` or rank 3.
        seeds: Integers, `(n, 2)`, or `(2,)` for one picture.
        probability: Share of pictures to erase in, 0 (none) to 1 (all).
        area: Smallest and largest share of the picture's area.
        aspect: Smallest and largest height over width.
        fill: A byte for each channel, or one for all; rounded. None for
            random bytes.

    Returns:
        Pictures of the shape and dtype of `images`. In the rectangle every
        byte is `fill`'s, or uniform on 0..255, each channel on its own.

    Raises:
        ValueError: If an argument is out of range or not in ascending order.

    Example:
        >>> image = tf.zeros((4, 4, 1), tf.uint8)
        >>> erased = random_erasing(image, (0, 5), probability=1.0)
        >>> (erased[..., 0] > 0).numpy().astype(int).tolist()
        [[0, 1, 1, 0], [0, 1, 1, 0], [0, 0, 0, 0], [0, 0, 0, 0]]
    """
    probability = _check.real("probability", probability, minimum=0, maximum=1)
    area, aspect = _interval("area", area), _interval("aspect", aspect)
    pictures, seeds = _batch(images, seeds)
    _, height, width, channels = pictures.shape
    rectangles = erasing_rectangles(
        seeds, (height, width), probability, area, aspect
    )
    if fill is None:
        content = fill_bytes(seeds, (height, width, channels))
    else:
        color = tf.saturate_cast(
            tf.round(tf.constant(fill, "float32")), "uint8"
        )
        content = tf.broadcast_to(color, tf.shape(pictures))
        content = tf.ensure_shape(content, pictures.shape)
    return _like(images, _pixels.erase(pictures, rectangles, content))


def color_jitter(images: tf.Tensor, seeds: tf.Tensor) -> tf.Tensor:
    r"""Returns float32 pictures, 0..255 and a little beyond, in other colours.

    In a random order, each with a factor a of its own, uniform on [0.6, 1.4]:

    - brightness: a x
    - contrast: a x + (1 - a) times the picture's mean grey
    - saturation: a x + (1 - a) times each pixel's grey

    where grey is 0.299 R + 0.587 G + 0.114 B. Then lighting, as in AlexNet: to
    each pixel a multiple of each principal component of ImageNet's colours is
    added, normal with standard deviation 0.1 times its eigenvalue.

    Source: fb.resnet.torch, datasets/transforms.lua, as its ImageNet loader
    has it; it is the code that Goyal et al. (2017), arXiv:1706.02677, cite.
    Their paper doesn't mention it, nor do Haruki et al.
    Deviation: none; like there, nothing is clipped to 0..255.

    Args:
        images: uint8 pictures, `(n, height, width, 3)` or rank 3.
        seeds: Integers, `(n, 2)`, or `(2,)` for one picture.

    Raises:
        ValueError: If the pictures don't have three channels.

    Example:
        >>> grey = tf.fill((1, 1, 3), tf.constant(100, tf.uint8))
        >>> color_jitter(grey, (0, 1)).shape
        TensorShape([1, 1, 3])
    """
    pictures, seeds = _batch(images, seeds)
    if pictures.shape[-1] != 3:
        raise ValueError(
            "`images` must have 3 channels, red, green and blue, for their "
            f"colours to be varied, got shape {images.shape}."
        )
    order, factors, shift = jitter_numbers(seeds)
    jittered = _pixels.jitter(tf.cast(pictures, "float32"), order, factors)
    return _like(images, jittered + shift[:, None, None, :])


def crop_offsets(seeds: tf.Tensor, padding: int) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns tops and lefts in the padded picture, int32 `(n,)` each."""
    bits = _random_bits.random_bits(seeds, _CROP, 2)
    offsets = _random_bits.below(bits, 2 * padding + 1)
    return offsets[:, 0], offsets[:, 1]


def flip_decisions(seeds: tf.Tensor) -> tf.Tensor:
    """Returns whether to mirror, bool `(n,)`."""
    bits = _random_bits.random_bits(seeds, _FLIP, 1)
    return _random_bits.below(bits[:, 0], 2) > 0


def erasing_rectangles(
    seeds: tf.Tensor,
    size: tuple[int, int],
    probability: float,
    area: tuple[float, float],
    aspect: tuple[float, float],
) -> tf.Tensor:
    """Returns (top, left, height, width) of each rectangle, int32 `(n, 4)`.

    A picture that stays whole has a rectangle of height and width 0.
    """
    bits = _random_bits.random_bits(seeds, _ERASE, 3 + 2 * _NUM_CANDIDATES)
    # The bounds' difference times a number below 1, added to the lower bound.
    draws = _random_bits.uniform(bits[:, 3:])
    shares = area[0] + (area[1] - area[0]) * draws[:, :_NUM_CANDIDATES]
    ratios = aspect[0] + (aspect[1] - aspect[0]) * draws[:, _NUM_CANDIDATES:]
    pixels = shares * float(size[0] * size[1])  # (n, candidates)
    heights = tf.cast(tf.round(tf.sqrt(pixels * ratios)), tf.int32)
    widths = tf.cast(tf.round(tf.sqrt(pixels / ratios)), tf.int32)
    fits = tf.logical_and(heights < size[0], widths < size[1])
    first = tf.argmax(tf.cast(fits, tf.int32), axis=1)
    erased = tf.logical_and(
        tf.reduce_any(fits, axis=1),
        _random_bits.uniform(bits[:, 0]) < probability,
    )
    height = tf.gather(heights, first, batch_dims=1) * tf.cast(erased, tf.int32)
    width = tf.gather(widths, first, batch_dims=1) * tf.cast(erased, tf.int32)
    top = _random_bits.below(bits[:, 1], size[0] + 1 - height)
    left = _random_bits.below(bits[:, 2], size[1] + 1 - width)
    return tf.stack([top, left, height, width], axis=1)


def jitter_numbers(
    seeds: tf.Tensor,
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Returns the order, the factors and the lighting of each picture.

    The order, int32 `(n, 3)`, is a permutation of brightness 0, contrast 1 and
    saturation 2; factors `(n, 3)` belong to these three; the lighting `(n, 3)`
    is added to red, green and blue, in bytes.
    """
    bits = _random_bits.random_bits(seeds, _JITTER, 12)
    order = tf.argsort(tf.bitcast(bits[:, :3], tf.int64))
    draws = _random_bits.uniform(bits[:, 3:])
    factors = 1 + _JITTER_SHARE * (2 * draws[:, :3] - 1)
    # Box and Muller, from two uniform numbers each; 1 - u is never 0.
    radius = tf.sqrt(-2 * tf.math.log(1 - draws[:, 3:6]))
    normal = radius * tf.cos(2 * math.pi * draws[:, 6:])
    light = 255 * _LIGHTING * normal * tf.constant(_EIGENVALUES)
    return order, factors, tf.matmul(light, _EIGENVECTORS, transpose_b=True)


def fill_bytes(seeds: tf.Tensor, shape: tuple[int, int, int]) -> tf.Tensor:
    """Returns random bytes for one picture per seed, uint8 `(n, *shape)`."""
    num_bytes = shape[0] * shape[1] * shape[2]
    words = _random_bits.random_bits(seeds, _FILL, -(-num_bytes // 8))
    flat = tf.reshape(tf.bitcast(words, tf.uint8), (-1, 8 * words.shape[1]))
    return tf.reshape(flat[:, :num_bytes], (-1, *shape))


def _interval(name: str, value: tuple[float, float]) -> tuple[float, float]:
    low = _check.real(f"{name}[0]", value[0], above=0)
    return low, _check.real(f"{name}[1]", value[1], minimum=low)


def _batch(images: tf.Tensor, seeds: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns a batch of pictures, of one too, and its seeds."""
    images, seeds = tf.convert_to_tensor(images), tf.convert_to_tensor(seeds)
    rank = images.shape.rank
    if images.dtype != tf.uint8 or rank not in (3, 4):
        raise ValueError(
            "`images` must be uint8 of shape (height, width, channels), with "
            f"or without a batch axis before, got {images.dtype.name} of "
            f"shape {images.shape}. Augment before you normalise."
        )
    if seeds.shape.rank != rank - 2 or seeds.shape[-1] != 2:
        raise ValueError(
            "`seeds` must hold two integers for each picture, got seeds of "
            f"shape {seeds.shape} for images of shape {images.shape}."
        )
    return (images[None], seeds[None]) if rank == 3 else (images, seeds)


def _like(images: tf.Tensor, batch: tf.Tensor) -> tf.Tensor:
    return batch[0] if len(images.shape) == 3 else batch
