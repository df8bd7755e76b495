"""M workers are one run, wherever they are: in several processes too.

Functions that take a strategy and a folder are scenarios; see
tests/processes.py.
"""

import random

import keras
import numpy as np
import pytest
import tensorflow as tf

import tf_gnc
from tests import problems, processes
from tf_gnc import _keras_compat
from tf_gnc.distribute import process_index, sharding
from tf_gnc.step.control import control_of

M = 8  # 12 where three processes share them
RULES = {
    "none": lambda: None,
    "gnc": lambda: tf_gnc.GradientNoise(alpha=1.0),
    "rnc": lambda: tf_gnc.RandomNoise(alpha=0.5, seed=3),
}


def _compiled(
    strategy, rule="gnc", network=problems.quick_network, **arguments
):
    with strategy.scope():
        model = network()
        arguments = {
            "optimizer": problems.sgd(),
            "loss": problems.cross_entropy(),
            "noise": RULES[rule](),
            "num_workers": M,
            **arguments,
        }
        model.compile(**arguments)
    return model


def _all(model):
    return [*model.variables, *model.optimizer.variables]


def _states(model):
    return [v.numpy() for v in _all(model)]


class Recorder(keras.callbacks.Callback):
    """The states before each call, and the logs after it."""

    def on_train_begin(self, logs=None):
        self.states, self.logs = [], []

    def on_train_batch_begin(self, batch, logs=None):
        self.states.append(_states(self.model))

    def on_train_batch_end(self, batch, logs=None):
        self.logs.append(dict(logs))


def _vectors(num_steps):
    return problems.vectors(16 * num_steps)


# One run.


def _run(strategy, rule, **arguments):
    """Four steps of 32 rows."""
    model = _compiled(strategy, rule, metrics=["accuracy"])
    arguments = {"epochs": 2, "shuffle": False, "verbose": 0, **arguments}
    x, y = problems.vectors(64)
    history = model.fit(x, y, batch_size=32, **arguments).history
    return {
        "states": _states(model),
        "weights": problems.float_weights(model),
        "history": history,
    }


def none(strategy, folder):
    return _run(strategy, "none")


def switch(strategy, folder):
    """From GNC to RNC, and validation rows that nothing divides."""
    return _run(
        strategy,
        "gnc",
        epochs=4,
        callbacks=[tf_gnc.callbacks.SwitchNoise(2, RULES["rnc"]())],
        validation_data=problems.vectors(23, seed=1),
        validation_batch_size=8,
    )


FAMILY = {
    "sam": lambda: tf_gnc.SharpnessAware(0.3, "all", every=2),
    "worker_sam": lambda: tf_gnc.SharpnessAware(0.3),
    "gnc_current": lambda: tf_gnc.GradientNoise(1.0, current=True),
    "momentum_sam": lambda: tf_gnc.MomentumNoise(0.3),
    "relative": lambda: tf_gnc.GradientNoise(relative=0.05),
    "kernels": lambda: tf_gnc.SharpnessAware(0.3, 2, include="kernel"),
}


def family(strategy, folder):
    """Four steps of each kind of rule: groups above a process, two passes.

    And batch normalization's statistics estimated anew at the end.

    In float64: two rows a worker are next to nothing for batch normalization
    to divide by, and it makes 1e-5 of float32's roundings in a few steps.
    """
    found = {}
    keras.config.set_dtype_policy("float64")
    for name, make in FAMILY.items():
        with strategy.scope():
            optimizer = tf_gnc.optimizers.MomentumSGD(0.1, 0.9)
        model = _compiled(
            strategy,
            network=problems.dense_network,
            noise=make(),
            optimizer=optimizer,
            loss=keras.losses.SparseCategoricalCrossentropy(
                from_logits=True, dtype="float64"
            ),
        )
        x, y = problems.vectors(64)
        model.fit(x, y, batch_size=16, shuffle=False, verbose=0)
        tf_gnc.recalibrate_batch_norm(model, [x[:24], x[24:]])
        found[name] = problems.float_weights(model)
    keras.config.set_dtype_policy("float32")
    return found


