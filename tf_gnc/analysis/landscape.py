r"""The loss around the weights, along directions as long as the filters."""

import itertools
from typing import Any

import numpy as np
import tensorflow as tf

from tf_gnc import _check
from tf_gnc._files import finite_or_none
from tf_gnc.analysis.worker_runs import WorkerRuns
from tf_gnc.noise.layout import WeightLayout
from tf_gnc.step.train_step import GNCTrainStep


def landscape(
    model: GNCTrainStep,
    batch: Any,
    *,
    points: int = 21,
    radius: float = 1.0,
    dimensions: int = 1,
    seed: int = 0,
) -> dict[str, Any]:
    r"""Returns the loss along one or two filter-normalised directions.

    .. math:: f(x + a\,d) \quad\text{or}\quad f(x + a\,d + b\,d'), \qquad
              d_p = \frac{u_p}{\|u_p\|} \|x_p\|

    for each filter p, with a Gaussian u; f is the mean loss over the workers'
    rows at the clean weights x, without noise.

    Paper: Li et al. (2018), arXiv:1712.09913, section 4; Haruki et al. (2019)
    take their scaling of noise from it (A.2). Biases and the vectors of batch
    normalization stay where they are, as in the authors' code.
    Deviation from the paper: batch normalization is in training mode, each
    worker normalising its own rows; the loss is that of one batch.

    Cost: `points ** dimensions` forward passes, about a third of a training
    step each.

    Args:
        model: A compiled model.
        batch: A global batch; see `tf_gnc.analysis`.
        points: Along each direction, 2 or more; an odd number has the model
            itself at the middle.
        radius: The largest coordinate, in norms of the filters.
        dimensions: 1 or 2.
        seed: Of the directions, 0 or more.

    Returns:
        `{"coordinates": [points], "loss": ...}`: the losses in one list, or
        in one list for each coordinate of the first direction. A loss that
        isn't finite is None.

    Raises:
        ValueError: If the model isn't compiled, the workers can't share the
            batch, or an argument is outside its range.

    Example:
        >>> inputs = keras.Input((1,))
        >>> layer = keras.layers.Dense(1, use_bias=False)
        >>> model = GNCModel(inputs, layer(inputs))
        >>> model.compile("sgd", "mse", num_workers=4)
        >>> _ = layer.kernel.assign([[2.0]])
        >>> batch = np.ones((8, 1), "float32"), np.zeros((8, 1), "float32")
        >>> sorted(landscape(model, batch, points=3)["loss"])
        [0.0, 4.0, 16.0]
    """
    points = _check.integer("points", points, minimum=2)
    radius = _check.real("radius", radius, above=0)
    dimensions = _check.integer("dimensions", dimensions, minimum=1, maximum=2)
    seed = _check.integer("seed", seed, minimum=0, maximum=2**31 - 1)
    runs = WorkerRuns(model, batch, noise=None)
    weights = runs.weights
    ways = directions(weights, runs.plan.layout, dimensions, seed)
    coordinates = np.linspace(-radius, radius, points).tolist()
    losses = []
    for steps in itertools.product(coordinates, repeat=dimensions):
        point = weights + tf.linalg.matvec(
            ways, tf.cast(steps, ways.dtype), transpose_a=True
        )
        losses.append(finite_or_none(runs.losses(point).losses.mean()))
    if dimensions == 2:
        losses = [losses[i : i + points] for i in range(0, len(losses), points)]
    return {"coordinates": coordinates, "loss": losses}


def directions(
    weights: tf.Tensor, layout: WeightLayout, dimensions: int, seed: int
) -> tf.Tensor:
    """Returns random directions, each filter as long as the weights' own.

    `weights` have the shape `(P,)`, the result `(dimensions, P)`; it is zero
    for weights of rank 0 and 1.

    Example:
        >>> layout = WeightLayout([(2, 1), (2,)])
        >>> x = tf.constant([3.0, 4.0, 1.0, 1.0])
        >>> way = directions(x, layout, 1, seed=0)[0]
        >>> round(float(tf.norm(way[:2])), 4), float(tf.norm(way[2:]))
        (5.0, 0.0)
    """
    size = layout.filter_norms(weights) * layout.kernel_mask()
    ways = []
    for number in range(dimensions):
        draw = tf.random.stateless_normal(
            [layout.size], [seed, number], dtype=layout.dtype, alg="philox"
        )
        norms = layout.filter_norms(draw)
        ways.append(size * tf.math.divide_no_nan(draw, norms))
    return tf.stack(ways)
