"""Largest eigenvalues of a matrix known only by its products with vectors."""

from collections.abc import Callable
from typing import Any

import numpy as np


def lanczos(
    product: Callable[[np.ndarray], Any],
    size: int,
    count: int,
    seed: int,
    *,
    max_products: int = 100,
    tolerance: float = 1e-3,
) -> list[float]:
    r"""Returns the largest eigenvalues of a symmetric matrix A.

    In an orthonormal basis Q of the Krylov space of a random vector,
    :math:`Q^\top A Q` is tridiagonal and its outer eigenvalues soon are A's.
    Each vector is made orthogonal to all before it, twice, so that rounding
    brings no eigenvalue up again. An eigenvalue that A has several times may
    be counted once.

    `product` takes a vector of shape `(size,)` and returns A times it. After
    `max_products` the best estimates so far, which are lower bounds, are
    taken; sooner if their relative error is at most `tolerance`. The basis
    holds as many vectors. The result is in descending order; NaN for all if a
    product isn't finite.

    Example:
        >>> matrix = np.diag([1.0, 5.0, -9.0, 3.0])
        >>> [round(v, 6) for v in lanczos(matrix.dot, 4, count=2, seed=0)]
        [5.0, 3.0]
    """
    random = np.random.default_rng(seed)
    count = min(count, size)
    if not count:
        return []
    steps = min(size, max(max_products, count))
    basis = np.zeros((0, size))
    diagonal, beside = [], []
    vector = _orthogonal(random.normal(size=size), basis)
    while True:
        basis = np.concatenate([basis, vector[np.newaxis]])
        image = np.asarray(product(vector), np.float64)
        if not np.isfinite(image).all():
            return [float("nan")] * count
        diagonal.append(vector @ image)
        rest = image
        for _ in range(2):
            rest = rest - (basis @ rest) @ basis
        length = np.linalg.norm(rest)
        matrix = np.diag(diagonal) + np.diag(beside, 1) + np.diag(beside, -1)
        values, vectors = np.linalg.eigh(matrix)
        top = values[::-1][:count]
        errors = length * np.abs(vectors[-1, ::-1][:count])
        enough = len(diagonal) >= count
        if len(diagonal) == steps or (
            enough and (errors <= tolerance * np.abs(top)).all()
        ):
            return [float(value) for value in top]
        scale = np.abs(values).max()
        if length <= len(basis) * np.finfo(np.float32).eps * scale:
            # The space is used up: go on in another, tied to it by a zero.
            length, rest = 0.0, random.normal(size=size)
        beside.append(length)
        vector = _orthogonal(rest, basis)


def _orthogonal(vector: np.ndarray, basis: np.ndarray) -> np.ndarray:
    """Returns a unit vector orthogonal to the rows of `basis`."""
    for _ in range(2):
        vector = vector - (basis @ vector) @ basis
        vector = vector / np.linalg.norm(vector)
    return vector
