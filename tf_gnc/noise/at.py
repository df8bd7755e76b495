"""Where a rule stands: the step, the worker, and the gradients it asked for."""

from collections.abc import Callable, Collection, Mapping
from typing import Any

import tensorflow as tf

from tf_gnc.noise.layout import WeightLayout

NEEDS = {
    "previous": "the worker's gradient of the step before",
    "previous_mean": "the mean of those over all workers",
    "momentum": "the optimizer's update vector, the way the weights last moved",
    "current": "the worker's gradient at the clean weights, a second pass",
    "current_mean": "the mean of those over the worker's group",
}
"""What a rule may need, each a vector of shape `(P,)`."""


class At:
    """What a rule is given for one worker in one step.

    A vector that the rule's `needs` name is an attribute too; it is made when
    it is first asked for.

    Args:
        step: Number of steps taken so far, an integer scalar.
        worker: The worker's index in the whole cluster, 0 to M - 1.
        weights: The clean weights x, shape `(P,)`.
        layout: Where each weight lies in the vector.
        rate: The optimizer's learning rate, a scalar or `(P,)`, or what returns
            it when it is asked for: not every optimizer has one.
        makers: By the names in `NEEDS`, what makes each vector.

    Raises:
        ValueError: If a vector is asked for that wasn't declared.

    Example:
        >>> layout = WeightLayout([(2,)])
        >>> at = At(0, 3, tf.ones(2), layout, 0.1,
        ...         {"previous": lambda: tf.constant([1.0, 2.0])})
        >>> at.previous.numpy().tolist()
        [1.0, 2.0]
    """

    def __init__(
        self,
        step: tf.Tensor,
        worker: tf.Tensor,
        weights: tf.Tensor,
        layout: WeightLayout,
        rate: tf.Tensor | Callable[[], tf.Tensor],
        makers: Mapping[str, Callable[[], tf.Tensor]],
    ) -> None:
        self.step, self.worker = step, worker
        self.weights, self.layout = weights, layout
        make_rate = rate if callable(rate) else lambda: rate
        self._makers = {**makers, "rate": make_rate}

    def __getattr__(self, name: str) -> Any:
        if name not in (*NEEDS, "rate"):
            raise AttributeError(f"`at` has no {name!r}.")
        if name not in self._makers:
            declared = sorted(self._makers.keys() & NEEDS)
            raise ValueError(
                f"`at.{name}`, {NEEDS[name]}, must be declared before it is "
                f"used, got a rule with needs={declared}. Add "
                f"{name!r} to its `needs`."
            )
        value = self._makers[name]()
        setattr(self, name, value)
        return value


def check_needs(rule: str, needs: Collection[str]) -> frozenset[str]:
    """Returns a rule's needs as a set; refuses unknown ones."""
    unknown = sorted(set(needs) - set(NEEDS))
    if unknown or isinstance(needs, str):
        raise ValueError(
            f"`needs` of {rule} must be a set of {', '.join(NEEDS)}, got "
            f"needs={needs!r}."
        )
    return frozenset(needs)
