"""Models by name; all return logits."""

import functools
from collections.abc import Callable
from typing import Any

import keras

from tf_gnc import _check
from tf_gnc.models import resnet, resnet50
from tf_gnc.models._layers import BatchNormSettings

__all__ = ["MODELS", "BatchNormSettings", "build"]

MODELS: dict[str, Callable[..., keras.Model]] = {
    "resnet8": functools.partial(resnet.resnet, 1),
    "resnet20": functools.partial(resnet.resnet, 3),
    "resnet32": functools.partial(resnet.resnet, 5),
    "resnet50": functools.partial(resnet50.resnet50, "v1"),
    "resnet50_v1_5": functools.partial(resnet50.resnet50, "v1.5"),
}


def build(
    name: str,
    num_classes: int,
    input_shape: tuple[int, int, int] = (32, 32, 3),
    **options: Any,
) -> keras.Model:
    """Builds the model of that name.

    Args:
        name: One of the keys of `MODELS`.
        num_classes: Number of classes, at least 1.
        input_shape: `(H, W, C)` of the images.
        **options: Passed on to the builder; see `resnet.resnet` and
            `resnet50.resnet50`.

    Returns:
        A model from images `(N, H, W, C)` to logits `(N, num_classes)`.

    Raises:
        ValueError: If no model has that name or an argument is out of range.

    Example:
        >>> build("resnet8", 10, (8, 8, 1)).output_shape
        (None, 10)
    """
    name = _check.choice("name", name, MODELS)
    return MODELS[name](num_classes, input_shape, **options)
