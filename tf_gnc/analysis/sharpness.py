r"""Whether noise finds sharp directions: the workers' losses, the Hessian."""

from typing import Any

import tensorflow as tf

from tf_gnc import _check
from tf_gnc._files import finite_or_none
from tf_gnc.analysis.lanczos import lanczos
from tf_gnc.analysis.noise_scale import noise_scale
from tf_gnc.analysis.worker_runs import Sweep, WorkerRuns
from tf_gnc.noise.rule import NoiseRule
from tf_gnc.step.train_step import GNCTrainStep


def sharpness(
    model: GNCTrainStep,
    batch: Any,
    *,
    rows: str = "own",
    noise: NoiseRule | str | None = "model",
    relative_displacement: float | None = None,
    eigenvalues: int = 0,
) -> dict[str, Any]:
    r"""Returns the losses of the displaced models, and measures beside them.

    Worker i's loss is that of its displaced weights x_i on its own rows, or
    on the same rows for all, those of the whole batch:

    .. math:: f(d^i; x_i) \quad\text{or}\quad \frac1M \sum_j f(d^j; x_i)

    If the noise points to sharper directions these losses vary more and lie
    higher than the loss at the clean weights x. On its own rows a part of the
    losses' spread is that of the rows; on all rows it is the noise's alone.
    The noise scale and the Hessian are taken at x:

    .. math:: B_{simple} = \frac{tr(\Sigma)}{|G|^2}, \qquad
              \nabla^2 \frac1M \sum_i f(d^i; x)

    Paper: Haruki et al. (2019), arXiv:1906.10822, section 3.2, Fig. 4(b), (c).
    The noise scale is that of McCandlish et al. (2018), arXiv:1812.06162,
    A.1, from the workers' gradients of b examples and their mean of M b.
    Deviation from the paper: it doesn't say on which data the losses are
    taken; here both ways are in training mode, each worker's b rows
    normalising themselves. Displacements of equal norm, the noise scale and
    the Hessian are not in the paper. Batch normalization ties a worker's
    examples together, and the noise scale takes them for independent.

    Cost: a forward pass of the displaced workers, M such passes for all rows,
    with the rows of two replicas on each; a training step at the clean
    weights; for the Hessian up to 100 products, each some 3 training steps,
    with P float64 numbers of host memory for each product.

    Args:
        model: A compiled model.
        batch: A global batch; see `tf_gnc.analysis`.
        rows: `"own"` for each worker's own, `"all"` for the whole batch.
        noise: `"model"` for the rule in force, a rule to compare at the same
            weights, or None. A rule that remembers gradients takes those that
            the model's own remembers.
        relative_displacement: If set, each worker's displacement is brought
            to this multiple of ||x||, which compares directions and not
            lengths. A displacement of zero remains zero.
        eigenvalues: How many of the Hessian's largest eigenvalues.

    Returns:
        A dict of `"rows"` as given; `"clean_loss"`, the mean over the workers
        at x; `"mean"`, `"std"` (over M), `"min"`, `"max"` and `"losses"`, M of
        them, of the displaced workers; `"relative_displacement"`, the mean of
        ||x_i - x|| / ||x||; `"noise_scale"` in examples, None with a single
        worker or where noise drowns the gradient; `"hessian"`, the eigenvalues
        in descending order. What isn't finite is None.

    Raises:
        ValueError: If the model isn't compiled, the workers can't share the
            batch, or an argument is outside its range.

    Example:
        >>> inputs = keras.Input((2,))
        >>> model = GNCModel(inputs, keras.layers.Dense(1)(inputs))
        >>> model.compile("sgd", "mse", num_workers=4)
        >>> batch = np.ones((8, 2), "float32"), np.zeros((8, 1), "float32")
        >>> found = sharpness(model, batch, noise=RandomNoise(0.1, seed=1),
        ...                   relative_displacement=0.5, eigenvalues=1)
        >>> round(found["relative_displacement"], 4)
        0.5
        >>> round(found["hessian"][0], 3)  # 2 (1, 1, 1) (1, 1, 1)^T
        6.0
    """
    eigenvalues = _check.integer("eigenvalues", eigenvalues, minimum=0)
    _check.choice("rows", rows, ("own", "all"))
    workers = WorkerRuns(
        model, batch, noise=noise, relative_displacement=relative_displacement
    )
    own = rows == "own"
    displaced = workers.losses() if own else workers.losses_of_all_rows()
    runs = WorkerRuns(model, batch, noise=None)
    clean = runs.gradient()
    top = []
    if eigenvalues:
        top = lanczos(
            runs.hessian_product, runs.plan.layout.size, eigenvalues, seed=0
        )
    losses = displaced.losses
    return {
        "rows": rows,
        "clean_loss": finite_or_none(clean.losses.mean()),
        "mean": finite_or_none(losses.mean()),
        "std": finite_or_none(losses.std()),
        "min": finite_or_none(losses.min()),
        "max": finite_or_none(losses.max()),
        "losses": [finite_or_none(loss) for loss in losses],
        "relative_displacement": finite_or_none(displaced.displacements.mean()),
        "noise_scale": _noise_scale(clean, runs.rows_per_worker),
        "hessian": [finite_or_none(value) for value in top],
    }


def _noise_scale(clean: Sweep, rows: int) -> float | None:
    count = len(clean.squares)
    if count == 1:
        return None
    square = float(tf.reduce_sum(tf.cast(clean.mean, tf.float64) ** 2))
    scale = noise_scale(clean.squares, square, rows, rows * count)
    # Below 0 by rounding alone: a mean is never longer than what it is of.
    return None if scale is None else max(scale, 0.0)
