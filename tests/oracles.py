"""Algorithm 1, Eq. 5 and Eq. 6 in NumPy with loops; imports nothing of ours.

Float64 throughout. The network is one convolution, a tanh, and one dense
layer with softmax cross-entropy: small enough to differentiate by hand, with a
kernel of rank 4, one of rank 2 and two bias vectors.

    z[b,i,j,o] = k_bias[o] + sum_{u,v,c} x[b,i+u,j+v,c] * kernel[u,v,c,o]
    a          = tanh(z), flattened row by row
    logits     = a @ dense + d_bias
"""

import numpy as np


def gradient(weights, x, y):
    """Mean cross-entropy and its gradient, for weights (kernel, k_bias, dense,
    d_bias), images x (b, h, w, c) and labels y (b,)."""
    kernel, k_bias, dense, d_bias = weights
    size_u, size_v, _, filters = kernel.shape
    height = x.shape[1] - size_u + 1
    width = x.shape[2] - size_v + 1
    loss = 0.0
    gradients = [np.zeros_like(w) for w in weights]
    for image, label in zip(x, y, strict=True):
        z = np.zeros((height, width, filters))
        for i in range(height):
            for j in range(width):
                patch = image[i : i + size_u, j : j + size_v, :]
                for o in range(filters):
                    z[i, j, o] = k_bias[o] + np.sum(patch * kernel[..., o])
        a = np.tanh(z)
        logits = a.reshape(-1) @ dense + d_bias
        odds = np.exp(logits - logits.max())
        p = odds / odds.sum()
        loss -= np.log(p[label])
        d_logits = p.copy()
        d_logits[label] -= 1
        gradients[2] += np.outer(a.reshape(-1), d_logits)
        gradients[3] += d_logits
        d_z = (dense @ d_logits).reshape(a.shape) * (1 - a**2)
        for i in range(height):
            for j in range(width):
                patch = image[i : i + size_u, j : j + size_v, :]
                for o in range(filters):
                    gradients[0][..., o] += d_z[i, j, o] * patch
                    gradients[1][o] += d_z[i, j, o]
    return loss / len(x), [g / len(x) for g in gradients]


def filters_of(tensor):
    """The index of each filter: output channels of a kernel, or a whole
    vector."""
    if tensor.ndim >= 2:
        return [(..., o) for o in range(tensor.shape[-1])]
    return [...]


def displaced(weights, noise, step_size, scaling, include_vectors, bound):
    """Eq. 3, or Eq. 6 with scaling="filter"; step_size is alpha * eta."""
    result = []
    for x, w in zip(weights, noise, strict=True):
        x_i = x.copy()
        for p in filters_of(x):
            if x.ndim < 2 and not include_vectors:
                continue
            norm = np.sqrt(np.sum(x[p] ** 2))
            move = step_size * w[p] * (norm if scaling == "filter" else 1)
            length = np.sqrt(np.sum(move**2))
            if bound is not None and length > bound * norm:
                move = move * (bound * norm / length)
            x_i[p] = x[p] - move
        result.append(x_i)
    return result


def unit_filters(draw):
    """Eq. 5's u / ||u||, filter by filter."""
    result = []
    for u in draw:
        unit = u.copy()
        for p in filters_of(u):
            unit[p] = u[p] / np.sqrt(np.sum(u[p] ** 2))
        result.append(unit)
    return result


def train(
    weights,
    batches,
    num_workers,
    rate,
    *,
    alpha=0.0,
    method="gnc",
    scaling="filter",
    include_vectors=True,
    bound=None,
    draw=None,
    momentum=0.0,
    decay=0.0,
):
    """Algorithm 1 with the paper's momentum and L2 decay.

    rate is a function of the step; draw(step, worker) gives the RNC cube's
    point as one array per weight. Returns the weights, and every step's noise
    as a list over workers of one array per weight.
    """
    weights = [w.astype(np.float64) for w in weights]
    velocity = [np.zeros_like(w) for w in weights]
    previous = [[np.zeros_like(w) for w in weights]] * num_workers
    history = []
    for step, (x, y) in enumerate(batches):
        b = len(x) // num_workers
        eta = rate(step)
        mean_before = [
            sum(g[k] for g in previous) / num_workers
            for k in range(len(weights))
        ]
        current, noises = [], []
        for i in range(num_workers):
            if method == "gnc":
                noise = [
                    g - m for g, m in zip(previous[i], mean_before, strict=True)
                ]
            else:
                noise = draw(step, i)
                if scaling == "filter":
                    noise = unit_filters(noise)
            noises.append(noise)
            x_i = displaced(
                weights, noise, alpha * eta, scaling, include_vectors, bound
            )
            rows = slice(i * b, (i + 1) * b)
            current.append(gradient(x_i, x[rows], y[rows])[1])
        history.append(noises)
        previous = current
        for k in range(len(weights)):
            mean = sum(g[k] for g in current) / num_workers
            mean = mean + decay * weights[k]
            velocity[k] = momentum * velocity[k] - eta * mean
            weights[k] = weights[k] + velocity[k]
    return weights, history


