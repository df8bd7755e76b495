"""All trainable weights as one vector, and its filters.

The step treats a model's weights, a worker's gradient and the noise as one
vector each: one memory row per worker, one subtraction, one mean, and, with
several replicas, one all-reduce. This file alone knows where each weight lies
in that vector and which of its elements form a filter.

Symbols   P    number of trainable scalars, the vector's length
          x_p  the elements of filter p. For a kernel of rank 2 or more a
               filter is one output channel, the last axis (HWIO kernels,
               columns of a Dense kernel); a weight of rank 0 or 1 is one
               filter as a whole
"""

import math
from collections.abc import Sequence

import tensorflow as tf


class WeightLayout:
    """Packs weights of fully known shapes into one vector, and finds filters.

    Example:
        >>> layout = WeightLayout([(2, 2), (3,)])
        >>> vector = layout.pack([tf.constant([[3.0, 0.0], [4.0, 1.0]]),
        ...                       tf.constant([2.0, 1.0, 2.0])])
        >>> layout.filter_norms(vector).numpy().tolist()
        [5.0, 1.0, 5.0, 1.0, 3.0, 3.0, 3.0]
    """

    def __init__(
        self, shapes: Sequence[Sequence[int]], dtype: str = "float32"
    ) -> None:
        self.shapes = [tuple(int(size) for size in shape) for shape in shapes]
        self.sizes = [math.prod(shape) for shape in self.shapes]
        self.size = sum(self.sizes)  # P
        self.dtype = tf.as_dtype(dtype)

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
        for part in self.unpack(vector):
            rank = part.shape.rank
            axes = list(range(rank - 1)) or list(range(rank))
            squares = tf.reduce_sum(part * part, axes, keepdims=True)
            norms.append(tf.broadcast_to(tf.sqrt(squares), part.shape))
        return self.pack(norms)

    def kernel_mask(self) -> tf.Tensor:
        """Returns 1 for elements of weights of rank 2 or more, else 0."""
        ones = [tf.ones(s) if len(s) > 1 else None for s in self.shapes]
        return self.pack(ones)
