import numpy as np
import pytest
import tensorflow as tf

from tf_gnc.data import DATASETS, Preprocess, augment


def pictures(n=6, shape=(8, 8, 3)):
    random = np.random.default_rng(0)
    return random.integers(0, 256, (n, *shape), dtype=np.uint8)


def seeds(n=6):
    return np.stack([np.arange(n), np.arange(n)], axis=1)


def test_evaluation__per_channel_constants__equals_numpy():
    mean, stddev = (10.0, 20.0, 30.0), (2.0, 3.0, 5.0)
    got = Preprocess(mean, stddev).evaluation(tf.constant(pictures()))
    want = (pictures().astype(np.float64) - mean) / stddev
    # Values up to 128, three roundings in float32.
    np.testing.assert_allclose(got, want, atol=128 * 3 * 2**-24)


def test_evaluation__defaults__scale_to_zero_and_one():
    image = tf.constant([[[[0], [255]]]], tf.uint8)
    got = Preprocess().evaluation(image).numpy().ravel()
    np.testing.assert_allclose(got, [0, 1], atol=2**-23)


def test_training__all_augmentations__is_their_chain_then_normalisation():
    preprocess = Preprocess(padding=2, flip=True, erase=True)
    got = preprocess.training(tf.constant(pictures()), seeds()).numpy()
    want = augment.random_crop(pictures(), seeds(), 2)
    want = augment.random_flip(want, seeds())
    want = augment.random_erasing(want, seeds())
    np.testing.assert_array_equal(got, preprocess.evaluation(want).numpy())


def test_training__mean_fill_and_jitter__are_in_the_chain():
    mean = Preprocess(mean=(90.0,), stddev=(50.0,), erase=True,
                      erase_fill="mean")  # fmt: skip
    erased = mean.training(tf.constant(pictures()), seeds()).numpy()
    want = augment.random_erasing(pictures(), seeds(), fill=(90,))
    np.testing.assert_array_equal(erased, mean.evaluation(want).numpy())
    assert (erased == 0).mean() > 0.02  # The mean, normalised.
    jitter = Preprocess(flip=True, jitter=True)
    got = jitter.training(tf.constant(pictures()), seeds()).numpy()
    want = augment.random_flip(pictures(), seeds())
    want = augment.color_jitter(want, seeds())
    np.testing.assert_allclose(got, want / 255, rtol=1e-5)
    np.testing.assert_array_equal(
        jitter.without_augmentation().training(pictures(), seeds()),
        jitter.evaluation(pictures()),
    )
    with pytest.raises(ValueError, match="`jitter` must be False with erase"):
        Preprocess(erase=True, jitter=True)


def test_without_augmentation__training__equals_evaluation():
    bare = DATASETS["cifar10"].preprocess.without_augmentation()
    images = tf.constant(pictures())
    np.testing.assert_array_equal(
        bare.training(images, seeds()), bare.evaluation(images)
    )


def test_datasets__digits__are_never_mirrored_or_erased():
    preprocess = DATASETS["digits"].preprocess
    assert not preprocess.flip and not preprocess.erase


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"mean": (1.0, 2.0)}, r"mean=\(1.0, 2.0\) and stddev=\(255.0,\)"),
        ({"stddev": (0.0,)}, "stddev=0.0"),
        ({"padding": -1}, "padding=-1"),
        ({"flip": 1}, "flip=1"),
        ({"erase": "yes"}, "erase='yes'"),
    ],
)
def test_preprocess__bad_argument__error_names_it(arguments, message):
    with pytest.raises(ValueError, match=message):
        Preprocess(**arguments)


def test_evaluation__wrong_number_of_channels__error_names_both():
    with pytest.raises(ValueError, match=r"or 1, .* got mean=\(0.0, 0.0\)"):
        Preprocess((0.0, 0.0), (1.0, 1.0)).evaluation(
            tf.zeros((1, 2, 2, 1), tf.uint8)
        )
