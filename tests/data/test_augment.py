import math

import numpy as np
import pytest
import tensorflow as tf

from tf_gnc.data import _pixels, augment

SHAPES = [(32, 32, 3), (8, 8, 1), (5, 7, 1), (6, 5, 2), (28, 28, 1)]
AREA, ASPECT = (0.02, 0.4), (0.3, 1 / 0.3)
AUGMENTATIONS = [
    augment.random_crop,
    augment.random_flip,
    augment.random_erasing,
]


def pictures(n, shape, seed=0):
    random = np.random.default_rng(seed)
    return random.integers(1, 256, (n, *shape), dtype=np.uint8)


def seeds(n, first=11):
    return np.stack([np.full(n, first), np.arange(n)], axis=1)


def rectangles(n, size=(32, 32), probability=0.5):
    return augment.erasing_rectangles(
        tf.constant(seeds(n)), size, probability, AREA, ASPECT
    ).numpy()


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("padding", [0, 1, 4])
def test_crop__any_offsets__equals_a_numpy_loop(shape, padding):
    images = pictures(9, shape)
    random = np.random.default_rng(1)
    tops, lefts = random.integers(0, 2 * padding + 1, (2, 9))
    got = _pixels.crop(
        tf.constant(images),
        tf.constant(tops, tf.int32),
        tf.constant(lefts, tf.int32),
        padding,
    ).numpy()
    want = np.zeros_like(images)
    for i, r, c in np.ndindex(images.shape[:3]):
        row, column = r + tops[i] - padding, c + lefts[i] - padding
        if 0 <= row < shape[0] and 0 <= column < shape[1]:
            want[i, r, c] = images[i, row, column]
    np.testing.assert_array_equal(got, want)


@pytest.mark.parametrize("shape", SHAPES)
def test_flip__some_pictures__only_those_are_mirrored(shape):
    images = pictures(4, shape)
    chosen = np.array([True, False, False, True])
    got = _pixels.flip(tf.constant(images), tf.constant(chosen)).numpy()
    for i in range(4):
        want = np.flip(images[i], axis=1) if chosen[i] else images[i]
        np.testing.assert_array_equal(got[i], want)


@pytest.mark.parametrize("shape", SHAPES)
def test_erase__given_rectangles__equals_slice_assignment(shape):
    images, fill = pictures(3, shape), pictures(3, shape, seed=1)
    boxes = [[0, 0, 0, 0], [1, 2, 3, 2], [0, 0, *shape[:2]]]
    got = _pixels.erase(
        tf.constant(images), tf.constant(boxes), tf.constant(fill)
    ).numpy()
    want = images.copy()
    for i, (top, left, height, width) in enumerate(boxes):
        box = np.s_[i, top : top + height, left : left + width]
        want[box] = fill[box]
    np.testing.assert_array_equal(got, want)


@pytest.mark.parametrize("function", AUGMENTATIONS)
def test_augmentation__one_picture_at_a_time__equals_the_batch(function):
    images = pictures(12, (8, 8, 3))
    together = function(images, seeds(12)).numpy()
    alone = [
        function(*pair).numpy() for pair in zip(images, seeds(12), strict=True)
    ]
    np.testing.assert_array_equal(together, alone)


@pytest.mark.parametrize("function", AUGMENTATIONS)
def test_augmentation__other_seed__gives_other_pictures(function):
    images = pictures(64, (8, 8, 3))
    one, two = (function(images, seeds(64, s)).numpy() for s in (1, 2))
    assert (one != two).any()


@pytest.mark.parametrize("function", AUGMENTATIONS)
def test_augmentation__floats__error_says_bytes_are_needed(function):
    with pytest.raises(ValueError, match="must be uint8.*got float32"):
        function(np.zeros((2, 4, 4, 1), np.float32), seeds(2))


@pytest.mark.parametrize("function", AUGMENTATIONS)
def test_augmentation__one_seed_for_a_batch__error_names_shapes(function):
    with pytest.raises(ValueError, match=r"shape \(2,\) for images of shape"):
        function(pictures(2, (4, 4, 1)), (0, 1))


