"""SAM and its kin in NumPy with loops; imports nothing of ours.

The network, its gradient and its filters are those of tests/oracles.py.
"""

import math

import numpy as np

from tests import oracles


def length(parts):
    """The norm of all weights at once."""
    return np.sqrt(sum(np.sum(p**2) for p in parts))


def mean(vectors):
    return [sum(parts) / len(vectors) for parts in zip(*vectors, strict=True)]


def kernels_of(parts):
    """Zeros in the place of weights of rank 0 and 1."""
    return [p if p.ndim > 1 else np.zeros_like(p) for p in parts]


def sam(x, gradient, rho, adaptive=False):
    """The displaced weights of Foret et al., or of Kwon et al."""
    if not adaptive:
        norm = length(gradient)
        return [w + rho * g / norm for w, g in zip(x, gradient, strict=True)]
    pairs = [(np.abs(w) + 0.01, g) for w, g in zip(x, gradient, strict=True)]
    norm = length([t * g for t, g in pairs])
    return [
        w + rho * t**2 * g / norm for w, (t, g) in zip(x, pairs, strict=True)
    ]


def share_of(x, noise, share):
    """Moved against the noise by a share of each filter's norm."""
    if not length(noise):
        return x
    unit = oracles.unit_filters(noise)
    return oracles.displaced(x, unit, share, "filter", True, None)


def update(x, velocity, gradient, rate, momentum, decay, tau):
    """The paper's momentum, or with a tau its LARS, vectors spared.

    Returns weights, velocities and each one's local rate.
    """
    ends = []
    for w, v, g in zip(x, velocity, gradient, strict=True):
        if tau is None or w.ndim < 2:
            spared = 0.0 if tau else decay
            v = momentum * v - rate * (g + spared * w)
            ends.append((w + v, v, rate))
        else:
            ends.append(oracles.lars_paper(w, v, g, rate, momentum, decay, tau))
    return [list(parts) for parts in zip(*ends, strict=True)]


def train(
    weights, batches, workers, rate, *, kind, coefficient, group=1,
    adaptive=False, center=True, current=False, uphill=False,
    include_vectors=True, momentum=0.9, decay=0.0, every=1, start_step=0,
    stop_step=math.inf, tau=None, relative=False, per_layer=False,
):  # fmt: skip
    """Some steps of a member of the family; returns the weights.

    `kind` is sam, momentum or gnc; the others are as in the rules, but that
    the coefficient may be a function of the step, and is, if `relative`, the
    share of each filter's norm. Momentum and decay are the paper's, and with a
    `tau` its LARS.
    """
    x = [w.astype(np.float64) for w in weights]
    velocity = [np.zeros_like(w) for w in x]
    before = [[np.zeros_like(w) for w in x] for _ in range(workers)]
    rates = [rate] * len(x)
    for step, (images, labels) in enumerate(batches):
        size = coefficient(step) if callable(coefficient) else coefficient
        rows = np.split(np.arange(len(images)), workers)
        now = [oracles.gradient(x, images[r], labels[r])[1] for r in rows]
        found = []
        for worker in range(workers):
            x_i = x
            if step % every or not start_step <= step < stop_step:
                pass
            elif kind == "sam":
                first = worker // group * group
                own = mean(now[first : first + group])
                own = own if include_vectors else kernels_of(own)
                x_i = sam(x, own, size, adaptive)
                if relative:
                    x_i = share_of(x, [-g for g in own], size)
            elif kind == "momentum":
                way = velocity if include_vectors else kernels_of(velocity)
                if length(way):
                    x_i = sam(x, way, size)
            else:
                all_of_them = now if current else before
                noise = all_of_them[worker]
                if center:
                    middle = mean(all_of_them)
                    noise = [n - m for n, m in zip(noise, middle, strict=True)]
                sizes = [size * r * (-1 if uphill else 1) for r in rates]
                noise = [s * n for s, n in zip(sizes, noise, strict=True)]
                x_i = oracles.displaced(
                    x, noise, 1.0, "filter", include_vectors, None
                )
                if relative:
                    x_i = share_of(x, noise, size)
            r = rows[worker]
            found.append(oracles.gradient(x_i, images[r], labels[r])[1])
        before = found
        x, velocity, local = update(
            x, velocity, mean(found), rate, momentum, decay, tau
        )
        rates = local if per_layer else rates
    return x
