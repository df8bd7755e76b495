"""Why each private entry is needed, and that it works.

A test here fails if the entry stops working, and also once the public way
does the same, so that the entry can go.
"""

import sys
import types
from unittest import mock

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests import problems, processes
from tf_gnc import _keras_compat, _versions

OLDEST_KERAS = _versions.TRIED["keras"][0]
KERAS = tuple(map(int, keras.__version__.split(".")[:2]))


class NoTraining(keras.Model):
    """A model whose call takes no `training`, with a layer that does."""

    def __init__(self):
        super().__init__()
        self.dropout = keras.layers.Dropout(0.5)

    def call(self, x):
        return self.dropout(x)


class WithTraining(keras.Model):
    def call(self, x, training=False):
        return x + 1.0 if training else x


class OldLoss(keras.Model):
    """An override of compute_loss from before Keras 3.3."""

    def call(self, x):
        return x

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None):
        return tf.reduce_sum(y_pred) * sample_weight


# Models.


def _unbuilt():
    model = keras.Sequential([keras.layers.Dense(2), keras.layers.Dense(3)])
    model.compile("sgd", problems.cross_entropy(), metrics=["accuracy"])
    return model


def _names(variables):
    return [variable.path.split("/")[0] for variable in variables]


def test_build__unbuilt_sequential__builds_model_and_metrics_too():
    data = tf.zeros([4, 5]), tf.zeros([4], tf.int32)
    publicly = _unbuilt()
    publicly.build((None, 5))
    assert publicly.built
    assert "accuracy" not in _names(publicly.metrics_variables)

    model = _unbuilt()

    @tf.function(autograph=False)
    def inside_a_step():
        _keras_compat.build(model, data)

    inside_a_step()
    assert model.built
    assert [w.shape for w in model.weights] == [(5, 2), (2,), (2, 3), (3,)]
    assert _names(model.metrics_variables) == ["loss"] * 2 + ["accuracy"] * 2
    assert not np.any([v.numpy() for v in model.metrics_variables])


def test_build__loss_of_two_outputs__builds_its_variables():
    inputs = keras.Input((5,))
    outputs = {n: keras.layers.Dense(1, name=n)(inputs) for n in "ab"}
    model = keras.Model(inputs, outputs)
    model.compile("sgd", {"a": "mse", "b": "mae"})
    targets = {n: tf.zeros([4, 1]) for n in "ab"}
    assert _names(model.metrics_variables) == ["loss"] * 2
    _keras_compat.build(model, (tf.zeros([4, 5]), targets))
    assert len(model.metrics_variables) == 2 + 2 * 2
    assert set(model.get_metrics_result()) == {"loss", "a_loss", "b_loss"}


def test_is_built__layers_wait_for_their_first_call__is_not():
    class Subclassed(keras.Model):
        def __init__(self):
            super().__init__()
            self.nested = keras.Sequential([keras.layers.Dense(1)])

        def build(self, shape):
            self.built = True

        def call(self, x):
            return self.nested(x)

    model = Subclassed()
    model.build((None, 3))
    assert model.built  # the public answer
    assert not model.weights
    assert not _keras_compat.is_built(model)
    model(tf.zeros([1, 3]))
    assert len(model.weights) == 2
    assert _keras_compat.is_built(model)


class Plain(keras.Model):
    """Made as GNCModel is."""

    def __init__(self, inputs=None, outputs=None, name=None, **kwargs):
        super().__init__(inputs, outputs, name=name, **kwargs)


class Marked(Plain):
    __init__ = _keras_compat.saved_as_functional(Plain.__init__)


@pytest.mark.parametrize(
    ("model_class", "has_layers"),
    [(Marked, True), (Plain, KERAS >= (3, 15))],  # the public way
)
def test_saved_as_functional__config__has_the_layers(model_class, has_layers):
    assert OLDEST_KERAS < (3, 15), "the entry can go"
    inputs = keras.Input((3,))
    outputs = keras.layers.Dense(2, name="dense")(inputs)
    for model in (
        model_class(inputs, outputs, name="its_name"),
        model_class(inputs=inputs, outputs=outputs, name="its_name"),
    ):
        config = model.get_config()
        assert ("layers" in config) == has_layers
        assert config["name"] == "its_name"
        if has_layers:
            again = model_class.from_config(config)
            assert type(again) is type(model)
            assert again.get_layer("dense").units == 2


