r"""How smooth the loss is along the gradient, plain and convolved."""

from typing import Any

import numpy as np
import tensorflow as tf

from tf_gnc._files import finite_or_none
from tf_gnc.analysis.worker_runs import WorkerRuns
from tf_gnc.step.train_step import GNCTrainStep


def smoothness(model: GNCTrainStep, batch: Any) -> dict[str, Any]:
    r"""Returns the paper's three indicators, without and with the noise.

    From the clean weights x eight further points are tried,

    .. math:: x_s = x - s\,\nabla f(x), \qquad
              s \in \left[\tfrac12 \eta, 2 \eta\right],

    with loss and gradient at each. f is the mean loss over the workers' rows,
    plain or convolved with the noise of the coming step:

    .. math:: f(x) = \frac1M \sum_i f(d^i; x), \qquad
              \tilde f(x) = \frac1M \sum_i f(d^i; x + \delta_i)

    each with its own gradient for the direction.

    Paper: Haruki et al. (2019), arXiv:1906.10822, section 3.3, Fig. 5, A.6,
    after Santurkar et al. (2018), arXiv:1805.11604.
    Deviation from the paper: none known. Where it is silent: the
    displacements delta_i are those at x, the same at all points (scaled by
    the filters' norms at x), so that one function is looked at; a step is
    the learning rate times the gradient, without momentum and without LARS's
    local rates; x itself is in none of the ranges; batch normalization is in
    training mode, each worker normalising its own rows, and random layers
    draw the same masks at all points.

    Cost: 18 gradient passes, of a training step each; two traces.

    Args:
        model: A compiled model.
        batch: A global batch; see `tf_gnc.analysis`.

    Returns:
        `{"plain": {"loss": [smallest, largest], "gradient": [smallest,
        largest], "beta": L}, "convolved": {...}, "step_sizes": [8]}`. The
        gradient's range is that of ||grad(x) - grad(x_s)||; beta is the
        largest of these over ||x - x_s||, None where no step leads away from
        x. What isn't finite is None.

    Raises:
        ValueError: If the model isn't compiled or the workers can't share the
            batch.

    Example:
        >>> inputs = keras.Input((1,))
        >>> layer = keras.layers.Dense(1, use_bias=False)
        >>> model = GNCModel(inputs, layer(inputs))
        >>> model.compile("sgd", "mse", num_workers=4)
        >>> batch = np.ones((8, 1), "float32"), np.zeros((8, 1), "float32")
        >>> found = smoothness(model, batch)  # w**2
        >>> round(found["plain"]["beta"], 4)
        2.0
    """
    plain = WorkerRuns(model, batch, noise=None)
    rate = tf.convert_to_tensor(model.optimizer.learning_rate)
    sizes = step_sizes(float(rate))
    return {
        "plain": _indicators(plain, sizes),
        "convolved": _indicators(WorkerRuns(model, batch), sizes),
        "step_sizes": sizes,
    }


def step_sizes(learning_rate: float) -> list[float]:
    """Returns eight sizes, evenly from half to twice the learning rate.

    Example:
        >>> step_sizes(0.5)[0], step_sizes(0.5)[-1]
        (0.25, 1.0)
    """
    factors = np.linspace(0.5, 2.0, 8)
    return [float(factor * learning_rate) for factor in factors]


def _indicators(runs: WorkerRuns, sizes: list[float]) -> dict[str, Any]:
    weights, start = runs.weights, runs.gradient().mean
    losses, changes, slopes = [], [], []
    for size in sizes:
        point = weights - size * start
        there = runs.gradient(point)
        change = float(tf.norm(there.mean - start))
        # As rounded, where a step is tiny.
        distance = float(tf.norm(point - weights))
        losses.append(there.losses.mean())
        changes.append(change)
        if distance > 0:
            slopes.append(change / distance)
    return {
        "loss": _range(losses),
        "gradient": _range(changes),
        "beta": finite_or_none(np.max(slopes)) if slopes else None,
    }


def _range(values: list[float]) -> list[float | None]:
    return [finite_or_none(np.min(values)), finite_or_none(np.max(values))]
