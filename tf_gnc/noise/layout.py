"""All trainable weights as one vector, and its filters.

The step treats a model's weights, a worker's gradient and the noise as one
vector each: one memory row per worker, one subtraction, one mean, and, with
several replicas, one all-reduce. This file alone knows where each weight lies
in that vector and which of its elements form a filter.

Symbols   P    number of trainable scalars, the vector's length
          x_p  the elements of filter p; of which kind of layer they are,
               tf_gnc.step.filters knows
"""

import itertools
import math
import re
from collections.abc import Sequence

import tensorflow as tf


class WeightLayout:
    """Packs weights of fully known shapes into one vector, and finds filters.

    `filters` has, for each weight, the axes that number its filters. Without,
    and where it has None, that is the last axis, an output channel of most
    kernels; a weight of rank 0 or 1 is one filter as a whole. `paths` are the
    weights' names with those of their layers, as in "conv2d/kernel".

    Example:
        >>> layout = WeightLayout([(2, 2), (3,)])
        >>> vector = layout.pack([tf.constant([[3.0, 0.0], [4.0, 1.0]]),
        ...                       tf.constant([2.0, 1.0, 2.0])])
        >>> layout.filter_norms(vector).numpy().tolist()
        [5.0, 1.0, 5.0, 1.0, 3.0, 3.0, 3.0]
    """

    def __init__(
        self,
        shapes: Sequence[Sequence[int]],
        dtype: str = "float32",
        filters: Sequence[Sequence[int] | None] = (),
        paths: Sequence[str] = (),
    ) -> None:
        self.shapes = [tuple(int(size) for size in shape) for shape in shapes]
        self._filters = [
            _numbering(shape, axes)
            for shape, axes in itertools.zip_longest(self.shapes, filters)
        ]
        self.sizes = [math.prod(shape) for shape in self.shapes]
        self.size = sum(self.sizes)  # P
        self.dtype = tf.as_dtype(dtype)
        self.paths = list(paths)

    def pack(self, tensors: Sequence[tf.Tensor | None]) -> tf.Tensor:
        """Returns the tensors' elements as one vector of shape `(P,)`.

        They have the layout's shapes and any floating-point dtypes; None
        stands for zeros, as where a loss doesn't depend on a weight.
        """
        flat = [
            tf.zeros([size], self.dtype)
            if tensor is None
            else tf.reshape(
                tf.cast(tf.convert_to_tensor(tensor), self.dtype), [size]
            )
            for tensor, size in zip(tensors, self.sizes, strict=True)
        ]
        return tf.concat(flat, axis=0)

    def unpack(self, vector: tf.Tensor) -> list[tf.Tensor]:
        """Returns the vector of shape `(P,)` as one tensor per weight."""
        parts = tf.split(vector, self.sizes)
        return [
            tf.reshape(part, shape)
            for part, shape in zip(parts, self.shapes, strict=True)
        ]

    def filter_norms(self, vector: tf.Tensor) -> tf.Tensor:
        r"""Returns each element's filter norm, :math:`\|x_p\|`, shape `(P,)`.

        Every element is replaced by the Euclidean norm of the filter that it
        belongs to, so that filter-wise scaling is a plain product of vectors.
        """
        norms = []
        for part, kept in zip(self.unpack(vector), self._filters, strict=True):
            axes = [a for a in range(part.shape.rank) if a not in kept]
            squares = tf.reduce_sum(part * part, axes, keepdims=True)
            norms.append(tf.broadcast_to(tf.sqrt(squares), part.shape))
        return self.pack(norms)

    def kernel_mask(self) -> tf.Tensor:
        """Returns 1 for elements of kernels, which have filters, else 0."""
        return self._ones_where([bool(numbered) for numbered in self._filters])

    def path_mask(self, pattern: str) -> tf.Tensor:
        """Returns 1 for elements of weights in whose path a pattern is found.

        Raises a ValueError if it is found in none.
        """
        found = [re.search(pattern, path) is not None for path in self.paths]
        if not any(found):
            shown = ", ".join(map(repr, self.paths[:8])) or "none"
            more = len(self.paths) - 8
            raise ValueError(
                "`include` must be found in the path of at least one weight, "
                f"got include={pattern!r}. The weights' paths are {shown}"
                f"{f' and {more} more' if more > 0 else ''}."
            )
        return self._ones_where(found)

    def _ones_where(self, chosen: Sequence[bool]) -> tf.Tensor:
        ones = [
            tf.ones(shape) if wanted else None
            for shape, wanted in zip(self.shapes, chosen, strict=True)
        ]
        return self.pack(ones)


def _numbering(shape: tuple[int, ...], axes: Sequence[int] | None) -> set[int]:
    """Returns the axes that number a weight's filters, counted from 0."""
    rank = len(shape)
    if axes is None:
        axes = (-1,) if rank > 1 else ()
    return {axis % rank for axis in axes}