def test_crop_offsets__padding_4__all_nine_are_equally_likely():
    n = 18_000
    for offsets in augment.crop_offsets(tf.constant(seeds(n)), 4):
        counts = np.bincount(offsets.numpy(), minlength=9)
        assert len(counts) == 9
        standard_error = math.sqrt(n * 1 / 9 * 8 / 9)
        assert np.abs(counts - n / 9).max() < 4.5 * standard_error


def test_draws__same_seeds__crop_and_flip_are_uncorrelated():
    n = 10_000
    tops, lefts = augment.crop_offsets(tf.constant(seeds(n)), 4)
    flips = augment.flip_decisions(tf.constant(seeds(n)))
    draws = np.array([tops, lefts, tf.cast(flips, tf.int32)], float)
    off_diagonal = np.corrcoef(draws)[np.triu_indices(3, 1)]
    assert np.abs(off_diagonal).max() < 4.5 / math.sqrt(n)


def test_flip_decisions__many_seeds__half_are_true():
    n = 10_000
    share = augment.flip_decisions(tf.constant(seeds(n))).numpy().mean()
    assert abs(share - 0.5) < 4 * 0.5 / math.sqrt(n)


@pytest.mark.parametrize("probability", [0.0, 0.5, 1.0])
def test_erasing_rectangles__any_probability__that_share_erases(probability):
    n = 10_000
    share = (rectangles(n, probability=probability)[:, 2] > 0).mean()
    standard_error = math.sqrt(probability * (1 - probability) / n)
    assert abs(share - probability) <= 4 * standard_error


def test_erasing_rectangles__any__lie_inside_within_the_bounds():
    boxes = rectangles(20_000, probability=1.0)
    top, left, height, width = boxes.T
    assert boxes.min() >= 0
    assert (top + height).max() == 32 and (left + width).max() == 32
    # A side is rounded by at most half a pixel.
    assert ((height - 0.5) * (width - 0.5)).max() <= 0.4 * 1024
    assert ((height + 0.5) * (width + 0.5)).min() >= 0.02 * 1024
    assert ((height - 0.5) / (width + 0.5)).max() <= 1 / 0.3
    assert ((height + 0.5) / (width - 0.5)).min() >= 0.3


def test_erasing_rectangles__many__follow_zhongs_loop():
    # The authors' algorithm, one picture at a time, with NumPy's generator.
    n, random = 20_000, np.random.default_rng(5)
    want = []
    while len(want) < n:
        pixels = random.uniform(*AREA) * 1024
        aspect = random.uniform(*ASPECT)
        height = round(math.sqrt(pixels * aspect))
        width = round(math.sqrt(pixels / aspect))
        if height < 32 and width < 32:
            top = random.integers(0, 32 - height + 1)
            left = random.integers(0, 32 - width + 1)
            want.append((top, left, height, width))
    want, got = np.array(want, float), rectangles(n, probability=1.0)
    difference = got.mean(axis=0) - want.mean(axis=0)
    standard_error = want.std(axis=0) * math.sqrt(2 / n)
    assert (np.abs(difference) < 4 * standard_error).all()


def test_fill_bytes__many__every_byte_value_is_equally_likely():
    fill = augment.fill_bytes(tf.constant(seeds(200)), (32, 32, 3)).numpy()
    counts = np.bincount(fill.ravel(), minlength=256)
    chi_square = ((counts - fill.size / 256) ** 2).sum() / (fill.size / 256)
    # 255 degrees of freedom: mean 255, variance 510.
    assert abs(chi_square - 255) < 4 * math.sqrt(510)


