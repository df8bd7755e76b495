"""The parts of the residual networks: layers with our settings."""

import dataclasses

import keras
from keras import layers

from tf_gnc import _check
from tf_gnc.layers import BatchNormalization


@dataclasses.dataclass(frozen=True)
class BatchNormSettings:
    r"""Settings of every batch normalization in a model.

    Haruki et al. (2019) state neither, so both defaults are choices of ours.
    At Keras's own momentum of 0.99 a moving statistic remembers some hundred
    updates. A large-batch run makes few updates per epoch (six, for CIFAR-10
    at batch size 8,192), so evaluation would use statistics that are many
    epochs old. 0.9 remembers about ten.

    Attributes:
        momentum: Share of the old moving statistic that an update keeps,
            from 0 to 1.
        epsilon: Added to the variance before its square root, above 0.
            1e-5, as in the original code of He et al.; Keras's is 1e-3.
        layer: The layer's class. In a plain `keras.Model`, whose file must
            load where only Keras is, it is Keras's own in any case.

    Raises:
        ValueError: If a setting is out of its range.

    Example:
        >>> BatchNormSettings(momentum=0.5)
        BatchNormSettings(momentum=0.5, epsilon=1e-05)
    """

    momentum: float = 0.9
    epsilon: float = 1e-5
    layer: type[keras.layers.BatchNormalization] = dataclasses.field(
        default=BatchNormalization, repr=False
    )

    def __post_init__(self) -> None:
        _check.real("momentum", self.momentum, minimum=0, maximum=1)
        _check.real("epsilon", self.epsilon, above=0)

    def suiting(self, model_class: object) -> "BatchNormSettings":
        """Returns the settings for a model of that class."""
        if model_class is keras.Model:
            return dataclasses.replace(
                self, layer=keras.layers.BatchNormalization
            )
        return self


def conv_norm(
    x: keras.KerasTensor,
    filters: int,
    kernel_size: int,
    norm: BatchNormSettings | None,
    stride: int = 1,
    *,
    gamma: str = "ones",
    name: str,
) -> keras.KerasTensor:
    """Returns a convolution, with batch normalization if asked for.

    Args:
        x: Features of shape `(N, H, W, C)`.
        filters: Channels of the result.
        kernel_size: Odd.
        norm: None for a bias in place of the normalization.
        stride: Step between windows.
        gamma: How the normalization's gamma starts, "ones" or "zeros".
        name: Prefix of the layers' names.
    """
    padding = "same"
    if stride > 1 and kernel_size > 1:
        # Of an even number of rows, "same" with stride 2 centres its windows
        # on the odd ones. The shortcut takes the even ones, counted from 0;
        # padding all sides alike keeps both branches on the same pixels.
        x = layers.ZeroPadding2D(kernel_size // 2, name=f"{name}_pad")(x)
        padding = "valid"
    x = layers.Conv2D(
        filters,
        kernel_size,
        strides=stride,
        padding=padding,
        use_bias=norm is None,  # Else the normalization's beta does its work.
        kernel_initializer="he_normal",
        name=f"{name}_conv",
    )(x)
    if norm is None:
        return x
    return norm.layer(
        momentum=norm.momentum,
        epsilon=norm.epsilon,
        gamma_initializer=gamma,
        name=f"{name}_norm",
    )(x)


def image_shape(input_shape: tuple[int, int, int]) -> tuple[int, int, int]:
    """Returns `input_shape` as three ints; raises if it is anything else."""
    if keras.config.image_data_format() != "channels_last":
        raise ValueError(
            "`image_data_format` must be 'channels_last', got "
            f"image_data_format={keras.config.image_data_format()!r}. Call "
            "keras.config.set_image_data_format('channels_last') first."
        )
    if not isinstance(input_shape, tuple | list) or len(input_shape) != 3:
        raise ValueError(
            "`input_shape` must be (rows, columns, channels), got "
            f"input_shape={input_shape!r}. Leave out the batch axis; a grey "
            "image has one channel, as in (8, 8, 1)."
        )
    return _check.integers("input_shape", input_shape)


def logits(
    x: keras.KerasTensor,
    num_classes: int,
    kernel_initializer: str | keras.initializers.Initializer,
) -> keras.KerasTensor:
    """Returns a dense layer of the mean over all positions, `(N, classes)`.

    They are float32, or float64 where the user computes in float64.
    """
    variable_dtype = keras.config.dtype_policy().variable_dtype
    x = layers.GlobalAveragePooling2D(name="mean")(x)
    return layers.Dense(
        num_classes,
        kernel_initializer=kernel_initializer,
        dtype=keras.backend.result_type(variable_dtype, "float32"),
        name="logits",
    )(x)
