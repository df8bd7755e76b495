"""The PyTorch loops beside which benchmarks/step_cost.py sets our steps.

    python benchmarks/step_cost_torch.py VARIANT

A ResNet-32 for 32 x 32 pictures and 100 classes with projection shortcuts,
batches of 8 x 32 in channels-last layout, on PyTorch's own threads. VARIANT is
`sgd`, the whole batch with momentum 0.9; `gnc`, 8 workers one after another at
weights displaced by Eqs. 4 and 6 of Haruki et al. (2019); or `sam`, Foret et
al. (2021) on the whole batch. Takes a step for each line "step" that it reads,
as written in `benchmarks/step_cost_child.py`.
"""

import sys
from collections.abc import Callable

import torch
from step_cost_child import answer
from torch import nn
from torch.nn import functional

WORKERS, EXAMPLES_PER_WORKER, CLASSES, RATE, ALPHA, RHO = (
    8,
    32,
    100,
    0.1,
    0.1,
    0.05,
)


class Block(nn.Module):
    """Two convolutions and a shortcut, as He et al. (2016) for CIFAR."""

    def __init__(self, channels: int, filters: int, stride: int) -> None:
        super().__init__()
        self.first = _convolution(channels, filters, 3, stride)
        self.second = _convolution(filters, filters, 3, 1)
        self.shortcut = nn.Identity()
        if channels != filters:
            self.shortcut = _convolution(channels, filters, 1, stride)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Returns the block's output."""
        residual = self.second(functional.relu(self.first(x)))
        return functional.relu(residual + self.shortcut(x))


def _convolution(
    channels: int, filters: int, size: int, stride: int
) -> nn.Module:
    convolution = nn.Conv2d(
        channels, filters, size, stride, padding=size // 2, bias=False
    )
    return nn.Sequential(convolution, nn.BatchNorm2d(filters))


def resnet32() -> nn.Module:
    """Returns the network."""
    parts, channels = [_convolution(3, 16, 3, 1), nn.ReLU()], 16
    for filters in (16, 32, 64):
        for number in range(5):
            stride = 2 if number == 0 and filters > 16 else 1
            parts.append(Block(channels, filters, stride))
            channels = filters
    parts += [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, CLASSES)]
    return nn.Sequential(*parts).to(memory_format=torch.channels_last)


def filter_norms(weights: list[torch.Tensor]) -> list[torch.Tensor]:
    """Returns each filter's norm; a vector is one filter (Eq. 6)."""
    return [
        w.flatten(1).norm(dim=1).view(-1, *[1] * (w.dim() - 1))
        if w.dim() > 1
        else w.norm()
        for w in weights
    ]


class Loop:
    """A network, a batch, and a step of each kind."""

    def __init__(self) -> None:
        torch.manual_seed(0)
        self.model = resnet32()
        self.weights = list(self.model.parameters())
        self.optimizer = torch.optim.SGD(self.weights, RATE, momentum=0.9)
        rows = WORKERS * EXAMPLES_PER_WORKER
        x = torch.randn(rows, 3, 32, 32)
        self.x = x.contiguous(memory_format=torch.channels_last)
        self.y = torch.randint(0, CLASSES, (rows,))
        self.noise: list[list[torch.Tensor]] = []

    def differentiate(self, rows: slice) -> list[torch.Tensor]:
        """Returns the gradient of the mean loss of some rows."""
        logits = self.model(self.x[rows])
        loss = functional.cross_entropy(logits, self.y[rows])
        return list(torch.autograd.grad(loss, self.weights))

    def sgd(self) -> None:
        """Takes a step of SGD."""
        self._update(self.differentiate(slice(None)))

    @torch.no_grad()
    def sam(self) -> None:
        """Takes a step of SAM: a second pass, where the loss is higher."""
        with torch.enable_grad():
            gradients = self.differentiate(slice(None))
        norm = torch.stack([g.norm() for g in gradients]).norm()
        moves = torch._foreach_mul(gradients, RHO / norm)
        torch._foreach_add_(self.weights, moves)
        with torch.enable_grad():
            gradients = self.differentiate(slice(None))
        torch._foreach_sub_(self.weights, moves)
        self._update(gradients)

    @torch.no_grad()
    def gnc(self) -> None:
        """Takes a step of GNC: each worker at its displaced weights."""
        clean = [w.clone() for w in self.weights]
        scales = torch._foreach_mul(filter_norms(clean), ALPHA * RATE)
        found = []
        for worker in range(WORKERS):
            if self.noise:
                moves = torch._foreach_mul(self.noise[worker], scales)
                torch._foreach_copy_(
                    self.weights, torch._foreach_sub(clean, moves)
                )
            first = worker * EXAMPLES_PER_WORKER
            with torch.enable_grad():
                rows = slice(first, first + EXAMPLES_PER_WORKER)
                found.append(self.differentiate(rows))
        mean = torch._foreach_div(found[0], WORKERS)
        for gradients in found[1:]:
            torch._foreach_add_(mean, gradients, alpha=1 / WORKERS)
        self.noise = [torch._foreach_sub(g, mean) for g in found]
        torch._foreach_copy_(self.weights, clean)
        self._update(mean)

    def _update(self, gradients: list[torch.Tensor]) -> None:
        for weight, gradient in zip(self.weights, gradients, strict=True):
            weight.grad = gradient
        self.optimizer.step()


def main() -> None:
    """Answers on standard input and output."""
    step: Callable[[], None] = getattr(Loop(), sys.argv[1])
    answer(step)


if __name__ == "__main__":
    main()
