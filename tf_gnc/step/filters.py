"""Which elements of a weight form a filter, by the kind of its layer.

A filter is what makes one output: one channel, one unit, one head's one
feature, one embedded word. Filter-wise scaling (Eqs. 5 and 6) multiplies each
filter's noise by the norm of that filter.

    Dense, Conv             kernel (..., in, out): one output
    DepthwiseConv           kernel (..., in, multiplier): one input channel and
                            multiplier
    SeparableConv           both kernels, as depthwise and as pointwise
    ConvTranspose           kernel (..., out, in): one output
    EinsumDense, attention  the axes of the kernel that are in the output: of
                            query, key and value a head's one feature
    Embedding               (words, features): one word
    RNN, GRU, LSTM          kernels (in, gates * units): one unit at one gate

A weight of rank 0 or 1 is one filter, and so are biases of any rank. Of what
isn't listed the last axis is the output.
"""

import keras
from keras import layers

from tf_gnc import _keras_compat

Axes = tuple[int, ...]
"""The axes that number a weight's filters."""

_LAST, _LAST_TWO, _BEFORE_LAST = (-1,), (-2, -1), (-2,)

# By kind of layer, its weights by their attributes.
_KINDS: tuple[tuple[tuple[type, ...], dict[str, Axes]], ...] = (
    (
        (layers.Dense, layers.Conv1D, layers.Conv2D, layers.Conv3D),
        {"kernel": _LAST},
    ),
    (
        (layers.DepthwiseConv1D, layers.DepthwiseConv2D),
        {"kernel": _LAST_TWO},
    ),
    (
        (layers.SeparableConv1D, layers.SeparableConv2D),
        {"depthwise_kernel": _LAST_TWO, "pointwise_kernel": _LAST},
    ),
    (
        (
            layers.Conv1DTranspose,
            layers.Conv2DTranspose,
            layers.Conv3DTranspose,
        ),
        {"kernel": _BEFORE_LAST},
    ),
    ((layers.Embedding,), {"embeddings": (0,)}),
    (
        (layers.SimpleRNNCell, layers.GRUCell, layers.LSTMCell),
        {"kernel": _LAST, "recurrent_kernel": _LAST, "bias": ()},
    ),
    (
        (layers.LayerNormalization, layers.GroupNormalization),
        {"gamma": (), "beta": ()},
    ),
)


def filters_of(model: keras.Model) -> list[Axes | None]:
    """Returns the axes of each trainable variable; None if unknown.

    A weight of rank 0 or 1 is one filter, `()`.
    """
    known: dict[int, Axes] = {}
    for layer in _keras_compat.layers_of(model):
        for name, axes in _of_layer(layer).items():
            variable = getattr(layer, name, None)
            if isinstance(variable, keras.Variable):
                known[id(variable)] = axes
    return [
        known.get(id(variable)) if len(variable.shape) > 1 else ()
        for variable in model.trainable_variables
    ]


def unknown_filters(model: keras.Model) -> list[str]:
    """Returns the paths of the weights whose filters aren't known by kind."""
    pairs = zip(model.trainable_variables, filters_of(model), strict=True)
    return [variable.path for variable, axes in pairs if axes is None]


def _of_layer(layer: keras.layers.Layer) -> dict[str, Axes]:
    """Returns what is known of a layer's weights, by their attributes."""
    if isinstance(layer, layers.EinsumDense):
        operands, output = layer.equation.split("->")
        kernel = operands.split(",")[1].strip().replace("...", "")
        axes = [i for i, letter in enumerate(kernel) if letter in output]
        return {"kernel": tuple(axes), "bias": ()}
    for kinds, found in _KINDS:
        if isinstance(layer, kinds):
            return found
    return {}
