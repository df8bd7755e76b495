"""What a step leaves behind, against NumPy; and that it changes nothing."""

import collections

import keras
import numpy as np
import pytest
import tensorflow as tf

import tf_gnc
from tests import oracles, problems
from tf_gnc.step.control import control_of

M, B, RATE = 4, 16, 0.5
GNC = tf_gnc.GradientNoise(alpha=0.5)
RNC = tf_gnc.RandomNoise(alpha=0.5, seed=7)


def _compiled(rule=GNC, network=problems.dense_network, **arguments):
    model = network()
    arguments = {"optimizer": keras.optimizers.SGD(RATE), **arguments}
    model.compile(
        loss=problems.cross_entropy(), noise=rule, num_workers=M, **arguments
    )
    return model


def _batch(step, data=problems.vectors):
    rows = slice(step * B, (step + 1) * B)
    x, y = data(6 * B)
    return x[rows], y[rows]


def _read(model):
    return model.step_plan.table.read(model.distribute_strategy)


def _numbers(table):
    """All numbers of a table, in a dict."""
    return {name: np.asarray(value) for name, value in vars(table).items()}


def _assert_same(first, second, rtol=1e-5):
    for name, value in _numbers(first).items():
        np.testing.assert_allclose(
            value, _numbers(second)[name], rtol=rtol, atol=1e-9, err_msg=name
        )


def _squares(tensors):
    return sum(float(np.sum(t**2)) for t in tensors)


def _draw(step, worker, shapes):
    """RandomNoise's published contract: the key is (seed, step, worker)."""
    sizes = [int(np.prod(shape)) for shape in shapes]
    key = tf.constant([7 * 2**32 + worker, step], tf.int64)
    flat = tf.random.stateless_uniform(
        [sum(sizes)], key, -0.5, 0.5, alg="philox"
    )
    parts = np.split(flat.numpy().astype("float64"), np.cumsum(sizes)[:-1])
    return [p.reshape(s) for p, s in zip(parts, shapes, strict=True)]


