r"""Residual networks for small images, ResNet-(6n + 2) of He et al. (2016).

They are made of stock Keras layers and operations, but for the batch
normalization of `tf_gnc.layers`. A plain `keras.Model`, and what
`GNCModel.to_keras` returns, has Keras's own in its place, so that its file
loads where this package isn't installed.

Symbols   n       residual blocks in each of the three stages
          N       examples in a batch
          H, W, C rows, columns, channels of a feature map, (N, H, W, C)
"""

from collections.abc import Callable

import keras
from keras import layers, ops

from tf_gnc import _check
from tf_gnc.models._layers import (
    BatchNormSettings,
    conv_norm,
    image_shape,
    logits,
)

WIDTHS = (16, 32, 64)  # Channels of the three stages.


def shortcut_identity(
    x: keras.KerasTensor, filters: int, stride: int
) -> keras.KerasTensor:
    r"""Returns `x` subsampled and padded with zero channels; no parameters.

    :math:`y_{nijc} = x_{n,\,si,\,sj,\,c}` for the channels that `x` has, 0
    for the new ones, which come last.

    Paper: option A of He et al. (2016), arXiv:1512.03385, section 4.2.
    Deviation from the paper: none. It doesn't say on which side the zero
    channels go.

    From features `(N, H, W, C)` it makes features
    `(N, ceil(H / stride), ceil(W / stride), filters)`, at least C.

    Example:
        >>> x = ops.reshape(ops.arange(4.0), (1, 2, 2, 1))
        >>> shortcut_identity(x, filters=2, stride=2).numpy().tolist()
        [[[[0.0, 0.0]]]]
        >>> shortcut_identity(x, filters=2, stride=1)[0, 1].numpy().tolist()
        [[2.0, 0.0], [3.0, 0.0]]
    """
    if stride > 1:
        x = x[:, ::stride, ::stride, :]
    if filters > x.shape[-1]:
        x = ops.pad(x, ((0, 0), (0, 0), (0, 0), (0, filters - x.shape[-1])))
    return x


def resnet(
    depth_n: int,
    num_classes: int,
    input_shape: tuple[int, int, int] = (32, 32, 3),
    *,
    shortcut: str = "identity",
    batch_norm: BatchNormSettings | bool = True,
    model_class: Callable[..., keras.Model] = keras.Model,
    name: str | None = None,
) -> keras.Model:
    r"""Builds ResNet-(6n + 2): a convolution, 3n residual blocks, logits.

    A block is :math:`y = \mathrm{relu}(F(x) + S(x))`, with :math:`F` two 3x3
    convolutions without bias, each followed by batch normalization and the
    first also by a relu, and :math:`S` the shortcut. Stages have 16, 32 and
    64 channels; the first blocks of the second and third halve rows and
    columns. The mean over all positions feeds a dense layer.

    Paper: He et al. (2016), arXiv:1512.03385, section 4.2; n = 5 is the
    ResNet-32 of Haruki et al. (2019), arXiv:1906.10822, Table 3, with 0.46
    million parameters.
    Deviation from the paper: weights start as Keras's `he_normal`, a normal
    truncated at two standard deviations with the variance of He et al.

    Args:
        depth_n: n, at least 1.
        num_classes: Number of classes, at least 1.
        input_shape: `(H, W, C)`, each at least 1. 8x8 images do.
        shortcut: What S is where the shape changes. `"identity"`, option A:
            subsample and pad with zero channels, no parameters.
            `"projection"`, option B: a strided 1x1 convolution with batch
            normalization. Everywhere else S is the identity.
        batch_norm: Settings of all batch normalizations; True for
            `BatchNormSettings()`. False leaves them out, as Haruki et al. do
            for their Fig. 3 (c); convolutions then have a bias.
        model_class: Called as `model_class(inputs, outputs, name=...)`. Of a
            plain `keras.Model` all layers are Keras's own.
        name: Name of the model, by default "resnet" and its depth.

    Returns:
        A model from images `(N, H, W, C)` to logits `(N, num_classes)`. The
        logits are float32 even if a mixed-precision policy is set, since a
        loss in half precision overflows.

    Raises:
        ValueError: If an argument is out of its range, or if Keras is set
            to put channels first.

    Example:
        >>> model = resnet(5, num_classes=10)
        >>> model.name, model.output_shape
        ('resnet32', (None, 10))
        >>> sum(w.shape.num_elements() for w in model.trainable_variables)
        464154
    """
    depth_n = _check.integer("depth_n", depth_n, minimum=1)
    num_classes = _check.integer("num_classes", num_classes, minimum=1)
    shortcut = _check.choice("shortcut", shortcut, ("identity", "projection"))
    norm = batch_norm or None
    if batch_norm is True:
        norm = BatchNormSettings()
    norm = norm and norm.suiting(model_class)
    inputs = keras.Input(image_shape(input_shape))
    x = conv_norm(inputs, WIDTHS[0], 3, norm, name="stem")
    x = layers.ReLU(name="stem_relu")(x)
    for stage, filters in enumerate(WIDTHS):
        for block in range(depth_n):
            stride = 2 if stage > 0 and block == 0 else 1
            prefix = f"stage{stage}_block{block}"
            residual = _residual(x, filters, stride, norm, prefix)
            if stride > 1 and shortcut == "projection":
                x = conv_norm(
                    x, filters, 1, norm, stride, name=f"{prefix}_shortcut"
                )
            elif stride > 1:
                x = shortcut_identity(x, filters, stride)
            x = layers.Add(name=f"{prefix}_add")([residual, x])
            x = layers.ReLU(name=f"{prefix}_relu")(x)
    outputs = logits(x, num_classes, "he_normal")
    name = name or f"resnet{6 * depth_n + 2}"
    return model_class(inputs, outputs, name=name)


def _residual(
    x: keras.KerasTensor,
    filters: int,
    stride: int,
    norm: BatchNormSettings | None,
    prefix: str,
) -> keras.KerasTensor:
    """Returns F(x): two convolutions, the first of which may subsample."""
    x = conv_norm(x, filters, 3, norm, stride, name=f"{prefix}_1")
    x = layers.ReLU(name=f"{prefix}_1_relu")(x)
    return conv_norm(x, filters, 3, norm, name=f"{prefix}_2")