def shuffled(strategy, folder):
    model = _compiled(strategy, network=problems.dense_network, num_workers=12)
    recorder = Recorder()
    random.seed(process_index(strategy))  # The first process's counts.
    model.fit(
        *problems.vectors(96),
        batch_size=24,
        epochs=2,
        verbose=0,
        callbacks=[recorder],
    )
    return {
        "states": _states(model),
        "weights": problems.float_weights(model),
        "logs": recorder.logs,
    }


# One collective.


class Stock(_keras_compat.SeveralProcesses, keras.Model):
    """Stock Keras's step, in a `fit` that works."""


OPTIMIZERS = {
    "sgd": keras.optimizers.SGD,
    "adam": keras.optimizers.Adam,
    "adamw": keras.optimizers.AdamW,
    "momentum_sgd": tf_gnc.optimizers.MomentumSGD,
}


def _reductions(graph):
    """Elements of each all-reduce of a graph and the functions in it."""
    found = [
        op.inputs[0].shape.num_elements()
        for op in graph.get_operations()
        if op.type.startswith("Collective") and "Reduce" in op.type
    ]
    for function in graph._functions.values():
        found += _reductions(function.graph)
    return found


def _train_graph(model, strategy):
    """The graph of what `fit` calls for each step."""
    batch = problems.vectors(16)
    data = tf.data.Dataset.from_tensors(batch).repeat()
    with strategy.scope():
        _keras_compat.build(model, batch)
    model.make_train_function()  # Makes the plan.
    function = model._make_function(model.train_step)
    (steps,) = (
        cell.cell_contents
        for name, cell in zip(
            function.__code__.co_freevars, function.__closure__, strict=True
        )
        if name == "multi_step_on_iterator"
    )
    iterator = iter(sharding.keep_own_rows(data, strategy))
    return steps.get_concrete_function(iterator).graph


def reductions(strategy, folder):
    """What is reduced with each optimizer, while probing and by Keras."""
    found = {}
    for name, optimizer in {**OPTIMIZERS, "probing": OPTIMIZERS["sgd"]}.items():
        with strategy.scope():
            optimizer = optimizer(0.1)
        model = _compiled(
            strategy,
            network=problems.dense_network,
            optimizer=optimizer,
            metrics=["accuracy"],
        )
        control_of(model).keeps_table = name == "probing"
        found[name] = _reductions(_train_graph(model, strategy))
    with strategy.scope():
        stock = problems.dense_network(Stock)
        stock.compile(problems.sgd(), problems.cross_entropy())
    found["stock"] = _reductions(_train_graph(stock, strategy))
    trainable = sum(v.numpy().size for v in stock.trainable_variables)
    return found, trainable, stock.count_params() - trainable


# What must not differ between processes.


BAD_WORKER = 5  # of 8: the first of two processes has 0 to 3
BAD_ROW = 16 * 1 + 2 * BAD_WORKER  # in step 1 of 4


def _nan(strategy, **arguments):
    """NaN in step 1 of 4, and the model's states around it."""
    model = _compiled(strategy, network=problems.dense_network, **arguments)
    recorder = Recorder()
    x, y = _vectors(4)
    x[BAD_ROW] = np.nan
    arguments = {"batch_size": 16, "shuffle": False, "verbose": 0}
    error = processes.error_of(
        lambda: model.fit(x, y, callbacks=[recorder], **arguments)
    )
    after = _states(model)
    model.fit(*_vectors(4), **arguments)
    return {
        "error": error,
        "before": recorder.states,
        "after": after,
        "later": _states(model),
        "weights": problems.float_weights(model),
    }


def nan(strategy, folder):
    return _nan(strategy)


def nan_two_steps_a_call(strategy, folder):
    return _nan(strategy, steps_per_execution=2)


def nan_eager(strategy, folder):
    return _nan(strategy, run_eagerly=True)


