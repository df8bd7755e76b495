"""The residual networks: counted by hand, and block by block in NumPy."""

import collections

import keras
import numpy as np
import pytest
import tensorflow as tf

import tf_gnc
from tf_gnc import models
from tf_gnc.models import MODELS
from tf_gnc.models.resnet import resnet, shortcut_identity


def images(*shape):
    return np.random.default_rng(0).normal(size=shape).astype("float32")


def num_parameters(model):
    return sum(v.shape.num_elements() for v in model.trainable_variables)


def hand_count(n, num_classes, channels, projection):
    """Trainable parameters by He et al.'s description, not by our code."""
    convolutions = 9 * channels * 16  # stem
    convolutions += 2 * n * 9 * 16 * 16  # stage of 16 channels
    convolutions += 9 * 16 * 32 + (2 * n - 1) * 9 * 32 * 32
    convolutions += 9 * 32 * 64 + (2 * n - 1) * 9 * 64 * 64
    normalized = 16 + 2 * n * (16 + 32 + 64)  # channels with gamma and beta
    if projection:
        convolutions += 16 * 32 + 32 * 64
        normalized += 32 + 64
    return convolutions + 2 * normalized + 64 * num_classes + num_classes


@pytest.mark.parametrize("n, millions", [(3, 0.27), (5, 0.46), (9, 0.85)])
def test_resnet__he_depths__have_the_published_parameter_counts(n, millions):
    # He et al. (2016), Table 6: ResNet-20, ResNet-32 and ResNet-56.
    assert round(num_parameters(resnet(n, 10)) / 1e6, 2) == millions


@pytest.mark.parametrize("shortcut", ["identity", "projection"])
@pytest.mark.parametrize("n, classes, channels", [(1, 10, 1), (2, 100, 3)])
def test_resnet__any_size__has_the_parameters_counted_by_hand(
    shortcut, n, classes, channels
):
    model = resnet(n, classes, (8, 8, channels), shortcut=shortcut)
    expected = hand_count(n, classes, channels, shortcut == "projection")
    assert num_parameters(model) == expected


@pytest.mark.parametrize("n", [1, 3, 5])
def test_resnet__identity_shortcuts__has_6n_plus_2_weighted_layers(n):
    model = resnet(n, 10)
    weighted = [
        layer
        for layer in model.layers
        if isinstance(layer, keras.layers.Conv2D | keras.layers.Dense)
    ]
    assert len(weighted) == 6 * n + 2
    assert model.name == f"resnet{6 * n + 2}"


@pytest.mark.parametrize("shortcut", ["identity", "projection"])
@pytest.mark.parametrize("shape", [(32, 32, 3), (8, 8, 1), (9, 7, 2)])
def test_resnet__images_of_any_size__yield_logits(shape, shortcut):
    model = resnet(1, 10, shape, shortcut=shortcut)
    logits = model(images(4, *shape))
    assert logits.shape == (4, 10) and logits.dtype == "float32"
    # Logits, not probabilities, which would be positive.
    assert float(keras.ops.min(logits)) < 0


def test_shortcut_identity__hand_example__subsamples_and_appends_zeros():
    x = np.arange(1.0, 10.0, dtype="float32").reshape(1, 3, 3, 1)
    y = shortcut_identity(x, filters=2, stride=2)
    assert np.array(y).tolist() == [
        [[[1.0, 0.0], [3.0, 0.0]], [[7.0, 0.0], [9.0, 0.0]]]
    ]


def test_resnet__block_whose_residual_is_zero__is_the_numpy_shortcut():
    model = resnet(1, 10, (9, 8, 3))
    # gamma = beta = 0 silences F(x) in the first block that changes the shape.
    model.get_layer("stage1_block0_2_norm").gamma.assign(np.zeros(32))
    before, after = keras.Model(
        model.input,
        [
            model.get_layer("stage0_block0_relu").output,
            model.get_layer("stage1_block0_relu").output,
        ],
    ).predict(images(2, 9, 8, 3), verbose=0)
    expected = np.zeros((2, 5, 4, 32), "float32")
    for row in range(5):
        for column in range(4):
            expected[:, row, column, :16] = before[:, 2 * row, 2 * column]
    assert before.max() > 0
    np.testing.assert_array_equal(after, expected)


