"""The only file that touches private names of Keras or TensorFlow.

Every entry says what it does, why the public way does not do and for which
versions it was tried; tests/test_keras_compat.py fails for an entry that is
no longer needed or no longer works.

Tried with TensorFlow 2.21 and Keras 3.15.

Floor 0: imports nothing of ours.
"""

import contextlib
import types
from collections.abc import Callable, Iterator
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras.src.random import seed_generator as _seed_generator
from keras.src.trainers import data_adapters as _data_adapters
from keras.src.trainers.data_adapters import array_slicing as _array_slicing
from keras.src.trainers.data_adapters import data_adapter as _data_adapter


def is_built(model: keras.Model) -> bool:
    """Tells whether a model and all layers in it have their variables.

    Why: `built` of a subclassed model may be true while its layers wait for
    their first call; the list of all layers, nested ones too, is private.
    """
    return all(layer.built for layer in model._flatten_layers())


def build(model: keras.Model, data: Any) -> None:
    """Builds model, metrics and loss from a batch, before any step is traced.

    Why: stock Keras builds them inside the traced step, but a worker's call
    runs in a stateless scope, where no variable may be made. `Model.build`
    knows neither metrics nor losses.

    Args:
        model: A compiled model.
        data: A batch as `train_step` receives it; only shapes and dtypes are
            looked at.
    """
    with tf.init_scope():
        model._symbolic_build(data_batch=data)


def call_for_training(model: keras.Model, x: Any) -> Any:
    """Calls the model as the stock training step does.

    Why: it passes `training` only to a `call` that takes it, which stands in
    a private attribute. Passed to any other, `training=True` would reach the
    layers inside, and a Dropout there would drop where stock Keras's doesn't.
    """
    if model._call_has_training_arg:
        return model(x, training=True)
    return model(x)


def compute_loss(
    model: keras.Model, x: Any, y: Any, y_pred: Any, sample_weight: Any
) -> tf.Tensor:
    """Computes the loss as the stock training step does.

    Why: an override of `compute_loss` written for an older Keras has no
    `training` argument; the wrapper that bridges this is private.
    """
    return model._compute_loss(
        x=x, y=y, y_pred=y_pred, sample_weight=sample_weight, training=True
    )


def mask_of(prediction: Any) -> tf.Tensor | None:
    """Returns the mask that layers have attached to a prediction.

    Why: Keras's metrics leave masked positions out by it, and it is lost when
    workers' predictions are put together. It has no public name.
    """
    return getattr(prediction, "_keras_mask", None)


def set_mask(prediction: tf.Tensor, mask: tf.Tensor) -> None:
    """Attaches a mask to a prediction; see `mask_of`."""
    prediction._keras_mask = mask


def update_loss_tracker(
    model: keras.Model, loss: tf.Tensor, num_examples: tf.Tensor
) -> None:
    """Adds a batch's loss to the metric that `fit` shows as `loss`.

    Why: the tracker has no public name of its own; among `metrics` a user's
    metric may be called `loss` too.
    """
    model._loss_tracker.update_state(loss, sample_weight=num_examples)


def global_seed_generator() -> keras.random.SeedGenerator:
    """Returns the generator behind random numbers drawn without a seed.

    Why: layers that call `keras.random` without a seed draw from it. Its
    state belongs to no model, so a stateless call would leave it unchanged
    and every step would draw the same numbers.
    """
    return _seed_generator.global_seed_generator()


def is_seed_state(variable: keras.Variable) -> bool:
    """Tells whether a model's variable is the state of a SeedGenerator.

    Why: a model lists the states among its non-trainable variables without a
    mark of their own; the name is all that tells them apart.
    """
    return variable.name == "seed_generator_state"


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


def set_initial_epoch(model: keras.Model, epoch: int | None) -> None:
    """Has the `fit` under way begin with an epoch; None for its own choice.

    Why: Keras's own callback for backups says it this way, from
    `on_train_begin`; there is no public one.
    """
    model._initial_epoch = epoch


@contextlib.contextmanager
def gradients_already_averaged(
    optimizer: keras.optimizers.Optimizer,
) -> Iterator[None]:
    """Keeps `optimizer.apply` from reducing gradients over replicas again.

    Why: Keras sums what each replica hands in, after clipping it. The step
    has averaged its gradients already, so that they are clipped after the
    mean and cross the replicas once; Keras 3 has no public switch.

    Args:
        optimizer: The optimizer of the model, wrapped for loss scaling or not.
    """
    inner = getattr(optimizer, "inner_optimizer", optimizer)
    inner._all_reduce_sum_gradients = lambda grads_and_vars: grads_and_vars
    try:
        yield
    finally:
        # Replicas pass here one after another; the first one takes it away,
        # when all of them have been through `apply`.
        vars(inner).pop("_all_reduce_sum_gradients", None)


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

    Args:
        condition: A boolean scalar, equal on all replicas.
        apply: Takes the gradients and returns nothing.
        gradients: This replica's tensors.
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


def on_this_replica(variable: tf.Variable) -> tf.Variable:
    """Returns the calling replica's own component of a variable.

    Why: a variable that every replica holds for itself cannot be read or
    written by rows; its components can, and TensorFlow hands them out through
    a private method only. On TPUs, where one trace serves all replicas, the
    variable itself stands for the replica's.
    """
    if isinstance(tf.distribute.get_strategy(), tf.distribute.TPUStrategy):
        return variable
    if isinstance(variable, tf.distribute.DistributedValues):
        return variable._get_on_device_or_primary()
    return variable