def test_call_for_training__call_without_training__is_stock_keras_call():
    model, x = NoTraining(), tf.ones([100, 100])
    # Stock Keras leaves it to the model, and its Dropout stays idle; the
    # public call with `training=True` would reach past the model.
    assert tf.reduce_any(model(x, training=True) != x)
    result = _keras_compat.call_for_training(model, x)
    np.testing.assert_array_equal(result, x)
    model.compile(loss="mse")
    with pytest.warns(UserWarning, match="not have any trainable weights"):
        loss = model.train_on_batch(x, x)
    assert loss == 0


def test_call_for_training__call_with_training__is_told_to_train():
    x = tf.zeros([2])
    result = _keras_compat.call_for_training(WithTraining(), x)
    np.testing.assert_array_equal(result, [1.0, 1.0])


def test_compute_loss__override_without_training__is_called_all_the_same():
    model = OldLoss()
    model.compile("sgd", "mse")
    x = tf.constant([1.0, 2.0])
    with pytest.raises(TypeError, match="training"):
        model.compute_loss(x, x, x, 2.0, training=True)
    assert _keras_compat.compute_loss(model, x, x, x, 2.0) == 6.0


def test_compute_loss__stock_model__is_its_mean_loss():
    model = WithTraining()
    model.compile("sgd", "mse")
    y = tf.constant([[1.0], [3.0]])
    loss = _keras_compat.compute_loss(model, y, y, tf.zeros([2, 1]), None)
    assert loss == (1 + 9) / 2


def test_update_loss_tracker__two_batches__shows_the_mean_over_examples():
    model = WithTraining()
    # A user's metric may be called as the tracker is.
    metric = keras.metrics.MeanSquaredError(name="loss")
    model.compile("sgd", "mse", metrics=[metric])
    _keras_compat.build(model, (tf.zeros([4, 1]), tf.zeros([4, 1])))
    _keras_compat.update_loss_tracker(model, tf.constant(1.0), tf.constant(3))
    _keras_compat.update_loss_tracker(model, tf.constant(5.0), tf.constant(1))
    results = [float(m.result()) for m in model.metrics if m.name == "loss"]
    assert results[0] == (3 * 1 + 1 * 5) / 4
    assert metric.result() == 0


# Random numbers.


def test_global_seed_generator__draw_without_seed__advances_its_state():
    assert not hasattr(keras.random, "global_seed_generator")
    generator = _keras_compat.global_seed_generator()
    assert isinstance(generator, keras.random.SeedGenerator)
    before = generator.state.numpy()
    keras.random.uniform([1])
    assert np.any(generator.state.numpy() != before)
    assert _keras_compat.global_seed_generator() is generator


def test_global_seed_generator__layer_that_draws_unseeded__is_not_the_models():
    class Noisy(keras.Layer):
        def call(self, x):
            return x + keras.random.normal(tf.shape(x))

    model = keras.Sequential([keras.Input((2,)), Noisy()])
    generator = _keras_compat.global_seed_generator()
    before = generator.state.numpy()
    model(tf.zeros([1, 2]))
    assert np.any(generator.state.numpy() != before)
    assert all(v is not generator.state for v in model.variables)


def test_global_seed_generator__first_asked_for_in_a_graph__outlives_it():
    keras.backend.clear_session(free_memory=False)  # forgets the generator

    @tf.function(autograph=False)
    def first():
        generator = _keras_compat.global_seed_generator()
        return tf.identity(generator.state.value)

    state = first()
    generator = _keras_compat.global_seed_generator()
    np.testing.assert_array_equal(generator.state.numpy(), state)


@pytest.mark.parametrize(
    ("seed", "begins_anew"),
    [
        (_keras_compat.set_random_seed, True),
        (keras.utils.set_random_seed, KERAS >= (3, 13)),  # the public way
    ],
)
def test_set_random_seed__generator_used_before__begins_anew(seed, begins_anew):
    assert OLDEST_KERAS < (3, 13), "the entry can go"
    generator = _keras_compat.global_seed_generator()
    draws = []
    for _ in range(2):
        seed(3)
        draws.append(float(keras.random.uniform([1])[0]))
    assert (draws[0] == draws[1]) == begins_anew
    found = _keras_compat.global_seed_generator()
    assert (found is not generator) == begins_anew