@pytest.mark.parametrize("rows", [8, 9])
def test_resnet__strided_convolution__looks_at_the_pixels_of_its_shortcut(rows):
    model = resnet(1, 10, (rows, 8, 3))
    # A kernel that copies the pixel at the centre of its window.
    kernel = np.zeros((3, 3, 16, 32), "float32")
    kernel[1, 1, range(16), range(16)] = 1.0
    model.get_layer("stage1_block0_1_conv").kernel.assign(kernel)
    before, after = keras.Model(
        model.input,
        [
            model.get_layer("stage0_block0_relu").output,
            model.get_layer("stage1_block0_1_conv").output,
        ],
    ).predict(images(2, rows, 8, 3), verbose=0)
    np.testing.assert_array_equal(after[..., :16], before[:, ::2, ::2])


def test_resnet__model_class__is_made_by_the_functional_constructor():
    class Mine(keras.Model):
        pass

    model = resnet(1, 10, (8, 8, 1), model_class=Mine, name="mine")
    assert isinstance(model, Mine) and model.name == "mine"
    assert model.output_shape == (None, 10)


def test_resnet__batch_norm_settings__reach_every_layer():
    def settings(model):
        return {
            (layer.momentum, layer.epsilon)
            for layer in model.layers
            if isinstance(layer, keras.layers.BatchNormalization)
        }

    chosen = models.BatchNormSettings(momentum=0.5, epsilon=0.25)
    for shortcut in ("identity", "projection"):
        model = resnet(1, 10, shortcut=shortcut, batch_norm=chosen)
        assert settings(model) == {(0.5, 0.25)}
    assert settings(resnet(1, 10)) == {(0.9, 1e-5)}


@pytest.mark.parametrize(
    "policy, inside, outside",
    [
        ("mixed_float16", "float16", "float32"),
        ("mixed_bfloat16", "bfloat16", "float32"),
        ("bfloat16", "bfloat16", "float32"),
        ("float64", "float64", "float64"),
    ],
)
def test_resnet__dtype_policy__leaves_the_logits_at_least_float32(
    policy, inside, outside
):
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    try:
        model = resnet(1, 10, (8, 8, 1))
    finally:
        keras.config.set_dtype_policy(before)
    assert model.get_layer("stem_conv").compute_dtype == inside
    assert model.output.dtype == outside


@pytest.mark.parametrize("name, depth", [("resnet8", 8), ("resnet20", 20)])
def test_build__registered_name__builds_that_depth(name, depth):
    model = models.build(name, 10, shortcut="projection")
    assert model.name == f"resnet{depth}"
    assert model.get_layer("stage1_block0_shortcut_conv").kernel_size == (1, 1)


def test_build__unknown_name__error_lists_the_names():
    with pytest.raises(
        ValueError, match="'resnet50', 'resnet50_v1_5', got name='vgg'"
    ):
        models.build("vgg", 10)


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"depth_n": 0}, "`depth_n` must be .* at least 1, got depth_n=0"),
        ({"num_classes": 0}, "at least 1, got num_classes=0"),
        ({"input_shape": (32, 32)}, r"got input_shape=\(32, 32\)"),
        ({"input_shape": (None, 8, 1)}, r"input_shape\[0\]=None"),
        ({"input_shape": 32}, "got input_shape=32"),
        (
            {"shortcut": "B"},
            "one of 'identity', 'projection', got shortcut='B'",
        ),
    ],
)
def test_resnet__illegal_argument__error_names_it(arguments, message):
    legal = {"depth_n": 1, "num_classes": 1, "input_shape": (1, 1, 1)}
    assert resnet(**legal).output_shape == (None, 1)
    with pytest.raises(ValueError, match=message):
        resnet(**{**legal, **arguments})


