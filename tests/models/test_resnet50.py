"""ResNet-50: counted by hand, its strides and how it starts."""

import functools

import keras
import numpy as np
import pytest

import tf_gnc
from tf_gnc import models
from tf_gnc.models.resnet50 import resnet50

TINY = {"blocks": (1, 2), "widths": (4, 8)}


def images(*shape):
    return np.random.default_rng(0).normal(size=shape).astype("float32")


def num_parameters(model):
    return sum(v.shape.num_elements() for v in model.trainable_variables)


def hand_count(num_classes, blocks, widths):
    """Trainable parameters by He et al.'s Table 1, not by our code."""
    total, channels = 7 * 7 * 3 * widths[0] + 2 * widths[0], widths[0]
    for num_blocks, width in zip(blocks, widths, strict=True):
        for block in range(num_blocks):
            total += channels * width + 9 * width**2 + width * 4 * width
            total += 2 * (width + width + 4 * width)  # gamma and beta
            if block == 0:
                total += channels * 4 * width + 2 * 4 * width
            channels = 4 * width
    return total + channels * num_classes + num_classes


@pytest.mark.parametrize("name", ["resnet50", "resnet50_v1_5"])
def test_build__imagenet__has_the_published_number_of_parameters(name):
    model = models.build(name, 1000, (224, 224, 3))
    full = hand_count(1000, (3, 4, 6, 3), (64, 128, 256, 512))
    assert num_parameters(model) == full == 25_557_032
    assert model.name == name and model.output_shape == (None, 1000)
    # One for each of 53 convolutions and the dense layer, the shortcuts' 4
    # among them: 50 layers.
    weighted = keras.layers.Conv2D | keras.layers.Dense
    assert sum(isinstance(x, weighted) for x in model.layers) == 54


@pytest.mark.parametrize("classes, blocks", [(10, (1, 1)), (3, (2, 3))])
def test_resnet50__any_size__has_the_parameters_counted_by_hand(
    classes, blocks
):
    model = resnet50("v1", classes, (32, 32, 3), blocks=blocks, widths=(4, 8))
    assert num_parameters(model) == hand_count(classes, blocks, (4, 8))


@pytest.mark.parametrize(
    ("version", "strides"), [("v1", (2, 1)), ("v1.5", (1, 2))]
)
def test_resnet50__version__says_which_convolution_has_the_stride(
    version, strides
):
    model = resnet50(version, 10, (32, 32, 3), **TINY)
    found = {
        layer.name: layer.strides[0]
        for layer in model.layers
        if isinstance(layer, keras.layers.Conv2D) and layer.strides[0] > 1
    }
    number = 1 + strides.index(2)
    assert found == {
        "stem_conv": 2,
        f"stage1_block0_{number}_conv": 2,
        "stage1_block0_shortcut_conv": 2,
    }


@pytest.mark.parametrize("version", ["v1", "v1.5"])
@pytest.mark.parametrize("rows", [32, 33])
def test_resnet50__strided_convolution__looks_at_the_pixels_of_its_shortcut(
    version, rows
):
    model = resnet50(version, 10, (rows, 32, 3), **TINY)
    name = f"stage1_block0_{1 if version == 'v1' else 2}_conv"
    layer = model.get_layer(name)
    # A kernel that copies the first 8 channels at the centre of its window.
    kernel = np.zeros(layer.kernel.shape, "float32")
    centre = kernel.shape[0] // 2
    kernel[centre, centre, range(8), range(8)] = 1.0
    layer.kernel.assign(kernel)
    earlier = (
        "stage0_block0_relu" if version == "v1" else "stage1_block0_1_relu"
    )
    before, after = keras.Model(
        model.input, [model.get_layer(earlier).output, layer.output]
    ).predict(images(2, rows, 32, 3), verbose=0)
    assert before.max() > 0
    np.testing.assert_array_equal(after, before[:, ::2, ::2, :8])


def test_resnet50__at_the_start__each_block_is_its_shortcut():
    model = resnet50("v1", 10, (32, 32, 3), **TINY)
    gammas = {
        layer.name: np.unique(layer.gamma.numpy()).tolist()
        for layer in model.layers
        if isinstance(layer, keras.layers.BatchNormalization)
    }
    zero = {name for name, values in gammas.items() if values == [0.0]}
    blocks = ("stage0_block0", "stage1_block0", "stage1_block1")
    assert zero == {f"{block}_3_norm" for block in blocks}
    assert all(gammas[name] == [1.0] for name in set(gammas) - zero)
    before, after = keras.Model(
        model.input,
        [model.get_layer(f"stage1_block{i}_relu").output for i in (0, 1)],
    ).predict(images(2, 32, 32, 3), verbose=0)
    assert before.max() > 0
    np.testing.assert_array_equal(after, before)


