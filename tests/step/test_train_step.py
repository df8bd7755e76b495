"""The step against Algorithm 1 in NumPy, and against its limits."""

import functools
import re

import keras
import numpy as np
import pytest
import tensorflow as tf

import tf_gnc
from tests import oracles, problems
from tf_gnc.step.control import control_of

M, B, STEPS = 4, 16, 10


def _batches():
    x, y = problems.images(B * STEPS)
    return x, y, [(x[i : i + B], y[i : i + B]) for i in range(0, len(x), B)]


def _ten_steps(rule, *, optimizer=None, replicas=1):
    """Weights before and after ten steps, and the memory if there is one."""
    x, y, batches = _batches()
    with problems.mirrored(replicas):
        model = problems.plain_network()
        start = [w.copy() for w in model.get_weights()]
        problems.trained(
            model,
            x,
            y,
            epochs=1,
            batch_size=B,
            optimizer=optimizer or keras.optimizers.SGD(0.5),
            noise=rule,
            num_workers=M,
        )
    memory = problems.memory(model) if model.step_plan.memory else None
    return start, model.get_weights(), memory, batches


@functools.cache
def _ten_of_eq6(replicas):
    return _ten_steps(tf_gnc.GradientNoise(alpha=1.0), replicas=replicas)


@functools.cache
def _without_noise():
    """The weights that ten steps of the oracle lead to."""
    start, _, _, batches = _ten_of_eq6(1)
    return oracles.train(start, batches, M, lambda step: 0.5)[0]


def _cube(seed):
    """RandomNoise's published contract: the key is (seed, step, worker)."""
    shapes = [w.shape for w in problems.plain_network().get_weights()]
    sizes = [int(np.prod(shape)) for shape in shapes]

    def draw(step, worker):
        flat = tf.random.stateless_uniform(
            [sum(sizes)],
            tf.constant([seed * 2**32 + worker, step], tf.int64),
            -0.5,
            0.5,
            alg="philox",
        ).numpy()
        parts = np.split(flat.astype("float64"), np.cumsum(sizes)[:-1])
        return [p.reshape(s) for p, s in zip(parts, shapes, strict=True)]

    return draw


# alpha is as large as it can be: the noise must move the weights by far more
# than the tolerance, but noise feeds on noise, so that with a few times more
# rounding errors grow from step to step, in float64 too.
RULES = {
    "eq6": ({"alpha": 1.0}, {}),
    "eq3": ({"alpha": 1.0, "scaling": "none"}, {}),
    "without_vectors": ({"alpha": 1.0, "include_vectors": False}, {}),
    "bounded": ({"alpha": 5.0, "max_displacement": 0.1}, {"bound": 0.1}),
}


@pytest.mark.parametrize("name", RULES)
def test_gradient_noise__ten_steps__agree_with_algorithm_1(name):
    arguments, oracle_only = RULES[name]
    if name == "eq6":
        start, found, _, batches = _ten_of_eq6(1)
    else:
        rule = tf_gnc.GradientNoise(**arguments)
        start, found, _, batches = _ten_steps(rule)
    shared = {k: v for k, v in arguments.items() if k != "max_displacement"}
    expected, _ = oracles.train(
        start, batches, M, lambda step: 0.5, **shared, **oracle_only
    )
    assert problems.largest_difference(expected, found) < 1e-5
    assert problems.largest_difference(_without_noise(), found) > 1e-3


@pytest.mark.parametrize("scaling", ["filter", "none"])
def test_random_noise__ten_steps__agree_with_eq_5(scaling):
    rule = tf_gnc.RandomNoise(alpha=0.5, scaling=scaling, seed=7)
    start, found, _, batches = _ten_steps(rule)
    expected, _ = oracles.train(
        start,
        batches,
        M,
        lambda step: 0.5,
        alpha=0.5,
        method="rnc",
        scaling=scaling,
        draw=_cube(7),
    )
    assert problems.largest_difference(expected, found) < 1e-5
    assert problems.largest_difference(_without_noise(), found) > 1e-4