def test_is_seed_state__variables_of_stock_layers__finds_dropouts_alone():
    model = problems.full_network()
    found = [v for v in model.variables if _keras_compat.is_seed_state(v)]
    (dropout,) = (
        x for x in model.layers if isinstance(x, keras.layers.Dropout)
    )
    assert len(found) == 1
    assert found[0] is dropout.seed_generator.state
    # BatchNorm's moving statistics stand beside it in the same list.
    assert any(v is found[0] for v in model.non_trainable_variables)
    assert len(model.non_trainable_variables) == 3
    # Nothing public tells them apart but the dtype, which a counter of the
    # user's shares.
    counter = keras.Variable([0, 0], dtype="int64", trainable=False)
    assert counter.dtype == found[0].dtype
    assert not _keras_compat.is_seed_state(counter)


# Optimizers.


def test_uses_weight_decay__excluded_by_name__is_spared():
    optimizer = keras.optimizers.SGD(1.0, weight_decay=0.5)
    optimizer.exclude_from_weight_decay(var_names=["bias"])
    kernel = keras.Variable([1.0], name="kernel")
    bias = keras.Variable([1.0], name="bias")
    assert _keras_compat.uses_weight_decay(optimizer, kernel)
    assert not _keras_compat.uses_weight_decay(optimizer, bias)
    # Keras itself goes by the same answer.
    optimizer.apply([tf.zeros([1])] * 2, [kernel, bias])
    assert (float(kernel[0]), float(bias[0])) == (0.5, 1.0)
    public = [n for n in dir(optimizer) if "decay" in n and n[0] != "_"]
    assert public == ["exclude_from_weight_decay", "weight_decay"]


@pytest.mark.parametrize("replicas", [1, 2])
def test_variable_index__what_update_step_is_handed__is_found(replicas):
    class Recorder(keras.optimizers.SGD):
        def update_step(self, gradient, variable, learning_rate):
            handed.append(variable)
            super().update_step(gradient, variable, learning_rate)

    handed = []
    with problems.mirrored(replicas):
        strategy = tf.distribute.get_strategy()
        # Alike, so that the value can't tell them apart.
        variables = [keras.Variable([0.0]) for _ in range(3)]
        optimizer = Recorder(1.0)
        optimizer.build(variables)
    gradients = [tf.ones([1])] * 3

    @tf.function(autograph=False)
    def step():
        strategy.run(lambda: optimizer.apply(gradients, variables))

    step()
    # It isn't the variable that the optimizer was built with.
    assert all(v is not w for v in handed for w in variables)
    indices = [_keras_compat.variable_index(optimizer, v) for v in handed]
    assert indices == sorted([0, 1, 2] * replicas)
    assert [_keras_compat.variable_index(optimizer, v) for v in variables] == [
        0,
        1,
        2,
    ]


def _two_replicas(apply, optimizer_of=lambda: keras.optimizers.SGD(1.0)):
    """The update that `apply(optimizer, gradient, variable)` makes on two
    replicas with gradients 1 and 3, and the optimizer."""
    with problems.mirrored(2):
        strategy = tf.distribute.get_strategy()
        variable = keras.Variable([0.0])
        optimizer = optimizer_of()
        optimizer.build([variable])

    @tf.function(autograph=False)
    def step():
        def on_each():
            replica = tf.distribute.get_replica_context()
            first = replica.replica_id_in_sync_group == 0
            gradient = tf.where(first, [1.0], [3.0])
            apply(optimizer, gradient, variable)

        strategy.run(on_each)

    step()
    copies = strategy.experimental_local_results(variable.value)
    updates = {-float(copy[0]) for copy in copies}
    assert len(updates) == 1  # the copies agree
    return updates.pop(), optimizer


def _stock(optimizer, gradient, variable):
    optimizer.apply([gradient], [variable])


