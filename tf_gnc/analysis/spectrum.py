"""In how many directions the noise points: eigenvalues of its covariance."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import tensorflow as tf

from tf_gnc import _keras_compat
from tf_gnc._files import finite_or_none
from tf_gnc.analysis import checks
from tf_gnc.step import workers
from tf_gnc.step.plan import StepPlan
from tf_gnc.step.train_step import GNCTrainStep

# Numbers of all workers' noise that are held at a time: 256 MB in float32.
_HELD = 2**26
_PERCENTILES = (0, 25, 50, 75, 100)


def spectrum(model: GNCTrainStep, batch: Any = None) -> dict[str, Any]:
    r"""Returns eigenvalues and condition number of the noise, by layer.

    .. math:: \Sigma = \frac1M \Omega\,\Omega^\top, \qquad
              \kappa = \lambda_{max}(\Sigma) / \lambda_{min*}(\Sigma)

    where column i of Omega is worker i's noise of the coming step minus the
    workers' mean, and :math:`\lambda_{min*}` is the second-smallest
    eigenvalue. Eigenvalues are those of the M x M matrix
    :math:`\frac1M \Omega^\top \Omega`; with the mean subtracted its smallest
    is zero, which is why the second-smallest is taken.

    Paper: Haruki et al. (2019), arXiv:1906.10822, section 3.2, Fig. 4(a).
    Deviation from the paper: the noise is what the rule gives, before it is
    multiplied by alpha, eta and the filter's norm. For GNC that is the
    paper's omega (Eq. 4); for RNC with filter-wise scaling it is u / ||u||
    filter by filter (Eq. 5), not the bare draw u. A layer with fewer than
    M - 1 scalars, which the paper excludes (M << l), has no condition number.

    Cost: no gradients. The noise is read (RNC: drawn) in pieces of 2**26
    numbers, M * P / 2**26 times over, and M * M * P multiplications are done
    in double precision on the host of each process.

    Args:
        model: A compiled model, trained for a step or more under GNC: before
            that there is no noise.
        batch: Only to build a model that isn't built.

    Returns:
        `{"layers": {path: {"condition_number": kappa, "percentiles": {"0":
        smallest eigenvalue, "25": ..., "50": ..., "75": ..., "100": largest}}
        }}`, the percentiles over all M eigenvalues, in the noise's unit
        squared (GNC: loss per unit of weight). The condition number is None
        where the second-smallest eigenvalue is zero to rounding: without
        noise, for a small layer, or where workers agree. All is None where
        the noise isn't finite.

    Raises:
        ValueError: If the model isn't compiled or built, or M is less than 3.

    Example:
        >>> inputs = keras.Input((9,))
        >>> model = GNCModel(inputs, keras.layers.Dense(9)(inputs))
        >>> model.compile("sgd", "mse", noise=RandomNoise(0.1, seed=1),
        ...               num_workers=4)
        >>> layers = spectrum(model)["layers"]
        >>> 1 < layers["dense/kernel"]["condition_number"] < 3
        True
    """
    checks.model(model)
    if model.num_workers < 3:
        raise ValueError(
            "The noise's spectrum needs 3 workers or more, got "
            f"num_workers={model.num_workers}: the second-smallest eigenvalue "
            "of fewer tells nothing. Compile with more `num_workers`."
        )
    if batch is not None:
        with model.distribute_strategy.scope():
            _keras_compat.build(model, checks.batch(batch))
    elif not _keras_compat.is_built(model):
        raise ValueError(
            "`model` must be built, got one that isn't. Give a `batch`, call "
            "`model.build(...)`, or train a step."
        )
    plan = checks.plan_with(model, "model")
    if plan.rule is not None and plan.rule.takes_two_passes:
        raise ValueError(
            "The noise's spectrum needs a rule whose noise is there before the "
            f"step, got {plan.rule!r}, which makes it of the step's own "
            "gradients. Leave the measure out."
        )
    matrices = covariances(plan, model)
    return {
        "layers": {
            variable.path: _summary(matrix)
            for variable, matrix in zip(plan.variables, matrices, strict=True)
        }
    }


def eigenvalues(matrix: np.ndarray) -> np.ndarray | None:
    """Returns a covariance's eigenvalues in ascending order, 0 or more.

    None if the matrix isn't finite.

    Example:
        >>> eigenvalues(np.diag([3.0, 1.0, 2.0])).tolist()
        [1.0, 2.0, 3.0]
    """
    if not np.isfinite(matrix).all():
        return None
    return np.maximum(np.linalg.eigvalsh(matrix), 0.0)


def condition_number(values: np.ndarray | None) -> float | None:
    """Returns the largest of 3 or more `eigenvalues` over the second-smallest.

    None if the second-smallest is zero to rounding: no more than what
    float32's rounding of the noise itself makes of a zero.

    Example:
        >>> condition_number(np.array([0.0, 2.0, 3.0, 8.0]))
        4.0
    """
    if values is None:
        return None
    second, largest = values[1], values[-1]
    rounding = len(values) * np.finfo(np.float32).eps ** 2 * largest
    if second <= rounding:
        return None
    return finite_or_none(largest / second)


def gram(noise: np.ndarray) -> np.ndarray:
    r"""Returns :math:`\frac1M \Omega^\top \Omega`, float64, shape `(M, M)`.

    `noise` has a row for each worker, whose mean is subtracted here.
    """
    noise = noise.astype(np.float64)
    noise -= noise.mean(axis=0)
    return noise @ noise.T / len(noise)


def covariances(plan: StepPlan, model: GNCTrainStep) -> list[np.ndarray]:
    """Returns `gram` of each trainable variable's noise of the coming step."""
    sizes, count = plan.layout.sizes, plan.num_workers
    matrices = [np.zeros((count, count)) for _ in sizes]
    if plan.rule is None:
        return matrices
    ends = np.cumsum(sizes)
    for begin, noise in _pieces(plan, model):
        end = begin + noise.shape[1]
        for matrix, last, size in zip(matrices, ends, sizes, strict=True):
            low, high = max(begin, last - size), min(end, last)
            if low < high:
                matrix += gram(noise[:, low - begin : high - begin])
    return matrices


