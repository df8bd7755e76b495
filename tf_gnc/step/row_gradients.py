"""Gradients of embeddings that go through a step row by row.

The gradient of an embedding table is a `tf.IndexedSlices`: the rows that the
examples have looked up, and no others. As one dense tensor it would be as
large as the table, for each worker. Here each worker's rows are collected, and
their mean is handed to the optimizer as `tf.IndexedSlices`, as Keras would.

Symbols   V  workers per replica
"""

from typing import Any

import keras
import tensorflow as tf

from tf_gnc import _keras_compat
from tf_gnc.noise.layout import WeightLayout

Arrays = tuple[tf.TensorArray, tf.TensorArray]
"""The rows of all workers, and which rows of the table they are."""


def tables_of(model: keras.Model) -> list[keras.Variable]:
    """Returns the variables of a model whose gradients may come by rows.

    Those are the embeddings. XLA takes dense gradients alone: how many rows
    there are depends on the data.
    """
    if model.jit_compile:
        return []
    return [
        variable
        for layer in _keras_compat.layers_of(model)
        if isinstance(layer, keras.layers.Embedding)
        for variable in layer.trainable_variables
    ]


class RowGradients:
    """The gradients by rows of one step on its only replica.

    Make one per traced step. The arrays travel through the workers' loop, from
    `first` through `add` to `means`. `found` has one worker's gradients by
    variable id, of which those by rows count, and there their dtypes and
    shapes.
    """

    def __init__(
        self,
        variables: list[keras.Variable],
        found: dict[int, Any],
        workers_per_replica: int,
    ) -> None:
        self._like = {
            index: found[id(variable)]
            for index, variable in enumerate(variables)
            if isinstance(found.get(id(variable)), tf.IndexedSlices)
        }
        self._shapes = [tuple(variable.shape) for variable in variables]
        self._workers = workers_per_replica

    def without(self, layout: WeightLayout) -> WeightLayout:
        """Returns a layout in which gradients by rows take no place."""
        if not self._like:
            return layout
        shapes = [
            (0,) if index in self._like else shape
            for index, shape in enumerate(layout.shapes)
        ]
        return WeightLayout(shapes, layout.dtype)

    def first(self) -> list[Arrays]:
        """Returns what the first worker adds to."""
        return [
            tuple(
                tf.TensorArray(
                    part.dtype, self._workers, element_shape=part.shape
                )
                for part in (like.values, like.indices)
            )
            for like in self._like.values()
        ]

    def add(
        self, arrays: list[Arrays], worker: tf.Tensor, gradients: list[Any]
    ) -> tuple[list[Arrays], list[Any]]:
        """Returns the arrays with a worker's rows, and its other gradients.

        Where there were rows, the others have None.
        """
        others, added = list(gradients), []
        for (values, indices), place in zip(arrays, self._like, strict=True):
            rows, others[place] = gradients[place], None
            added.append(
                (
                    values.write(worker, rows.values),
                    indices.write(worker, rows.indices),
                )
            )
        return added, others

    def means(
        self, arrays: list[Arrays], scale: tf.Tensor
    ) -> dict[int, tf.IndexedSlices]:
        """Returns the means over the workers, scaled, by variables' places.

        No row comes twice: what an optimizer squares must be a sum.
        """
        found = {}
        for (values, indices), place in zip(arrays, self._like, strict=True):
            rows, which = tf.unique(indices.concat())
            total = tf.math.unsorted_segment_sum(
                values.concat(), which, tf.size(rows)
            )
            found[place] = tf.IndexedSlices(
                total * tf.cast(scale / self._workers, total.dtype),
                rows,
                tf.constant(self._shapes[place]),
            )
        return found


def divide(gradients: list[Any], scale: tf.Tensor) -> list[Any]:
    """Returns gradients over a scalar; those by rows stay so."""

    def divided(gradient: Any) -> Any:
        if isinstance(gradient, tf.IndexedSlices):
            (values,) = divide([gradient.values], scale)
            indices, shape = gradient.indices, gradient.dense_shape
            return tf.IndexedSlices(values, indices, shape)
        return gradient / tf.cast(scale, gradient.dtype)

    return [None if g is None else divided(g) for g in gradients]