def _averaged_here(optimizer, gradient, variable):
    del gradient  # stands for a mean that all replicas hold
    with _keras_compat.gradients_already_averaged(optimizer):
        optimizer.apply([tf.constant([1.0])], [variable])


def _loss_scaled():
    inner = keras.optimizers.SGD(1.0)
    return keras.optimizers.LossScaleOptimizer(inner, initial_scale=1.0)


@pytest.mark.parametrize(
    "optimizer_of",
    [lambda: keras.optimizers.SGD(1.0), _loss_scaled],
    ids=["plain", "loss_scaled"],
)
def test_gradients_already_averaged__two_replicas__are_not_summed_again(
    optimizer_of,
):
    stock, _ = _two_replicas(_stock, optimizer_of)
    assert stock == 1 + 3  # the reason: Keras sums what replicas hand in
    update, optimizer = _two_replicas(_averaged_here, optimizer_of)
    assert update == 1
    inner = getattr(optimizer, "inner_optimizer", optimizer)
    assert "_all_reduce_sum_gradients" not in vars(inner)


def test_gradients_already_averaged__stock_step_afterwards__sums_again():
    def both(optimizer, gradient, variable):
        _averaged_here(optimizer, gradient, variable)
        _stock(optimizer, gradient, variable)

    assert _two_replicas(both)[0] == 1 + (1 + 3)


def test_gradients_already_averaged__error_inside__leaves_no_trace():
    optimizer = keras.optimizers.SGD(1.0)
    with pytest.raises(RuntimeError, match="inside"):
        with _keras_compat.gradients_already_averaged(optimizer):
            raise RuntimeError("inside")
    assert "_all_reduce_sum_gradients" not in vars(optimizer)


@pytest.mark.parametrize("condition", [True, False])
def test_apply_if__no_strategy__applies_or_does_not(condition):
    variable = keras.Variable([0.0])
    optimizer = keras.optimizers.SGD(1.0)
    optimizer.build([variable])

    def apply(gradients):
        optimizer.apply(gradients, [variable])

    @tf.function(autograph=False)
    def step(condition):
        _keras_compat.apply_if(condition, apply, [tf.constant([1.0])])

    step(tf.constant(condition))
    assert float(variable[0]) == (-1.0 if condition else 0.0)
    assert int(optimizer.iterations.numpy()) == int(condition)


@pytest.mark.parametrize("condition", [True, False])
def test_apply_if__two_replicas__applies_on_both_or_neither(condition):
    def apply_if(optimizer, gradient, variable):
        _keras_compat.apply_if(
            tf.constant(condition),
            lambda gradients: optimizer.apply(gradients, [variable]),
            [gradient],
        )

    update, optimizer = _two_replicas(apply_if)
    assert update == (1 + 3 if condition else 0)  # each its own gradient
    assert int(optimizer.iterations.numpy()) == int(condition)


def test_apply_if__two_replicas__stock_cond_can_not_do_it():
    def stock_cond(optimizer, gradient, variable):
        def yes():
            optimizer.apply([gradient], [variable])
            return tf.constant(True)

        tf.cond(tf.constant(True), yes, lambda: tf.constant(False))

    with pytest.raises(RuntimeError, match="merge_call"):
        _two_replicas(stock_cond)


# Variables.


def test_on_this_replica__variable_of_each_replica__is_written_by_rows():
    with problems.mirrored(2):
        strategy = tf.distribute.get_strategy()
        variable = tf.Variable(
            tf.zeros([2, 1]),
            trainable=False,
            synchronization=tf.VariableSynchronization.ON_READ,
            aggregation=tf.VariableAggregation.NONE,
        )

    def write(variable):
        context = tf.distribute.get_replica_context()
        number = tf.cast(context.replica_id_in_sync_group + 1, tf.float32)
        rows = tf.IndexedSlices(tf.reshape(number, [1, 1]), tf.constant([1]))
        variable.scatter_update(rows)

    @tf.function(autograph=False)
    def run(view):
        strategy.run(lambda: write(view(variable)))

    with pytest.raises(NotImplementedError, match="scatter_update"):
        run(lambda variable: variable)
    run(_keras_compat.on_this_replica)
    components = strategy.experimental_local_results(variable)
    assert [c.numpy().ravel().tolist() for c in components] == [[0, 1], [0, 2]]


