"""Private names behind an optimizer's update."""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import keras
import tensorflow as tf


def uses_weight_decay(
    optimizer: keras.optimizers.Optimizer, variable: keras.Variable
) -> bool:
    """Tells whether `exclude_from_weight_decay` has spared this variable.

    Why: the exclusions that the public method stores are read by a private
    one.
    """
    return optimizer._use_weight_decay(variable)


def variable_index(
    optimizer: keras.optimizers.Optimizer, variable: keras.Variable
) -> int:
    """Returns a variable's position among those the optimizer was built with.

    Why: an update step is handed a variable, or one replica's component of
    it, and must find the state that belongs to it; the index is private.
    """
    return optimizer._get_variable_index(variable)


# By class: where its momentum stands, and whether the weights move along it or
# against it. Not by the variables' names: Adam's "velocity" is another thing.
_MOMENTUM = {
    keras.optimizers.SGD: ("momentums", 1),
    keras.optimizers.RMSprop: ("_momentums", -1),
    keras.optimizers.Adam: ("_momentums", -1),
    keras.optimizers.Nadam: ("_momentums", -1),
    keras.optimizers.Lamb: ("_momentums", -1),
    keras.optimizers.Lion: ("_momentums", -1),
    keras.optimizers.Adamax: ("_m", -1),
}


def parts_of(
    optimizer: keras.optimizers.Optimizer,
) -> list[keras.optimizers.Optimizer]:
    """Returns what is inside of a loss scale, and those to whom it hands on.

    A `keras.optimizers.MultiOptimizer` has each variable updated by one of its
    `optimizers`.
    """
    inner = getattr(optimizer, "inner_optimizer", optimizer)
    return [inner, *getattr(inner, "optimizers", [])]


def update_vectors(
    optimizer: keras.optimizers.Optimizer, variables: list[keras.Variable]
) -> list[tf.Tensor]:
    """Returns the way each variable last moved, by the optimizer's momentum.

    An optimizer of ours, or of the user's, has a method of that name, which
    returns momentum and sign. Its length is the optimizer's own: Adam's first
    moment isn't divided by the second.

    Why: most of Keras's optimizers keep their momentum in a private attribute.

    Raises:
        ValueError: If the optimizer has no momentum, or none that is known.
    """
    inner, why = parts_of(optimizer)[0], "keeps none with momentum=0"
    if hasattr(inner, "update_vectors"):
        found, sign = inner.update_vectors()
    else:
        kinds = (_MOMENTUM[k] for k in type(inner).__mro__ if k in _MOMENTUM)
        name, sign = next(kinds, (None, 1))
        found = getattr(inner, name) if name else []
        why = why if name else "isn't known to keep one"
    if not found:
        known = ", ".join(kind.__name__ for kind in _MOMENTUM)
        raise ValueError(
            "A rule that needs the optimizer's momentum must have an optimizer "
            f"with one, got {type(inner).__name__}, which {why}. Use "
            "tf_gnc.optimizers.MomentumSGD(momentum=0.9) or LARS, or one of "
            f"Keras's with momentum: {known}. In a class of your own the "
            "method `update_vectors()` may return the variables that hold the "
            "momentum, in the order of the weights, and 1 if the weights move "
            "along it, -1 if against it."
        )
    places = [variable_index(inner, variable) for variable in variables]
    return [sign * tf.convert_to_tensor(found[p].value) for p in places]


@contextlib.contextmanager
def gradients_already_averaged(
    optimizer: keras.optimizers.Optimizer,
) -> Iterator[None]:
    """Keeps `optimizer.apply` from reducing gradients over replicas again.

    Why: Keras sums what each replica hands in, after clipping it. The step
    has averaged its gradients already, so that they are clipped after the
    mean and cross the replicas once; Keras 3 has no public switch.
    """
    parts = parts_of(optimizer)
    for part in parts:
        part._all_reduce_sum_gradients = lambda grads_and_vars: grads_and_vars
    try:
        yield
    finally:
        # Replicas pass here one after another; the first one takes it away,
        # when all of them have been through `apply`.
        for part in parts:
            vars(part).pop("_all_reduce_sum_gradients", None)


def apply_if(
    condition: tf.Tensor,
    apply: Callable[[list[tf.Tensor | None]], None],
    gradients: list[tf.Tensor | None],
) -> None:
    """Runs `apply(gradients)` on every replica if `condition` holds.

    Why: an optimizer's update merges the replicas' calls under some
    strategies, which TensorFlow forbids inside a `tf.cond` of one replica, and
    the test for such a strategy is private. There the condition, which must be
    the same on all replicas, is looked at once for all of them.
    """

    def apply_on_each(
        strategy: tf.distribute.Strategy, gradients: list[Any]
    ) -> tf.Tensor:
        strategy.extended.call_for_each_replica(apply, args=(gradients,))
        return tf.constant(True)

    def for_all_replicas(
        strategy: tf.distribute.Strategy, condition: Any, gradients: list[Any]
    ) -> None:
        first = strategy.experimental_local_results(condition)[0]
        tf.cond(
            first,
            lambda: apply_on_each(strategy, gradients),
            lambda: tf.constant(False),
        )

    def apply_here() -> tf.Tensor:
        apply(gradients)
        return tf.constant(True)

    if tf.__internal__.distribute.strategy_supports_no_merge_call():
        tf.cond(condition, apply_here, lambda: tf.constant(False))
    else:
        context = tf.distribute.get_replica_context()
        context.merge_call(for_all_replicas, args=(condition, gradients))