def test_resnet__channels_first__error_says_what_to_set():
    keras.config.set_image_data_format("channels_first")
    try:
        with pytest.raises(ValueError, match="set_image_data_format"):
            resnet(1, 10)
    finally:
        keras.config.set_image_data_format("channels_last")


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"momentum": 1.5}, "at most 1, got momentum=1.5"),
        ({"epsilon": 0}, "above 0, got epsilon=0"),
    ],
)
def test_batch_norm_settings__illegal__error_names_it(arguments, message):
    with pytest.raises(ValueError, match=message):
        models.BatchNormSettings(**arguments)
    assert models.BatchNormSettings(momentum=1).momentum == 1


@pytest.mark.parametrize("name", MODELS)
def test_build__every_model__trains_fused_and_is_handed_out_as_stock_keras(
    name,
):
    shape = (64, 64, 3) if "50" in name else (8, 8, 3)
    model = models.build(name, 10, shape, model_class=tf_gnc.GNCModel)
    norms = [v for v in model.layers if v.name.endswith("_norm")]
    assert norms
    assert all(isinstance(v, tf_gnc.layers.BatchNormalization) for v in norms)
    assert "tf_gnc" not in model.to_keras().to_json()


def test_resnet__trained_fused__comes_to_what_kerass_own_layer_does():
    x = images(16, 8, 8, 1)
    y = np.arange(16) % 10
    fused = resnet(1, 10, (8, 8, 1), model_class=tf_gnc.GNCModel)
    stock = keras.models.clone_model(fused.to_keras())
    stock.set_weights(fused.get_weights())
    losses = {}
    for model in (fused, tf_gnc.GNCModel(stock.inputs, stock.outputs)):
        model.compile(
            keras.optimizers.SGD(0.02, momentum=0.9),
            keras.losses.SparseCategoricalCrossentropy(from_logits=True),
            noise=tf_gnc.GradientNoise(alpha=0.1),
            num_workers=4,
        )
        for _ in range(11):
            loss = model.train_on_batch(x, y)
            model.reset_metrics()
            losses.setdefault(model is fused, []).append(float(loss))
    assert losses[True][:2] == pytest.approx(losses[False][:2], rel=1e-6)
    assert losses[True] == pytest.approx(losses[False], rel=1e-4)
    assert losses[True] != losses[False]  # It is another layer.


def test_resnet__mixed_bfloat16__casts_inputs_and_weights_once_a_worker():
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        model = resnet(1, 10, (16, 16, 3), model_class=tf_gnc.GNCModel)
    finally:
        keras.config.set_dtype_policy("float32")
    model.compile(
        "sgd",
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        noise=tf_gnc.GradientNoise(alpha=0.1),
        num_workers=2,
    )
    step = tf.function(model.train_step, autograph=False)
    batch = (tf.zeros([8, 16, 16, 3]), tf.zeros([8], tf.int32))
    graph = step.get_concrete_function(batch).graph.as_graph_def(
        add_shapes=True
    )
    found = collections.Counter()
    for function in graph.library.function:
        for node in function.node_def:
            shape = node.attr["_output_shapes"].list.shape
            if node.op == "Cast" and len(shape[0].dim) == 4:
                to = tf.as_dtype(node.attr["DstT"].type).name
                found[(*(d.size for d in shape[0].dim), to)] += 1
    # A worker has four rows. The last mean over positions is in float32.
    assert found.pop((4, 16, 16, 3, "bfloat16")) == 1
    assert found.pop((4, 4, 4, 64, "float32")) == 1
    assert found.pop((4, 4, 4, 64, "bfloat16")) == 1
    kernels = [v.shape for v in model.trainable_variables if len(v.shape) == 4]
    # There for the loss, and back for its gradient.
    for shape, count in collections.Counter(kernels).items():
        assert found.pop((*shape, "bfloat16")) == count
        assert found.pop((*shape, "float32")) == count
    assert not found