def test_gradient_noise__schedule_momentum_and_decay__agree_with_algorithm_1():
    boundaries = keras.optimizers.schedules.PiecewiseConstantDecay(
        [3], [0.5, 0.05]
    )
    optimizer = tf_gnc.optimizers.MomentumSGD(
        boundaries, momentum=0.9, weight_decay=0.01
    )
    start, found, _, batches = _ten_steps(
        tf_gnc.GradientNoise(alpha=1.0), optimizer=optimizer
    )
    expected, _ = oracles.train(
        start,
        batches,
        M,
        lambda step: 0.5 if step <= 3 else 0.05,  # Keras: boundary included
        alpha=1.0,
        momentum=0.9,
        decay=0.01,
    )
    assert problems.largest_difference(expected, found) < 1e-5


@functools.cache
def _eleventh_noise():
    """The oracle's, by worker."""
    start, _, _, batches = _ten_of_eq6(1)
    _, history = oracles.train(
        start, [*batches, batches[0]], M, lambda step: 0.5, alpha=1.0
    )
    return history[-1]


@pytest.mark.parametrize("replicas", [1, 2, 4])
def test_memory__after_ten_steps__is_each_workers_gradient_and_sums_to_zero(
    replicas,
):
    _, _, (rows, mean), _ = _ten_of_eq6(replicas)
    for worker, noise in enumerate(_eleventh_noise()):
        expected = np.concatenate([w.reshape(-1) for w in noise])
        np.testing.assert_allclose(rows[worker] - mean, expected, atol=2e-6)
    assert np.abs(rows).max() > 1e-3
    # M + 1 roundings of numbers as large as the largest gradient.
    rounding = (M + 1) * np.finfo("float32").eps * np.abs(rows).max()
    assert np.abs((rows - mean).sum(axis=0)).max() <= M * rounding


# The limits.


@pytest.fixture
def as_written():
    """Steps without TensorFlow's rewriting of arithmetic.

    It sums and folds in another order in every graph and on every number of
    cores, so two graphs of the same arithmetic differ in the last bit.
    """
    before = tf.config.optimizer.get_experimental_options()
    off = dict.fromkeys(("arithmetic_optimization", "constant_folding"), False)
    tf.config.optimizer.set_experimental_options(off)
    yield
    tf.config.optimizer.set_experimental_options(
        {**dict.fromkeys(off, True), **before}
    )


@pytest.mark.parametrize(
    ("policy", "network"),
    [
        ("float32", problems.full_network),
        ("mixed_bfloat16", problems.full_network),
        ("mixed_float16", problems.full_network),
        # Stock Keras can't add a float64 penalty to its float32 loss.
        ("float64", problems.plain_network),
    ],
)
def test_train_step__no_noise_one_worker__is_stock_keras_to_the_bit(
    as_written, policy, network
):
    keras.config.set_dtype_policy(policy)
    x, y = problems.images(48)
    weight = np.linspace(0.1, 2, 48).astype("float32")
    models = [network(keras.Model), network(), network()]
    # A table keeps the step from being handed to Keras.
    control_of(models[2]).keeps_table = True
    (stock, stock_history), *runs = (
        problems.trained(
            model,
            x,
            y,
            metrics=["accuracy"],
            weighted_metrics=["accuracy"],
            fit={"sample_weight": weight},
            **({"num_workers": 1} if model is not models[0] else {}),
        )
        for model in models
    )
    for ours, our_history in runs:
        for a, b in zip(stock.variables, ours.variables, strict=True):
            np.testing.assert_array_equal(a.numpy(), b.numpy(), err_msg=a.path)
        assert stock_history == our_history


def test_train_step__alpha_zero__is_no_noise(as_written):
    x, y = problems.images()
    rules = (None, tf_gnc.GradientNoise(0.0), tf_gnc.RandomNoise(0.0))
    none, *others = (
        problems.float_weights(
            problems.trained(
                problems.full_network(), x, y, noise=rule, num_workers=4
            )[0]
        )
        for rule in rules
    )
    for rule, weights in zip(rules[1:], others, strict=True):
        for a, b in zip(none, weights, strict=True):
            np.testing.assert_array_equal(a, b, err_msg=repr(rule))


def test_train_step__workers_see_the_same_rows__gradient_noise_is_no_noise():
    x, y = problems.images(4)
    x, y = np.tile(x, (4, 1, 1, 1)), np.tile(y, 4)  # 4 workers, 4 rows each
    runs = [
        problems.trained(
            problems.full_network(dropout=0.0),
            x,
            y,
            epochs=12,
            noise=noise,
            num_workers=4,
        )[0]
        for noise in (None, tf_gnc.GradientNoise(alpha=5.0))
    ]
    first, second = (problems.float_weights(model) for model in runs)
    assert problems.largest_difference(first, second) < 1e-6


