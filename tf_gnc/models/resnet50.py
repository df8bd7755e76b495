"""ResNet-50 for ImageNet: residual networks whose blocks have a bottleneck.

They are made of what those of resnet.py are, whose symbols are used here.
"""

from collections.abc import Callable, Sequence

import keras
from keras import layers

from tf_gnc import _check
from tf_gnc.models._layers import (
    BatchNormSettings,
    conv_norm,
    image_shape,
    logits,
)

_EXPANSION = 4  # Channels at a block's ends for each in its bottleneck.


def resnet50(
    version: str,
    num_classes: int,
    input_shape: tuple[int, int, int] = (224, 224, 3),
    *,
    blocks: Sequence[int] = (3, 4, 6, 3),
    widths: Sequence[int] = (64, 128, 256, 512),
    batch_norm: BatchNormSettings | None = None,
    model_class: Callable[..., keras.Model] = keras.Model,
    name: str | None = None,
) -> keras.Model:
    r"""Builds ResNet-50, or a smaller one of the same kind.

    A 7x7 convolution and a 3x3 maximum, both of stride 2; four stages of
    blocks :math:`y = \mathrm{relu}(F(x) + S(x))`; the mean over all positions;
    a dense layer. :math:`F` is a 1x1, a 3x3 and a 1x1 convolution, the last
    with four times as many channels. :math:`S` is the identity, but a 1x1
    convolution in the first block of a stage. Batch normalization follows
    each convolution.

    Paper: He et al. (2016), arXiv:1512.03385, Table 1, 50 layers. The start
    is that of Goyal et al. (2017), arXiv:1706.02677, section 5.1: each
    block's last gamma is zero, so that it begins as its shortcut; the dense
    kernel is normal with standard deviation 0.01; convolutions start as He
    et al. do, here as Keras's `he_normal`, truncated at two standard
    deviations. So do their 0.9 and 1e-5 for batch normalization.
    Deviation from the paper: none otherwise. Haruki et al. (2019) name the
    network alone, so v1 is the default of our recipes; Goyal et al. use v1.5.

    Args:
        version: Where a stage halves rows and columns: "v1" in its first 1x1
            convolution, as He et al.; "v1.5" in its first 3x3.
        num_classes: Number of classes, at least 1.
        input_shape: `(H, W, C)`, each at least 1. 32x32 images do.
        blocks: Number of blocks in each stage.
        widths: Channels of each stage's bottlenecks. The first is also the
            number of channels of the 7x7 convolution.
        batch_norm: Settings of all batch normalizations, by default
            `BatchNormSettings()`.
        model_class: Called as `model_class(inputs, outputs, name=...)`. Of a
            plain `keras.Model` all layers are Keras's own.
        name: Name of the model, by default "resnet50" or "resnet50_v1_5".

    Returns, and errors, are those of `resnet.resnet`.

    Example:
        >>> model = resnet50("v1", 1000)
        >>> sum(w.shape.num_elements() for w in model.trainable_variables)
        25557032
    """
    version = _check.choice("version", version, ("v1", "v1.5"))
    num_classes = _check.integer("num_classes", num_classes, minimum=1)
    stages = _stages(blocks, widths)
    norm = (batch_norm or BatchNormSettings()).suiting(model_class)
    inputs = keras.Input(image_shape(input_shape))
    x = conv_norm(inputs, stages[0][1], 7, norm, 2, name="stem")
    x = layers.ReLU(name="stem_relu")(x)
    # Zeros on all sides alike, as in the convolutions; after a relu none of
    # them is above a maximum.
    x = layers.ZeroPadding2D(1, name="stem_pool_pad")(x)
    x = layers.MaxPooling2D(3, 2, name="stem_pool")(x)
    for stage, (num_blocks, width) in enumerate(stages):
        for block in range(num_blocks):
            first, prefix = block == 0, f"stage{stage}_block{block}"
            stride = 2 if first and stage > 0 else 1
            strides = (stride, 1) if version == "v1" else (1, stride)
            residual = _residual(x, width, strides, norm, prefix)
            if first:
                x = conv_norm(
                    x,
                    _EXPANSION * width,
                    1,
                    norm,
                    stride,
                    name=f"{prefix}_shortcut",
                )
            x = layers.Add(name=f"{prefix}_add")([residual, x])
            x = layers.ReLU(name=f"{prefix}_relu")(x)
    normal = keras.initializers.RandomNormal(stddev=0.01)
    outputs = logits(x, num_classes, normal)
    name = name or f"resnet50{'_v1_5' if version == 'v1.5' else ''}"
    return model_class(inputs, outputs, name=name)


def _residual(
    x: keras.KerasTensor,
    width: int,
    strides: tuple[int, int],
    norm: BatchNormSettings,
    prefix: str,
) -> keras.KerasTensor:
    """Returns F(x), zero at the start; `strides` are of the first two."""
    for number, (size, stride) in enumerate(
        zip((1, 3), strides, strict=True), start=1
    ):
        x = conv_norm(x, width, size, norm, stride, name=f"{prefix}_{number}")
        x = layers.ReLU(name=f"{prefix}_{number}_relu")(x)
    return conv_norm(
        x, _EXPANSION * width, 1, norm, gamma="zeros", name=f"{prefix}_3"
    )


def _stages(
    blocks: Sequence[int], widths: Sequence[int]
) -> list[tuple[int, int]]:
    """Returns (blocks, width) of each stage."""
    if not blocks or len(blocks) != len(widths):
        raise ValueError(
            "`blocks` and `widths` must have one number for each stage, at "
            f"least one, got blocks={blocks} and widths={widths}."
        )
    blocks = _check.integers("blocks", blocks)
    widths = _check.integers("widths", widths)
    return list(zip(blocks, widths, strict=True))