def _pieces(
    plan: StepPlan, model: GNCTrainStep
) -> Iterator[tuple[int, np.ndarray]]:
    """Yields where each piece of the noise begins, and the piece, `(M, c)`."""
    strategy, total = model.distribute_strategy, plan.layout.size
    size = min(total, max(1, _HELD // plan.num_workers))

    def on_replica(begin: tf.Tensor) -> tf.Tensor:
        noise = plan.noise(
            model.optimizer, plan.begin_step(), plan.clean_weights()
        )

        def look(worker: tf.Tensor, rows: tf.TensorArray) -> tf.TensorArray:
            return rows.write(worker, noise(worker)[begin : begin + size])

        rows = tf.TensorArray(
            plan.layout.dtype, plan.per_replica, element_shape=[size]
        )
        rows = workers.for_each(look, rows, plan.per_replica, 1)
        return rows.stack()

    @tf.function(autograph=False)
    def traced(begin: tf.Tensor) -> tf.Tensor:
        rows = strategy.run(on_replica, args=(begin,))
        return strategy.gather(rows, axis=0)

    # Called by itself, it would be warned of as one that is made in a loop.
    piece = plan.keep(
        ("noise", size), lambda: traced.get_concrete_function(tf.constant(0))
    )

    for begin in range(0, total, size):
        # The last piece begins early, to be of the same size as the others.
        early = min(begin, total - size)
        rows = piece(tf.constant(early)).numpy()
        yield begin, rows[:, begin - early :]


def _summary(matrix: np.ndarray) -> dict[str, Any]:
    values = eigenvalues(matrix)
    if values is None:
        percentiles = [None] * len(_PERCENTILES)
    else:
        percentiles = map(float, np.percentile(values, _PERCENTILES))
    return {
        "condition_number": condition_number(values),
        "percentiles": dict(
            zip(map(str, _PERCENTILES), percentiles, strict=True)
        ),
    }