def in_several_processes(strategy: tf.distribute.Strategy) -> bool:
    """Tells whether a strategy's replicas live in several processes.

    Why: a MultiWorkerMirroredStrategy with a cluster of one behaves as a
    MirroredStrategy, and which of the two it is stands in a private place.
    """
    return (
        isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy)
        and strategy.extended._in_multi_worker_mode()
    )


class SeveralProcesses:
    """Mixin that lets `fit` and `evaluate` run in several processes.

    Why: stock Keras's fail there, in 3.0 to 3.15 at least (keras issue 20585,
    open). It hands a whole batch, a nested structure, to `strategy.reduce`,
    and reduces scalar logs along their first axis. In one process nothing is
    changed, and Keras itself never.
    """

    def _maybe_symbolic_build(
        self, iterator: Any = None, data_batch: Any = None
    ) -> None:
        """Builds from one replica's share of the first batch."""
        strategy = self.distribute_strategy
        if iterator is not None and in_several_processes(strategy):
            for _, _, batches in iterator:
                data_batch = keras.tree.map_structure(
                    lambda leaf: strategy.experimental_local_results(leaf)[0],
                    next(batches),
                )
                iterator = None
                break
        super()._maybe_symbolic_build(iterator=iterator, data_batch=data_batch)

    def _make_function(self, step: Callable[[Any], Any]) -> Callable:
        """Averages the logs in one small collective, whatever their number."""
        strategy = self.distribute_strategy
        make = super()._make_function
        if not in_several_processes(strategy):
            return make(step)

        def step_with_common_logs(data: Any) -> Any:
            logs = step(data)
            leaves = [tf.convert_to_tensor(v) for v in keras.tree.flatten(logs)]
            flat = [tf.reshape(tf.cast(v, "float32"), [-1]) for v in leaves]
            context = tf.distribute.get_replica_context()
            mean = context.all_reduce(
                tf.distribute.ReduceOp.MEAN, tf.concat(flat, axis=0)
            )
            parts = tf.split(mean, [tf.size(v) for v in flat], num=len(flat))
            return keras.tree.pack_sequence_as(
                logs,
                [
                    tf.reshape(part, tf.shape(leaf))
                    for part, leaf in zip(parts, leaves, strict=True)
                ],
            )

        def first(values: Any, strategy: Any, reduction: str) -> Any:
            return keras.tree.map_structure(
                lambda v: strategy.experimental_local_results(v)[0], values
            )

        # The same code, reading `reduce_per_replica` from a copy of its names.
        code = make.__func__
        names = {**code.__globals__, "reduce_per_replica": first}
        mended = types.FunctionType(
            code.__code__, names, code.__name__, code.__defaults__
        )
        return mended(self, step_with_common_logs)


def training_data(
    arguments: dict[str, Any],
) -> tuple[_data_adapter.DataAdapter, Any]:
    """Returns Keras's adapter for what `fit` was given to train on.

    Why: arrays, generators and data loaders all become a `tf.data.Dataset`
    there, and the adapters are private.

    Args:
        arguments: Those of `fit` by name. A `validation_split` is carried
            out, so that `validation_data` stands for it.

    Returns:
        The adapter; and the data as one structure of tensors where they are
        plain arrays, else None.
    """
    arrays = tuple(arguments.get(k) for k in ("x", "y", "sample_weight"))
    split = arguments.pop("validation_split", None)
    if split and arguments.get("validation_data") is None:
        arrays, rest = _array_slicing.train_validation_split(arrays, split)
        arguments["validation_data"] = rest
    x, y, sample_weight = arrays
    is_dataset = isinstance(x, tf.data.Dataset)
    adapter = _data_adapters.get_data_adapter(
        x,
        y,
        sample_weight,
        batch_size=arguments.get("batch_size"),
        steps_per_epoch=arguments.get("steps_per_epoch"),
        shuffle=False if is_dataset else arguments.get("shuffle", True),
        class_weight=arguments.get("class_weight"),
    )
    if not isinstance(adapter, _data_adapters.ArrayDataAdapter):
        return adapter, None
    arrays = _array_slicing.convert_to_sliceable(adapter._inputs, "tensorflow")
    leaves = keras.tree.flatten(arrays)
    plain = all(isinstance(leaf, np.ndarray | tf.Tensor) for leaf in leaves)
    return adapter, keras.tree.lists_to_tuples(arrays) if plain else None


class PreparedData(_data_adapter.DataAdapter):
    """Hands `fit` a data set, distributed or not, as it is.

    Why: `fit` takes a `DistributedDataset` or a `Dataset`, but would warn of
    arguments that have been dealt with, and doesn't learn from the former how
    many batches an epoch has.

    Args:
        adapter: Knows the number of batches; None for data without an end.
        dataset: What to train on.
    """

    def __init__(self, adapter: _data_adapter.DataAdapter | None, dataset: Any):
        self._adapter = adapter
        self._dataset = dataset

    def get_tf_dataset(self) -> Any:
        """Returns the data set."""
        return self._dataset

    @property
    def num_batches(self) -> int | None:
        """Batches in one pass over the data, if known."""
        return self._adapter and self._adapter.num_batches

    def on_epoch_begin(self) -> None:
        """Passes on that an epoch begins."""
        if self._adapter:
            self._adapter.on_epoch_begin()

    def on_epoch_end(self) -> None:
        """Passes on that an epoch has ended."""
        if self._adapter:
            self._adapter.on_epoch_end()