def test_on_this_replica__plain_variable__is_itself():
    variable = tf.Variable(1.0)
    assert _keras_compat.on_this_replica(variable) is variable


# Several processes. Functions that take a strategy and a folder are scenarios;
# see tests/processes.py.


class Cured(_keras_compat.SeveralProcesses, keras.Model):
    """Stock Keras with its faults cured, and nothing else."""


class WithoutBuild(Cured):
    _maybe_symbolic_build = keras.Model._maybe_symbolic_build


class WithoutLogs(Cured):
    _make_function = keras.Model._make_function


def _names_of_keras():
    """The objects behind all names that a `fit` of Keras goes by."""
    owners = [sys.modules[base.__module__] for base in keras.Model.__mro__[:-1]]
    owners += keras.Model.__mro__[:-1]
    return {
        (str(owner), name): id(value)
        for owner in owners
        for name, value in vars(owner).items()
    }


def _fits(model_class, strategy, **arguments):
    with strategy.scope():
        model = problems.dense_network(model_class)
        model.compile("sgd", problems.cross_entropy(), **arguments)
    data = tf.data.Dataset.from_tensors(problems.vectors(4)).repeat(4)
    data = strategy.distribute_datasets_from_function(lambda context: data)
    return processes.error_of(lambda: model.fit(data, verbose=0))


def cured(strategy, folder):
    before = _names_of_keras()
    errors = [_fits(Cured, strategy, steps_per_execution=n) for n in (1, 2)]
    return errors, before == _names_of_keras()


def without_build(strategy, folder):
    return _fits(WithoutBuild, strategy)


def without_logs(strategy, folder):
    return _fits(WithoutLogs, strategy)


def without_steps(strategy, folder):
    # Hands Keras the iterator as it is.
    stand_in = types.SimpleNamespace(chain=lambda first, iterator: iterator)
    with mock.patch.object(_keras_compat.processes, "itertools", stand_in):
        return _fits(Cured, strategy, steps_per_execution=2)


def several(strategy, folder):
    return _keras_compat.in_several_processes(strategy)


@pytest.fixture(scope="module")
def in_two_processes():
    return processes.run(
        [several, cured, without_build, without_logs, without_steps],
        num_processes=2,
    )


def test_in_several_processes__two_processes_or_one__tells(in_two_processes):
    assert in_two_processes[several] == [True, True]
    for replicas in (1, 2):
        with problems.mirrored(replicas):
            strategy = tf.distribute.get_strategy()
        assert not _keras_compat.in_several_processes(strategy)


def test_several_processes__stock_step__fits_and_leaves_keras_as_it_was(
    in_two_processes,
):
    for errors, unchanged in in_two_processes[cured]:
        assert errors == [(None, "no error")] * 2
        assert unchanged


@pytest.mark.parametrize(
    ("cure", "symptom"),
    [
        (without_build, "PerReplica"),
        (without_logs, "reduction dimension 0"),
        (without_steps, "You must feed a value for placeholder"),
    ],
)
def test_several_processes__without_one_cure__stock_keras_fails(
    in_two_processes, cure, symptom
):
    for kind, text in in_two_processes[cure]:
        assert kind in ("ValueError", "InvalidArgumentError"), text
        assert symptom in text


@pytest.mark.parametrize("replicas", [1, 2])
def test_several_processes__any_strategy__data_are_begun_once(replicas):
    begun = []

    def generator():
        begun.append(kind)
        for _ in range(4):
            yield problems.vectors(4)

    specs = tf.TensorSpec([4, 5]), tf.TensorSpec([4], tf.int64)
    for kind in (Cured, WithoutBuild):
        data = tf.data.Dataset.from_generator(generator, output_signature=specs)
        with problems.mirrored(replicas):
            model = problems.dense_network(kind)
            model.compile("sgd", problems.cross_entropy())
        model.fit(data, steps_per_epoch=4, shuffle=False, verbose=0)
    assert begun.count(Cured) == 1
    # Stock Keras loses what it has read the first time.
    assert begun.count(WithoutBuild) == replicas


