r"""How well the step's gradient predicts the full gradient."""

from typing import Any

import numpy as np
import tensorflow as tf

from tf_gnc._files import finite_or_none
from tf_gnc.analysis.worker_runs import WorkerRuns
from tf_gnc.step.train_step import GNCTrainStep


def similarity(
    model: GNCTrainStep, batch: Any, dataset: tf.data.Dataset
) -> dict[str, Any]:
    r"""Returns the cosine of the mean gradient with the full gradient.

    .. math:: \cos(\tilde g, \nabla f(D; x)), \qquad
              \tilde g = \frac1M \sum_i \nabla f(d^i; x_i)

    with the workers' displaced weights x_i of the coming step and the clean
    weights x.

    Paper: Haruki et al. (2019), arXiv:1906.10822, section 3.1, Fig. 3(b): the
    full gradient "was calculated without GNC", the large-batch gradient is
    the smoothed one of Eq. (3).
    Deviation from the paper: none known. It doesn't say in which mode batch
    normalization is. Here both gradients are taken in training mode, each
    worker's b rows, and each b rows of the data set, normalising themselves:
    the mean of the workers' gradients then estimates just this full gradient.
    Dropout draws its masks. The loss is the compiled one with
    regularization; decay that the optimizer adds is in neither gradient.

    Cost: a gradient pass over the data set, n / (M b) training steps for n
    rows, and one more step; a trace of two graphs. Memory of a step.

    Args:
        model: A compiled model.
        batch: A global batch; see `tf_gnc.analysis`.
        dataset: The whole training set, not augmented, in batches of any
            size; finite. In several processes each gives all of it in the
            same order.

    Returns:
        `{"total": cosine, "layers": {path: cosine}}`, the paths being those
        of the trainable variables. None where a gradient is zero or isn't
        finite.

    Raises:
        ValueError: If the model isn't compiled, the workers can't share the
            batch, or the data set is empty or endless.

    Example:
        >>> inputs = keras.Input((2,))
        >>> model = GNCModel(inputs, keras.layers.Dense(1)(inputs))
        >>> model.compile("sgd", "mse", num_workers=4)
        >>> x, y = np.ones((8, 2), "float32"), np.zeros((8, 1), "float32")
        >>> data = tf.data.Dataset.from_tensor_slices((x, y)).batch(3)
        >>> round(similarity(model, (x, y), data)["total"], 4)
        1.0
    """
    noisy = WorkerRuns(model, batch)
    full = WorkerRuns(model, batch, noise=None).full_gradient(dataset)
    mean = noisy.gradient().mean
    layout = noisy.plan.layout
    pairs = zip(
        noisy.plan.variables,
        tf.split(mean, layout.sizes),
        tf.split(full, layout.sizes),
        strict=True,
    )
    return {
        "total": cosine(mean, full),
        "layers": {variable.path: cosine(a, b) for variable, a, b in pairs},
    }


def cosine(first: Any, second: Any) -> float | None:
    """Returns the cosine of the angle between two vectors.

    None if one of them is zero or isn't finite.

    Example:
        >>> cosine([3.0, 4.0], [3.0, 0.0]), cosine([0.0, 0.0], [1.0, 0.0])
        (0.6, None)
    """
    units = []
    for vector in (first, second):
        vector = np.asarray(vector, np.float64)
        largest = np.max(np.abs(vector), initial=0.0)
        if largest == 0 or not np.isfinite(largest):
            return None
        vector = vector / largest  # Its square neither over- nor underflows.
        units.append(vector / np.linalg.norm(vector))
    return finite_or_none(np.clip(units[0] @ units[1], -1, 1))