def _oracle(start, rule, step):
    """The table of a step (from 0), by loops in float64."""
    method = "rnc" if rule is RNC else "gnc"
    alpha = 0.0 if rule is None else rule.alpha

    def draw(step, worker):
        return _draw(step, worker, [w.shape for w in start])

    def train(steps):
        return oracles.train(
            start, [_batch(s, problems.images) for s in range(steps)], M,
            lambda step: RATE, alpha=alpha, method=method, draw=draw,
        )  # fmt: skip

    weights, (_, (*_, noises)) = train(step)[0], train(step + 1)
    if rule is None:
        noises = [[np.zeros_like(w) for w in weights]] * M
    x, y = _batch(step, problems.images)
    columns, gradients = [], []
    for i, noise in enumerate(noises):
        moved = oracles.displaced(
            weights, noise, alpha * RATE, "filter", True, None
        )
        rows = slice(i * B // M, (i + 1) * B // M)
        loss, gradient = oracles.gradient(moved, x[rows], y[rows])
        gradients.append(gradient)
        away = [a - b for a, b in zip(moved, weights, strict=True)]
        columns.append([loss, *map(_squares, (gradient, noise, away))])
    mean = [sum(parts) / M for parts in zip(*gradients, strict=True)]
    names = ("losses", "gradient_squares", "noise_squares",
             "displacement_squares")  # fmt: skip
    table = dict(zip(names, np.transpose(columns), strict=True))
    return table | {
        "weights_square": _squares(weights),
        "mean_gradient_square": _squares(mean),
        "examples_per_worker": B // M,
        "valid": True,
    }


@pytest.mark.parametrize("replicas", [1, 2])
@pytest.mark.parametrize("rule", [GNC, RNC, None], ids=["gnc", "rnc", "none"])
def test_table__third_step__agrees_with_loops(rule, replicas):
    with problems.mirrored(replicas):
        model = _compiled(rule, problems.plain_network)
    start = model.get_weights()
    control_of(model).keeps_table = True
    x, y = (part[: 3 * B] for part in problems.images(6 * B))
    model.fit(x, y, batch_size=B, shuffle=False, verbose=0)
    found, expected = _numbers(_read(model)), _oracle(start, rule, step=2)
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_allclose(
            found[name], value, rtol=1e-5, atol=1e-12, err_msg=name
        )
    # They tell the workers apart, and the rules.
    assert len(set(found["losses"])) == M
    assert (found["displacement_squares"].min() > 1e-6) == (rule is not None)


def _train(rule=GNC, probing=True, full=False, **arguments):
    """A model that has taken four steps, probing all the while or never."""
    network = problems.full_network if full else problems.dense_network
    model = _compiled(rule, network, **arguments)
    control_of(model).keeps_table = probing
    x, y = (problems.images if full else problems.vectors)(4 * B)
    model.fit(x, y, batch_size=B, shuffle=False, verbose=0)
    return model


@pytest.mark.parametrize("rule", [GNC, RNC, None], ids=["gnc", "rnc", "none"])
def test_train_step__probing__trains_as_without(rule):
    optimizers = [keras.optimizers.SGD(0.1, momentum=0.9) for _ in range(2)]
    plain, probed = (
        _train(rule, probing=p, full=True, optimizer=o)
        for p, o in zip((False, True), optimizers, strict=True)
    )
    difference = problems.largest_difference(
        problems.float_weights(plain), problems.float_weights(probed)
    )
    assert difference < 1e-6
    if rule is GNC:
        difference = problems.largest_difference(
            problems.memory(plain), problems.memory(probed)
        )
        assert difference < 1e-6


def test_table__full_network_on_two_replicas__is_that_of_one():
    tables = []
    for replicas in (1, 2):
        with problems.mirrored(replicas):
            model = _compiled(network=problems.full_network)
        control_of(model).keeps_table = True
        batch = _batch(0, problems.images)
        model.fit(*batch, batch_size=B, epochs=3, shuffle=False, verbose=0)
        tables.append(_read(model))
    _assert_same(*tables)


def test_table__many_steps_a_call__is_that_of_the_last():
    _assert_same(_read(_train()), _read(_train(steps_per_execution=4)))


def test_table__eager__is_the_same():
    _assert_same(_read(_train()), _read(_train(run_eagerly=True)))


def test_table__compiled_by_xla__is_the_same():
    plain, compiled = (_train(jit_compile=jit) for jit in (False, True))
    assert (plain.jit_compile, compiled.jit_compile) == (False, True)
    _assert_same(_read(plain), _read(compiled))
    assert _read(plain).noise_squares.min() > 0


def _op_counts(model):
    """How often each type of operation stands in a step's graph."""
    concrete = tf.function(model.train_step).get_concrete_function(
        tuple(map(tf.constant, _batch(0)))
    )
    graph_def = concrete.graph.as_graph_def()
    nodes = list(graph_def.node)
    for function in graph_def.library.function:
        nodes += function.node_def
    return collections.Counter(node.op for node in nodes)


def test_train_step__probing_off_again__graph_is_what_it_was():
    model = _compiled()
    assert model.step_plan.table is None
    never = _op_counts(model)
    control_of(model).keeps_table = True
    on = _op_counts(model)
    control_of(model).keeps_table = False
    assert _op_counts(model) == never
    assert "L2Loss" not in never
    # Three norms a worker, two of the step.
    assert on["L2Loss"] == 5


def test_keeps_table__turned_on_and_off__keeps_noise_and_plan():
    always, switched = _compiled(), _compiled()
    control_of(always).keeps_table = True
    for step in range(6):
        control_of(switched).keeps_table = step in (2, 3, 5)
        for model in (always, switched):
            plan = model.step_plan
            model.train_on_batch(*_batch(step))
            assert model.step_plan is plan
        if control_of(switched).keeps_table:
            # Without its memory the noise would be 0.
            assert _read(switched).noise_squares.min() > 0
            _assert_same(_read(switched), _read(always))
    difference = problems.largest_difference(
        always.get_weights(), switched.get_weights()
    )
    assert difference < 1e-6


def test_keeps_table__rule_switched__goes_on():
    model = _train()
    assert _read(model).valid
    model.noise_rule = RNC
    assert control_of(model).keeps_table
    assert _read(model) is None  # no step under the new rule yet
    model.train_on_batch(*_batch(0))
    # A unit vector for each filter: 8 + 3 of kernels, three weight vectors.
    np.testing.assert_allclose(_read(model).noise_squares, 14, rtol=1e-5)
    model.noise_rule = None
    model.train_on_batch(*_batch(1))
    assert not _read(model).noise_squares.any()


def test_keeps_table__not_a_bool__error_shows_it():
    with pytest.raises(ValueError, match="keeps_table=1"):
        control_of(_compiled()).keeps_table = 1


def test_table__belongs_to_no_model__is_not_saved(tmp_path):
    sizes = []
    for probing in (False, True):
        model = _train(probing=probing)
        sizes.append((len(model.variables), len(model.optimizer.variables)))
        model.save(tmp_path / "model.keras")
    assert sizes[0] == sizes[1]
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert not control_of(loaded).keeps_table
    model.compile("sgd", problems.cross_entropy(), num_workers=M)
    assert _read(model) is None


def test_table__batch_of_unknown_size__examples_are_counted():
    model = _compiled()
    control_of(model).keeps_table = True
    sizes = []
    for size in (16, 8):
        x, y = problems.vectors(size)
        data = tf.data.Dataset.from_generator(
            lambda x=x, y=y: iter([(x, y)]),
            output_signature=(
                tf.TensorSpec([None, 5]), tf.TensorSpec([None], tf.int64),
            ),
        )  # fmt: skip
        model.fit(data, verbose=0)
        sizes.append(_read(model).examples_per_worker)
    assert sizes == [4, 2]


@pytest.mark.parametrize("replicas", [1, 2])
def test_table__one_worker_not_finite__step_is_invalid_others_are_told(
    replicas,
):
    with problems.mirrored(replicas):
        model = _compiled(None)
    control_of(model).keeps_table = True
    x, y = _batch(0)
    x[5] = np.nan  # the second worker's
    model.fit(x, y, batch_size=B, shuffle=False, verbose=0)
    table = _read(model)
    assert not table.valid
    assert np.isfinite(table.losses).tolist() == [True, False, True, True]
    assert np.isfinite(table.gradient_squares[[0, 2, 3]]).all()


def test_table__overflow_of_mixed_float16__step_is_invalid():
    keras.config.set_dtype_policy("mixed_float16")
    model, other = _compiled(), _compiled()
    control_of(model).keeps_table = control_of(other).keeps_table = True
    assert model.step_plan.table  # The plan has built the optimizer, too.
    tables = []
    for scale in (2.0**3, 2.0**40, 2.0**6):
        model.optimizer.dynamic_scale.assign(scale)
        model.train_on_batch(*_batch(0))
        tables.append(_read(model))
    assert [table.valid for table in tables] == [True, False, True]
    # The step that was skipped has left the noise as it was.
    assert tables[1].noise_squares.min() > 0
    np.testing.assert_array_equal(
        tables[1].noise_squares, tables[2].noise_squares
    )
    # Gradients are those of the loss itself, whatever its scale is.
    other.train_on_batch(*_batch(0))
    np.testing.assert_allclose(
        tables[0].gradient_squares, _read(other).gradient_squares, rtol=0.02
    )
