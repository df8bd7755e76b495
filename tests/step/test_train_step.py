"""The step against Algorithm 1 in NumPy, and against its limits."""

import re

import keras
import numpy as np
import pytest
import tensorflow as tf

import tf_gnc
from tests import oracles, problems

M, B, STEPS = 4, 16, 10


def _batches():
    x, y = problems.images(B * STEPS)
    return x, y, [(x[i : i + B], y[i : i + B]) for i in range(0, len(x), B)]


def _ten_steps(rule, *, rate=0.5, optimizer=None, replicas=1):
    """Weights before and after ten steps, and the model."""
    x, y, batches = _batches()
    with problems.mirrored(replicas):
        model = problems.plain_network()
        start = [w.copy() for w in model.get_weights()]
        optimizer = optimizer or keras.optimizers.SGD(rate)
        problems.trained(
            model,
            x,
            y,
            epochs=1,
            batch_size=B,
            optimizer=optimizer,
            noise=rule,
            num_workers=M,
        )
    return start, model, batches


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
    start, model, batches = _ten_steps(tf_gnc.GradientNoise(**arguments))
    shared = {k: v for k, v in arguments.items() if k != "max_displacement"}
    expected, _ = oracles.train(
        start, batches, M, lambda step: 0.5, **shared, **oracle_only
    )
    without, _ = oracles.train(start, batches, M, lambda step: 0.5)
    assert problems.largest_difference(expected, model.get_weights()) < 1e-5
    assert problems.largest_difference(without, model.get_weights()) > 1e-3


@pytest.mark.parametrize("scaling", ["filter", "none"])
def test_random_noise__ten_steps__agree_with_eq_5(scaling):
    rule = tf_gnc.RandomNoise(alpha=0.5, scaling=scaling, seed=7)
    start, model, batches = _ten_steps(rule)
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
    without, _ = oracles.train(start, batches, M, lambda step: 0.5)
    assert problems.largest_difference(expected, model.get_weights()) < 1e-5
    assert problems.largest_difference(without, model.get_weights()) > 1e-4