def norm(tensor):
    return np.sqrt(np.sum(tensor**2))


# The published forms of LARS, one weight at a time, as their sources write
# them. Each returns the next weight, the next state and the local rate, by
# which the gradient of this step is multiplied.


def lars_paper(x, v, g, gamma, m, decay, tau=0.001):
    """Appendix A.5's local rate in appendix A.3's velocity."""
    bottom = norm(g) + decay * norm(x)
    local = gamma
    if norm(x) != 0 and bottom != 0:
        local = gamma * tau * norm(x) / bottom
    v = m * v - local * (g + decay * x)
    return x + v, v, local


def lars_tf_models(x, v, g, gamma, m, decay, tau=0.001, classic=True):
    """tensorflow/models: the decayed gradient's norm, or the velocity's."""
    g = g + decay * x
    if classic:
        trust = 1.0
        if norm(x) > 0 and norm(g) > 0:
            trust = tau * norm(x) / norm(g)
        v = m * v + gamma * trust * g
        return x - v, v, gamma * trust
    v = m * v + g
    trust = 1.0
    if norm(x) > 0 and norm(v) > 0:
        trust = tau * norm(x) / norm(v)
    return x - gamma * trust * v, v, gamma * trust


def lars_mlperf(x, v, g, gamma, m, decay, tau=0.001, eps=1e-7):
    """mlcommons/training: eps, and no adaptation to a zero gradient."""
    trust = 1.0
    if norm(x) > 0 and norm(g) > 0:
        trust = tau * norm(x) / (norm(g) + decay * norm(x) + eps)
    v = m * v - gamma * trust * (g + decay * x)
    return x + v, v, gamma * trust


def larc(x, v, g, gamma, m, decay, tau=0.02, eps=1e-8, clip=True):
    """NVIDIA/apex around PyTorch's SGD, which multiplies by the rate last."""
    factor = 1.0
    if norm(x) != 0 and norm(g) != 0:
        factor = tau * norm(x) / (norm(g) + norm(x) * decay + eps)
        if clip:
            factor = min(factor, gamma) / gamma if gamma else 1.0
        g = factor * (g + decay * x)
    v = m * v + g
    return x - gamma * v, v, gamma * factor


def chainer(x, v, g, gamma, m, decay, tau=0.001, eps=1e-9, threshold=1e-2):
    """Chainer's hook GradientLARS, then its MomentumSGD at gamma tau."""
    rate = 1.0
    if norm(x) > threshold:
        rate = norm(x) / (eps + norm(g) + decay * norm(x))
    v = m * v - gamma * tau * (rate * (g + decay * x))
    return x + v, v, gamma * tau * rate


def train_lars(
    weights, batches, num_workers, rate, *, alpha, per_layer, momentum, decay
):
    """Algorithm 1 with the paper's LARS; vectors follow plain momentum.

    per_layer scales a weight's noise by its local rate of the step before.
    """
    weights = [w.astype(np.float64) for w in weights]
    velocity = [np.zeros_like(w) for w in weights]
    previous = [[np.zeros_like(w) for w in weights]] * num_workers
    local = [rate(0)] * len(weights)
    for step, (x, y) in enumerate(batches):
        b = len(x) // num_workers
        gamma = rate(step)
        etas = local if per_layer else [gamma] * len(weights)
        current = []
        for i in range(num_workers):
            x_i = []
            for k, w in enumerate(weights):
                mean = sum(g[k] for g in previous) / num_workers
                noise = previous[i][k] - mean
                x_i += displaced(
                    [w], [noise], alpha * etas[k], "filter", True, None
                )
            rows = slice(i * b, (i + 1) * b)
            current.append(gradient(x_i, x[rows], y[rows])[1])
        previous, local = current, []
        for k, w in enumerate(weights):
            mean = sum(g[k] for g in current) / num_workers
            if w.ndim > 1:
                w, v, eta = lars_paper(
                    w, velocity[k], mean, gamma, momentum, decay
                )
            else:
                v, eta = momentum * velocity[k] - gamma * mean, gamma
                w = w + v
            weights[k], velocity[k] = w, v
            local.append(eta)
    return weights
