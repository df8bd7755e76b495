"""SAM and its kin in NumPy with loops; imports nothing of ours.

The network, its gradient and its filters are those of tests/oracles.py.
"""

import numpy as np

from tests import oracles


def length(parts):
    """The norm of all weights at once."""
    return np.sqrt(sum(np.sum(p**2) for p in parts))


def mean(vectors):
    return [sum(parts) / len(vectors) for parts in zip(*vectors, strict=True)]


def sam(x, gradient, rho, adaptive):
    """The displaced weights of Foret et al., or of Kwon et al."""
    if not adaptive:
        norm = length(gradient)
        return [w + rho * g / norm for w, g in zip(x, gradient, strict=True)]
    pairs = [(np.abs(w) + 0.01, g) for w, g in zip(x, gradient, strict=True)]
    norm = length([t * g for t, g in pairs])
    return [
        w + rho * t**2 * g / norm for w, (t, g) in zip(x, pairs, strict=True)
    ]


def train(
    weights, batches, workers, rate, *, kind, coefficient, group=1,
    adaptive=False, center=True, current=False, uphill=False, momentum=0.9,
    decay=0.0, every=1,
):  # fmt: skip
    """Some steps of a member of the family; returns the weights.

    `kind` is sam, momentum or gnc; the others are as in the rules. Momentum
    and decay are the paper's.
    """
    x = [w.astype(np.float64) for w in weights]
    velocity = [np.zeros_like(w) for w in x]
    before = [[np.zeros_like(w) for w in x] for _ in range(workers)]
    for step, (images, labels) in enumerate(batches):
        rows = np.split(np.arange(len(images)), workers)
        now = [oracles.gradient(x, images[r], labels[r])[1] for r in rows]
        found = []
        for worker in range(workers):
            x_i = x
            if step % every:
                pass
            elif kind == "sam":
                first = worker // group * group
                own = mean(now[first : first + group])
                x_i = sam(x, own, coefficient, adaptive)
            elif kind == "momentum":
                norm = length(velocity)
                if norm:
                    x_i = [
                        w + coefficient * v / norm
                        for w, v in zip(x, velocity, strict=True)
                    ]
            else:
                all_of_them = now if current else before
                noise = all_of_them[worker]
                if center:
                    middle = mean(all_of_them)
                    noise = [n - m for n, m in zip(noise, middle, strict=True)]
                size = coefficient * rate * (-1 if uphill else 1)
                x_i = oracles.displaced(x, noise, size, "filter", True, None)
            r = rows[worker]
            found.append(oracles.gradient(x_i, images[r], labels[r])[1])
        before = found
        total = [g + decay * w for g, w in zip(mean(found), x, strict=True)]
        velocity = [
            momentum * v - rate * g
            for v, g in zip(velocity, total, strict=True)
        ]
        x = [w + v for w, v in zip(x, velocity, strict=True)]
    return x