# Each number once; test_step_table.py holds every rule, and none, against the
# oracle on two replicas.
@pytest.mark.parametrize(
    ("rule", "numbers"),
    [
        (tf_gnc.RandomNoise(alpha=0.5, seed=3), [1, 2]),
        (tf_gnc.GradientNoise(alpha=1.0), [1, 4]),
    ],
    ids=["rnc", "gnc"],
)
def test_train_step__one_two_four_replicas__are_one_run_with_one_table(
    rule, numbers
):
    x, y = problems.images(64)
    results = []
    for replicas in numbers:
        with problems.mirrored(replicas):
            model = problems.full_network()
            control_of(model).keeps_table = True
            _, history = problems.trained(
                model,
                x,
                y,
                batch_size=32,
                epochs=6,  # 12 steps
                metrics=["accuracy"],
                noise=rule,
                num_workers=8,
            )
        table = model.step_plan.table.read(model.distribute_strategy)
        results.append((problems.float_weights(model), history, vars(table)))
    (weights, history, table), (others, other_history, other_table) = results
    assert problems.largest_difference(weights, others) < 1e-5
    for name, values in other_history.items():
        np.testing.assert_allclose(
            values, history[name], rtol=1e-4, err_msg=name
        )
    assert len(other_table.pop("paths")) == len(table.pop("paths")) == 5
    for name, values in other_table.items():
        np.testing.assert_allclose(
            values, table[name], rtol=1e-5, atol=1e-9, err_msg=name
        )


def _compiled_step(dropout):
    """A model, eight workers' batch and its step as one XLA program."""
    model = problems.dense_network(dropout=dropout)
    model.compile(
        problems.sgd(),
        problems.cross_entropy(),
        metrics=["accuracy"],
        noise=tf_gnc.GradientNoise(alpha=1.0),
        num_workers=8,
    )
    assert model.step_plan.num_workers == 8
    step = tf.function(model.train_step, jit_compile=True, autograph=False)
    return model, tuple(map(tf.constant, problems.vectors(32))), step


def _operations(graph):
    """Types of all operations of a graph and the functions in it."""
    found = {op.type for op in graph.get_operations()}
    for function in graph._functions.values():
        found |= _operations(function.graph)
    return found


def test_train_step__as_one_xla_program__nothing_on_the_host():
    _, batch, step = _compiled_step(dropout=0.3)
    operations = _operations(step.get_concrete_function(batch).graph)
    assert operations & {"While", "StatelessWhile"}  # the search reaches far
    on_the_host = re.compile("PyFunc|Print|Host|Infeed|Outfeed|Assert")
    assert not list(filter(on_the_host.search, operations))
    for stage in ("hlo", "optimized_hlo"):
        hlo = step.experimental_get_compiler_ir(batch)(stage=stage)
        assert "while(" in hlo
        host = r"\b(infeed|outfeed|send|recv|custom-call)\("
        assert not re.findall(host, hlo)


def test_train_step__as_one_xla_program__same_numbers():
    weights = []
    for jit_compile in (False, True):
        model, batch, step = _compiled_step(0.0)
        step = step if jit_compile else tf.function(model.train_step)
        for _ in range(4):
            step(batch)
        weights.append(problems.float_weights(model))
    assert problems.largest_difference(*weights) < 1e-5


def test_train_step__more_workers__graph_does_not_grow():
    def num_nodes(num_workers):
        model = problems.full_network()
        model.compile(
            problems.sgd(),
            problems.cross_entropy(),
            noise=tf_gnc.GradientNoise(alpha=0.1),
            num_workers=num_workers,
        )
        x, y = problems.images(64)
        model._make_plan()
        concrete = tf.function(model.train_step).get_concrete_function(
            (tf.constant(x), tf.constant(y))
        )
        graph_def = concrete.graph.as_graph_def()
        functions = sum(len(f.node_def) for f in graph_def.library.function)
        return len(graph_def.node) + functions

    assert num_nodes(64) == num_nodes(4)