def test_resnet50__stem__takes_the_maximum_of_nine_of_every_fourth_pixel():
    model = resnet50("v1", 10, (15, 16, 3), **TINY)
    before, after = keras.Model(
        model.input,
        [model.get_layer(n).output for n in ("stem_relu", "stem_pool")],
    ).predict(images(1, 15, 16, 3), verbose=0)
    assert before.shape == (1, 8, 8, 4) and after.shape == (1, 4, 4, 4)
    for row, column in np.ndindex(4, 4):
        rows = slice(max(2 * row - 1, 0), 2 * row + 2)
        columns = slice(max(2 * column - 1, 0), 2 * column + 2)
        want = before[:, rows, columns].max(axis=(1, 2))
        np.testing.assert_array_equal(after[:, row, column], want)


def test_resnet50__fresh_weights__have_the_stated_spread():
    model = models.build("resnet50", 1000, (32, 32, 3))
    dense = model.get_layer("logits").kernel.numpy()
    # The standard error of a deviation is sigma / sqrt(2 n).
    assert abs(dense.std() - 0.01) < 4 * 0.01 / np.sqrt(2 * dense.size)
    kernel = model.get_layer("stage3_block1_2_conv").kernel.numpy()
    sigma = np.sqrt(2 / (9 * 512))
    assert abs(kernel.std() - sigma) < 4 * sigma / np.sqrt(2 * kernel.size)


def test_resnet50__batch_norm__has_the_stated_settings_and_takes_others():
    def settings(model):
        return {
            (layer.momentum, layer.epsilon)
            for layer in model.layers
            if isinstance(layer, keras.layers.BatchNormalization)
        }

    build = functools.partial(resnet50, "v1", 10, (8, 8, 3), **TINY)
    assert settings(build()) == {(0.9, 1e-5)}
    chosen = models.BatchNormSettings(momentum=0.5, epsilon=0.25)
    assert settings(build(batch_norm=chosen)) == {(0.5, 0.25)}


@pytest.mark.parametrize(
    ("version", "policy"), [("v1", "float32"), ("v1.5", "mixed_bfloat16")]
)
def test_resnet50__gradient_noise__trains_under_the_policy(version, policy):
    keras.config.set_dtype_policy(policy)
    model = resnet50(
        version, 10, (16, 16, 3), model_class=tf_gnc.GNCModel, **TINY
    )
    model.compile(
        optimizer=tf_gnc.optimizers.MomentumSGD(0.05, momentum=0.9),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        noise=tf_gnc.GradientNoise(alpha=0.1),
        num_workers=2,
    )
    x, y = images(8, 16, 16, 3), np.arange(8)
    history = model.fit(x, y, batch_size=8, epochs=12, verbose=0).history
    inside = model.get_layer("stem_conv").compute_dtype
    assert inside == policy.removeprefix("mixed_")
    assert model.output.dtype == "float32"
    assert all(v.dtype == "float32" for v in model.trainable_variables)
    assert history["loss"][-1] < history["loss"][0]  # of the same pictures


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"version": "v2"}, "one of 'v1', 'v1.5', got version='v2'"),
        ({"num_classes": 0}, "at least 1, got num_classes=0"),
        ({"blocks": (1,)}, r"got blocks=\(1,\) and widths=\(4, 8\)"),
        ({"blocks": (), "widths": ()}, r"at least one, got blocks=\(\)"),
        ({"blocks": (1, 0)}, r"got blocks\[1\]=0"),
        ({"widths": (4, 0)}, r"got widths\[1\]=0"),
        ({"input_shape": (32, 32)}, r"got input_shape=\(32, 32\)"),
    ],
)
def test_resnet50__illegal_argument__error_names_it(arguments, message):
    legal = {"version": "v1", "num_classes": 1, "input_shape": (1, 1, 1)}
    assert resnet50(**legal, **TINY).output_shape == (None, 1)
    with pytest.raises(ValueError, match=message):
        resnet50(**{**legal, **TINY, **arguments})
