import math

import numpy as np
import pytest
import tensorflow as tf

from tf_gnc.data import _random_bits, image_files


def random_windows(size, num):
    seeds = np.stack([np.full(num, 3), np.arange(num)], axis=1)
    dataset = tf.data.Dataset.from_tensor_slices(seeds)
    dataset = dataset.map(lambda seed: image_files.random_window(size, seed))
    return dataset.batch(num).get_single_element().numpy()


def by_hand(size, seed):
    """The same by a loop that stops at the first candidate that fits."""
    bits = _random_bits.random_bits([seed], image_files._WINDOW, 32)
    draws = _random_bits.uniform(bits)[0].numpy().astype(float)
    for i in range(10):
        area, aspect, turned = draws[2 + i], draws[12 + i], draws[22 + i]
        pixels = (0.08 + 0.92 * area) * size[0] * size[1]
        aspect = 3 / 4 + (4 / 3 - 3 / 4) * aspect
        height = max(round(math.sqrt(pixels / aspect)), 1)
        width = max(round(math.sqrt(pixels * aspect)), 1)
        if turned >= 0.5:
            height, width = width, height
        if height <= size[0] and width <= size[1]:
            top = int(draws[0] * (size[0] - height + 1))
            left = int(draws[1] * (size[1] - width + 1))
            return [top, left, height, width]
    side = min(size)
    return [(size[0] - side) // 2, (size[1] - side) // 2, side, side]


@pytest.mark.parametrize("size", [(375, 500), (500, 333), (40, 1000), (2, 2)])
def test_random_window__many_seeds__equals_a_loop(size):
    got = random_windows(size, 60)
    want = [by_hand(size, (3, i)) for i in range(60)]
    np.testing.assert_array_equal(got, want)


@pytest.mark.parametrize("size", [(375, 500), (30, 24), (1, 1), (1, 700)])
def test_random_window__any_size__lies_inside(size):
    tops, lefts, heights, widths = random_windows(size, 500).T
    assert tops.min() >= 0 and lefts.min() >= 0
    assert heights.min() >= 1 and widths.min() >= 1
    assert (tops + heights).max() <= size[0]
    assert (lefts + widths).max() <= size[1]


def test_random_window__nothing_fits__is_the_central_square():
    # 8 % of the area at an aspect of 3/4 is 24 pixels high.
    assert image_files.random_window((10, 1000), (0, 0)).numpy().tolist() == [
        0, 495, 10, 10,
    ]  # fmt: skip


def test_random_window__small_ones__have_uniform_area_place_and_turn():
    # Below half the area all fit: they are uniform there.
    size, num = (1000, 1000), 2000
    tops, lefts, heights, widths = random_windows(size, num).T
    shares = heights * widths / 1e6
    small = shares < 0.5
    shares = (shares[small] - 0.08) / 0.42
    error = 1 / math.sqrt(12 * small.sum())
    assert abs(shares.mean() - 0.5) < 4 * error
    for start, side in ((tops, heights), (lefts, widths)):
        place = (start / (1000 - side + 1))[small]
        assert abs(place.mean() - 0.5) < 4 * error
    stands = (heights > widths)[small]
    assert abs(stands.mean() - 0.5) < 4 * 0.5 / math.sqrt(small.sum())
    aspects = (heights / widths)[small]
    assert 0.745 < aspects.min() < 0.76 and 1.32 < aspects.max() < 1.345


@pytest.mark.parametrize(
    ("size", "window"),
    [
        ((256, 256), [16, 16, 224, 224]),
        ((256, 300), [16, 38, 224, 224]),
        ((400, 128), [144, 8, 112, 112]),
        ((1, 1), [0, 0, 1, 1]),
    ],
)
def test_central_window__of_224_in_256__is_the_one_worked_out(size, window):
    assert (
        image_files.central_window(size, 224 / 256).numpy().tolist() == window
    )