def test_random_erasing__always__changes_nothing_outside_the_rectangle():
    images = np.zeros((50, 32, 32, 3), np.uint8)
    got = augment.random_erasing(images, seeds(50), probability=1.0).numpy()
    boxes = rectangles(50, probability=1.0)
    for picture, box in zip(got, boxes, strict=True):
        top, left, height, width = box
        inside = picture[top : top + height, left : left + width].astype(int)
        assert inside.sum() == picture.astype(int).sum() > 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"probability": 1.5}, "probability=1.5"),
        ({"area": (0.4, 0.02)}, r"area\[1\]=0.02"),
        ({"aspect": (0, 1)}, r"aspect\[0\]=0"),
    ],
)
def test_random_erasing__bad_hyperparameter__error_names_it(change, message):
    with pytest.raises(ValueError, match=message):
        augment.random_erasing(pictures(1, (4, 4, 1)), seeds(1), **change)


def test_random_crop__negative_padding__error_names_it():
    with pytest.raises(ValueError, match="padding=-1"):
        augment.random_crop(pictures(1, (4, 4, 1)), seeds(1), -1)


def test_random_erasing__a_colour__fills_the_same_rectangles_with_it():
    images = pictures(50, (32, 32, 3))
    got = augment.random_erasing(
        images, seeds(50), probability=1.0, fill=(125.3, 122.9, 300.0)
    ).numpy()
    want = images.copy()
    for picture, box in zip(want, rectangles(50, probability=1.0), strict=True):
        top, left, height, width = box
        picture[top : top + height, left : left + width] = (125, 123, 255)
    np.testing.assert_array_equal(got, want)


def _jittered(picture, order, factors, shift):
    """fb.resnet.torch's ColorJitter and Lighting, in NumPy, on bytes."""
    x = picture.astype(float)
    for which in order:
        grey = 0.299 * x[..., 0] + 0.587 * x[..., 1] + 0.114 * x[..., 2]
        other = [0 * x, 0 * x + grey.mean(), 0 * x + grey[..., None]][which]
        x = factors[which] * x + (1 - factors[which]) * other
    return x + shift


def test_color_jitter__any_numbers__equals_a_numpy_loop():
    images = pictures(40, (6, 5, 3))
    numbers = augment.jitter_numbers(tf.constant(seeds(40)))
    numbers = [part.numpy() for part in numbers]
    assert len({tuple(order) for order in numbers[0]}) == 6  # All orders.
    got = augment.color_jitter(images, seeds(40)).numpy()
    for row, picture in enumerate(images):
        want = _jittered(picture, *(part[row] for part in numbers))
        np.testing.assert_allclose(got[row], want, rtol=1e-4, atol=1e-3)
    alone = augment.color_jitter(images[7], seeds(40)[7]).numpy()
    np.testing.assert_allclose(alone, got[7], rtol=1e-6)


def test_jitter_numbers__many__are_spread_as_in_the_source():
    n = 20_000
    order, factors, shift = augment.jitter_numbers(tf.constant(seeds(n)))
    kinds = np.unique(order.numpy(), axis=0, return_counts=True)[1]
    assert len(kinds) == 6 and (abs(kinds - n / 6) < 5 * np.sqrt(n / 6)).all()
    factors, shift = factors.numpy(), shift.numpy()
    assert 0.6 <= factors.min() and factors.max() <= 1.4
    np.testing.assert_allclose(factors.mean(axis=0), 1, atol=0.01)
    np.testing.assert_allclose(factors.std(axis=0), 0.8 / 12**0.5, rtol=0.03)
    # Lighting: covariance E diag((0.1 * 255 * eigenvalue)^2) E^T.
    values = np.array([0.2175, 0.0188, 0.0045]) * 25.5
    vectors = np.array(augment._EIGENVECTORS)
    want = vectors @ np.diag(values**2) @ vectors.T
    np.testing.assert_allclose(np.cov(shift.T), want, rtol=0.06, atol=0.3)
    np.testing.assert_allclose(shift.mean(axis=0), 0, atol=0.15)


def test_color_jitter__one_channel__is_refused():
    with pytest.raises(ValueError, match="must have 3 channels"):
        augment.color_jitter(pictures(1, (4, 4, 1)), seeds(1))