def test_gradient_noise__schedule_momentum_and_decay__agree_with_algorithm_1():
    boundaries = keras.optimizers.schedules.PiecewiseConstantDecay(
        [3], [0.5, 0.05]
    )
    optimizer = tf_gnc.optimizers.MomentumSGD(
        boundaries, momentum=0.9, weight_decay=0.01
    )
    start, model, batches = _ten_steps(
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
    assert problems.largest_difference(expected, model.get_weights()) < 1e-5


@pytest.mark.parametrize("replicas", [1, 2])
def test_memory__after_ten_steps__is_each_workers_gradient(replicas):
    rule = tf_gnc.GradientNoise(alpha=1.0)
    start, model, batches = _ten_steps(rule, replicas=replicas)
    # The oracle's eleventh step would use this noise.
    _, history = oracles.train(
        start, [*batches, batches[0]], M, lambda step: 0.5, alpha=1.0
    )
    rows, mean = problems.memory(model)
    for worker, noise in enumerate(history[-1]):
        expected = np.concatenate([w.reshape(-1) for w in noise])
        np.testing.assert_allclose(rows[worker] - mean, expected, atol=2e-6)


@pytest.mark.parametrize("replicas", [1, 2, 4])
def test_noise__over_workers__sums_to_zero(replicas):
    _, model, _ = _ten_steps(tf_gnc.GradientNoise(1.0), replicas=replicas)
    rows, mean = problems.memory(model)
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
    runs = [
        problems.trained(
            network(model_class),
            x,
            y,
            metrics=["accuracy"],
            weighted_metrics=["accuracy"],
            fit={"sample_weight": weight},
            **arguments,
        )
        for model_class, arguments in (
            (keras.Model, {}),
            (tf_gnc.GNCModel, {"noise": None, "num_workers": 1}),
        )
    ]
    (stock, stock_history), (ours, our_history) = runs
    for a, b in zip(stock.variables, ours.variables, strict=True):
        np.testing.assert_array_equal(a.numpy(), b.numpy(), err_msg=a.path)
    assert stock_history == our_history


@pytest.mark.parametrize("rule", [tf_gnc.GradientNoise, tf_gnc.RandomNoise])
def test_train_step__alpha_zero__is_no_noise(as_written, rule):
    x, y = problems.images()
    runs = [
        problems.trained(problems.full_network(), x, y, noise=n, num_workers=4)
        for n in (None, rule(alpha=0.0))
    ]
    weights = [problems.float_weights(model) for model, _ in runs]
    for a, b in zip(*weights, strict=True):
        np.testing.assert_array_equal(a, b)


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


@pytest.mark.parametrize("method", ["none", "gnc", "rnc"])
def test_train_step__one_two_four_replicas__are_one_run(method):
    rule = {
        "none": None,
        "gnc": tf_gnc.GradientNoise(alpha=1.0),
        "rnc": tf_gnc.RandomNoise(alpha=0.5, seed=3),
    }[method]
    x, y = problems.images(64)
    results = []
    for replicas in (1, 2, 4):
        with problems.mirrored(replicas):
            model, history = problems.trained(
                problems.full_network(),
                x,
                y,
                batch_size=32,
                epochs=6,  # 12 steps
                metrics=["accuracy"],
                noise=rule,
                num_workers=8,
            )
        results.append((problems.float_weights(model), history))
    for weights, history in results[1:]:
        assert problems.largest_difference(results[0][0], weights) < 1e-5
        for name, values in history.items():
            np.testing.assert_allclose(
                values, results[0][1][name], rtol=1e-4, err_msg=name
            )


def test_train_step__eager_or_many_steps_a_call__same_run():
    x, y = problems.images(64)

    def run(**arguments):
        model, _ = problems.trained(
            problems.full_network(),
            x,
            y,
            noise=tf_gnc.GradientNoise(alpha=1.0),
            num_workers=4,
            **arguments,
        )
        return problems.float_weights(model)

    expected = run()
    assert problems.largest_difference(expected, run(run_eagerly=True)) < 1e-6
    for a, b in zip(expected, run(steps_per_execution=4), strict=True):
        np.testing.assert_array_equal(a, b)


def test_train_step__compiled_by_xla__same_run():
    # Without convolutions, which XLA runs very slowly in a loop on a CPU, and
    # without Dropout, for which XLA draws other numbers.
    rng = np.random.default_rng(0)
    x = rng.normal(size=(64, 5)).astype("float32")
    y = rng.integers(0, 3, 64)

    def run(jit_compile):
        keras.utils.set_random_seed(1)
        inputs = keras.Input((5,))
        h = keras.layers.Dense(8, activation="tanh")(inputs)
        h = keras.layers.BatchNormalization()(h)
        model = tf_gnc.GNCModel(inputs, keras.layers.Dense(3)(h))
        problems.trained(
            model,
            x,
            y,
            metrics=["accuracy"],
            noise=tf_gnc.GradientNoise(alpha=1.0),
            num_workers=4,
            jit_compile=jit_compile,
        )
        assert model.jit_compile == jit_compile
        return problems.float_weights(model)

    assert problems.largest_difference(run(False), run(True)) < 1e-5


def _compiled_step(dropout, **arguments):
    """A model, eight workers' batch and its step as one XLA program."""
    model = problems.dense_network(dropout=dropout)
    model.compile(
        problems.sgd(),
        problems.cross_entropy(),
        metrics=["accuracy"],
        noise=tf_gnc.GradientNoise(alpha=1.0),
        num_workers=8,
        **arguments,
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


@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_train_step__as_one_xla_program__nothing_on_the_host(dropout):
    _, batch, step = _compiled_step(dropout)
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