def overflow(strategy, folder):
    """In step 1 of 4: float16 has no such number."""
    keras.config.set_dtype_policy("mixed_float16")
    with strategy.scope():
        optimizer = keras.optimizers.LossScaleOptimizer(
            problems.sgd(), initial_scale=64.0
        )
    model = _compiled(
        strategy, network=problems.dense_network, optimizer=optimizer
    )
    recorder = Recorder()
    x, y = _vectors(4)
    weight = np.ones(len(x), "float32")
    weight[BAD_ROW] = 1e6
    model.fit(
        x,
        y,
        sample_weight=weight,
        batch_size=16,
        shuffle=False,
        verbose=0,
        callbacks=[recorder],
    )
    trained = [*model.trainable_variables, *optimizer.inner_optimizer.variables]
    return {
        "trained": [v.path in {w.path for w in trained} for v in _all(model)],
        "scale": float(optimizer.dynamic_scale.numpy()),
        "states": [*recorder.states, _states(model)],
    }


def early_stopping(strategy, folder):
    """The loss rises sooner or later, by a rate that is far too high."""
    with strategy.scope():
        optimizer = keras.optimizers.SGD(1.0)
    model = _compiled(
        strategy, network=problems.dense_network, optimizer=optimizer
    )
    recorder = Recorder()
    stop = keras.callbacks.EarlyStopping("val_loss", restore_best_weights=True)
    history = model.fit(
        *_vectors(2),
        batch_size=16,
        epochs=30,
        validation_data=problems.vectors(7, seed=1),
        verbose=0,
        callbacks=[recorder, stop],
    ).history
    return history, recorder.logs, _states(model)


SCENARIOS = [
    none,
    switch,
    family,
    shuffled,
    reductions,
    nan,
    nan_two_steps_a_call,
    nan_eager,
    overflow,
    early_stopping,
]


def _alone(scenario):
    """What a scenario gives in this process, without a strategy."""
    keras.utils.set_random_seed(1)
    return scenario(tf.distribute.get_strategy(), None)


def _assert_one_run(first, *others):
    """Bit for bit."""
    for other in others:
        for a, b in zip(first, other, strict=True):
            np.testing.assert_array_equal(a, b)


def _in_one(scenario, replicas):
    with problems.mirrored(replicas):
        strategy = tf.distribute.get_strategy()
    keras.utils.set_random_seed(1)
    return scenario(strategy, None)


def _assert_near(results, expected):
    for result in results:
        difference = problems.largest_difference(
            expected["weights"], result["weights"]
        )
        assert difference < 1e-5
        assert set(result["history"]) == set(expected["history"])
        for name, values in result["history"].items():
            np.testing.assert_allclose(
                values, expected["history"][name], rtol=1e-4, err_msg=name
            )


@pytest.fixture(scope="module")
def alone():
    """What some scenarios give here, without a strategy."""
    return {scenario: _alone(scenario) for scenario in (none, switch, nan)}


# One run with GNC, RNC after it, dropout, penalty and validation does for all:
# where the workers are isn't asked for by any of them.


@pytest.mark.parametrize("scenario", [none, switch])
def test_fit__two_processes__are_one_run(two_processes, alone, scenario):
    first, second = two_processes[scenario]
    _assert_one_run(first["states"], second["states"])
    assert first["history"] == second["history"]
    _assert_near([first], alone[scenario])


def test_family__two_processes__are_one_run(two_processes):
    first, second = two_processes[family]
    expected = _alone(family)
    for name in FAMILY:
        _assert_one_run(first[name], second[name])
        assert problems.largest_difference(expected[name], first[name]) < 1e-10


def test_fit__two_processes_of_two_replicas__are_one_run(two_times_two, alone):
    first, second = two_times_two[switch]
    _assert_one_run(first["states"], second["states"])
    assert first["history"] == second["history"]
    _assert_near([first], alone[switch])


@pytest.mark.parametrize("replicas", [2, 4])
def test_fit__mirrored_replicas_and_a_switch__are_one_run(replicas, alone):
    _assert_near([_in_one(switch, replicas)], alone[switch])