def test_several_processes__one_process__changes_nothing():
    x, y = problems.vectors(16)
    runs = [
        problems.trained(problems.dense_network(kind), x, y)
        for kind in (keras.Model, Cured)
    ]
    (stock, stock_history), (ours, our_history) = runs
    for a, b in zip(stock.get_weights(), ours.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    assert stock_history == our_history


# What `fit` trains on.


def test_training_data__arrays__are_one_structure_of_tensors():
    x, y = problems.vectors(10)
    arguments = {"x": {"a": x}, "y": y, "batch_size": 4, "class_weight": {0: 3}}
    adapter, (inputs, labels, weights) = _keras_compat.training_data(arguments)
    assert (adapter.num_batches, adapter.batch_size) == (3, 4)
    np.testing.assert_array_equal(inputs["a"], x)
    np.testing.assert_array_equal(labels, y)
    np.testing.assert_array_equal(weights, np.where(y == 0, 3, 1))


def test_training_data__validation_split__is_carried_out():
    x, y = problems.vectors(10)
    arguments = {"x": x, "y": y, "validation_split": 0.2}
    _, (inputs, _) = _keras_compat.training_data(arguments)
    assert len(inputs) == 8
    assert "validation_split" not in arguments
    np.testing.assert_array_equal(arguments["validation_data"][0], x[8:])


@pytest.mark.parametrize("kind", ["dataset", "generator", "sparse"])
def test_training_data__no_plain_arrays__are_a_data_set(kind):
    x, y = problems.vectors(8)
    data = {
        "dataset": {"x": tf.data.Dataset.from_tensors((x, y))},
        "generator": {"x": (b for b in [(x, y)]), "shuffle": False},
        "sparse": {"x": tf.sparse.from_dense(x), "y": y, "shuffle": False},
    }[kind]
    adapter, arrays = _keras_compat.training_data(data)
    assert arrays is None
    ((_, labels),) = list(adapter.get_tf_dataset())
    np.testing.assert_array_equal(labels, y)


def test_prepared_data__with_an_adapter__knows_the_number_of_batches():
    data = tf.data.Dataset.from_tensors(problems.vectors(4)).repeat(3)
    adapter, _ = _keras_compat.training_data({"x": data})
    # The public way: a distributed data set, of which Keras learns nothing.
    strategy = tf.distribute.get_strategy()
    dealt = strategy.distribute_datasets_from_function(lambda context: data)
    prepared = _keras_compat.PreparedData(adapter, dealt)
    assert prepared.get_tf_dataset() is dealt
    assert prepared.num_batches == 3
    assert _keras_compat.PreparedData(None, dealt).num_batches is None


def test_prepared_data__an_epoch__reaches_a_py_dataset():
    class Recorder(keras.utils.PyDataset):
        epochs = 0

        def __len__(self):
            return 1

        def __getitem__(self, index):
            return problems.vectors(4)

        def on_epoch_end(self):
            self.epochs += 1

    data = Recorder()
    adapter, _ = _keras_compat.training_data({"x": data, "shuffle": False})
    prepared = _keras_compat.PreparedData(adapter, adapter.get_tf_dataset())
    model = problems.dense_network(keras.Model)
    model.compile("sgd", problems.cross_entropy())
    model.fit(data, epochs=2, verbose=0, shuffle=False)
    by_keras = data.epochs
    model.fit(prepared, epochs=2, verbose=0)
    assert data.epochs == 2 * by_keras > 0


def test_set_initial_epoch__from_a_callback__is_where_fit_begins():
    class Late(keras.callbacks.Callback):
        epochs = []

        def on_train_begin(self, logs=None):
            _keras_compat.set_initial_epoch(self.model, 2)

        def on_epoch_begin(self, epoch, logs=None):
            self.epochs.append(epoch)

    model = problems.dense_network(keras.Model)
    model.compile("sgd", problems.cross_entropy())
    model.fit(*problems.vectors(4), epochs=4, verbose=0, callbacks=[Late()])
    assert Late.epochs == [2, 3]
    _keras_compat.set_initial_epoch(model, None)
    model.fit(*problems.vectors(4), epochs=1, verbose=0)
    assert model.history.epoch == [0]