def test_fit__one_device_strategy__is_no_strategy(alone):
    strategy = tf.distribute.OneDeviceStrategy("CPU:0")
    keras.utils.set_random_seed(1)
    states = switch(strategy, None)["states"]
    _assert_one_run(alone[switch]["states"], states)


def test_fit__shuffled_arrays__one_order_wherever_the_workers_are(
    two_processes, two_times_two, in_three_processes
):
    runs = [
        result
        for results in (two_processes, two_times_two, in_three_processes)
        for result in results[shuffled]
    ]
    assert len(runs) == 2 + 2 + 3
    for run in runs[1:]:
        difference = problems.largest_difference(
            runs[0]["weights"], run["weights"]
        )
        assert difference < 1e-5
    _assert_one_run(*(run["states"] for run in runs[-3:]))
    # The order isn't that of the arrays.
    model = _compiled(
        tf.distribute.get_strategy(),
        network=problems.dense_network,
        num_workers=12,
    )
    x, y = problems.vectors(96)
    model.fit(x, y, batch_size=24, epochs=2, shuffle=False, verbose=0)
    unshuffled = problems.float_weights(model)
    assert problems.largest_difference(runs[0]["weights"], unshuffled) > 1e-3


def test_train_function__any_optimizer__one_large_all_reduce_and_one_small(
    two_processes,
):
    for found, num_trainable, num_statistics in two_processes[reductions]:
        # Stock Keras: the gradients, and the loss alone in its logs.
        assert found["stock"] == [num_trainable, 1]
        # Ours: moving statistics and four signals travel with them; the logs
        # are loss and accuracy.
        expected = [num_trainable + num_statistics + 4, 2]
        assert {name: found[name] for name in OPTIMIZERS} == dict.fromkeys(
            OPTIMIZERS, expected
        )


def test_train_function__probing__still_one_large_all_reduce(two_processes):
    for found, _, _ in two_processes[reductions]:
        large, logs = found["sgd"]
        # A column of four for each of the workers travels along, and how far
        # each of the five variables is displaced.
        assert found["probing"] == [large + 4 * M + 5, logs]


@pytest.mark.parametrize(
    ("scenario", "calls"),
    [(nan, 2), (nan_two_steps_a_call, 1), (nan_eager, 2)],
)
def test_fit__nan_in_one_process__stops_all_before_the_step(
    two_processes, alone, scenario, calls
):
    first, second = two_processes[scenario]
    for result in (first, second):
        kind, text = result["error"]
        assert kind == "FloatingPointError"
        assert f"worker {BAD_WORKER} (of 8" in text
        assert "in step 1." in text
        assert len(result["before"]) == calls
        # Those before step 1, as in the run that looks at each step.
        looks = result if calls == 2 else two_processes[nan][0]
        expected = looks["before"][1]
        _assert_one_run(expected, result["after"])
        # They can go on.
        assert all(np.isfinite(v).all() for v in result["later"])
    _assert_one_run(first["later"], second["later"])
    # As a run in one process does.
    difference = problems.largest_difference(
        alone[nan]["weights"], first["weights"]
    )
    assert difference < 1e-5


def test_fit__overflow_in_one_process__both_skip_the_step(two_processes):
    first, second = two_processes[overflow]
    for a, b in zip(first["states"], second["states"], strict=True):
        _assert_one_run(a, b)
    assert first["scale"] == 32.0  # halved once

    def changed(step):
        return [
            not np.array_equal(before, after)
            for before, after, trained in zip(
                first["states"][step],
                first["states"][step + 1],
                first["trained"],
                strict=True,
            )
            if trained
        ]

    assert not any(changed(1))
    assert any(changed(0)) and any(changed(2)) and any(changed(3))


def test_early_stopping__two_processes__stop_at_the_same_epoch(two_processes):
    (history, logs, states), other = two_processes[early_stopping]
    assert 1 < len(history["loss"]) < 30
    assert history == other[0]
    assert logs == other[1]
    _assert_one_run(states, other[2])
