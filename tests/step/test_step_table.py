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
    return {
        name: np.asarray(value)
        for name, value in vars(table).items()
        if name != "paths"
    }


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
    """The table of a step (from 0) and the weights after it, in float64."""
    method = "rnc" if rule is RNC else "gnc"
    alpha = 0.0 if rule is None else rule.alpha

    def draw(step, worker):
        return _draw(step, worker, [w.shape for w in start])

    def train(steps):
        return oracles.train(
            start, [_batch(s, problems.images) for s in range(steps)], M,
            lambda step: RATE, alpha=alpha, method=method, draw=draw,
        )  # fmt: skip

    weights, (after, (*_, noises)) = train(step)[0], train(step + 1)
    if rule is None:
        noises = [[np.zeros_like(w) for w in weights]] * M
    x, y = _batch(step, problems.images)
    columns, gradients, lengths = [], [], []
    for i, noise in enumerate(noises):
        moved = oracles.displaced(
            weights, noise, alpha * RATE, "filter", True, None
        )
        rows = slice(i * B // M, (i + 1) * B // M)
        loss, gradient = oracles.gradient(moved, x[rows], y[rows])
        gradients.append(gradient)
        away = [a - b for a, b in zip(moved, weights, strict=True)]
        columns.append([loss, *map(_squares, (gradient, noise, away))])
        lengths.append([np.linalg.norm(part) for part in away])
    mean = [sum(parts) / M for parts in zip(*gradients, strict=True)]
    names = ("losses", "gradient_squares", "noise_squares",
             "displacement_squares")  # fmt: skip
    table = dict(zip(names, np.transpose(columns), strict=True))
    table |= {
        "layer_displacements": np.mean(lengths, axis=0),
        "layer_norms": np.array([np.linalg.norm(w) for w in weights]),
        "weights_square": _squares(weights),
        "mean_gradient_square": _squares(mean),
        "examples_per_worker": B // M,
        "valid": True,
    }
    return table, after


# One replica is two's simplest case: every rule on two, or without any sums.
@pytest.mark.parametrize(
    ("rule", "replicas"),
    [(GNC, 1), (GNC, 2), (RNC, 2), (None, 2)],
    ids=["gnc-1", "gnc-2", "rnc-2", "none-2"],
)
def test_table__third_step__agrees_with_loops_and_so_do_the_weights(
    rule, replicas
):
    with problems.mirrored(replicas):
        model = _compiled(rule, problems.plain_network)
    start = model.get_weights()
    control_of(model).keeps_table = True
    x, y = (part[: 3 * B] for part in problems.images(6 * B))
    model.fit(x, y, batch_size=B, shuffle=False, verbose=0)
    found, (expected, weights) = _numbers(_read(model)), _oracle(start, rule, 2)
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_allclose(
            found[name], value, rtol=1e-5, atol=1e-12, err_msg=name
        )
    # Keeping the table has changed nothing.
    assert problems.largest_difference(weights, model.get_weights()) < 1e-5
    # They tell the workers apart, and the rules.
    assert len(set(found["losses"])) == M
    assert (found["displacement_squares"].min() > 1e-6) == (rule is not None)


def _fit(model, data=problems.vectors):
    """Four steps with the table kept."""
    control_of(model).keeps_table = True
    x, y = data(4 * B)
    model.fit(x, y, batch_size=B, shuffle=False, verbose=0)
    return model


def test_train_step__probing__trains_as_without():
    # With BatchNorm, Dropout and a regularizer; the rules are held against
    # the oracle above.
    plain, probed = (
        _compiled(network=problems.full_network, optimizer=problems.sgd())
        for _ in range(2)
    )
    control_of(probed).keeps_table = True
    x, y = problems.images(4 * B)
    for model in (plain, probed):
        model.fit(x, y, batch_size=B, shuffle=False, verbose=0)
    for of in (problems.float_weights, problems.memory):
        assert problems.largest_difference(of(plain), of(probed)) < 1e-6
    assert plain.step_plan.table is None and _read(probed).valid


@pytest.mark.parametrize(
    ("dropout", "ways", "tolerance"),
    [
        (0.3, [{"run_eagerly": True}, {"steps_per_execution": 4}], 1e-6),
        # XLA draws other numbers for Dropout.
        (0.0, [{"jit_compile": True}], 1e-5),
    ],
    ids=["eager-and-many-steps-a-call", "xla"],
)
def test_train_step__another_way_to_run__same_weights_and_table(
    dropout, ways, tolerance
):
    # Without convolutions, which XLA runs very slowly in a loop on a CPU.
    def run(jit_compile=False, **arguments):
        model = _compiled(
            network=lambda: problems.dense_network(dropout=dropout),
            optimizer=problems.sgd(),
            metrics=["accuracy"],
            jit_compile=jit_compile,
            **arguments,
        )
        _fit(model)
        assert model.jit_compile == jit_compile
        return problems.float_weights(model), _read(model)

    expected, table = run()
    assert table.noise_squares.min() > 0
    for way in ways:
        weights, other = run(**way)
        assert problems.largest_difference(expected, weights) < tolerance
        _assert_same(table, other)
        if "steps_per_execution" in way:
            for a, b in zip(expected, weights, strict=True):
                np.testing.assert_array_equal(a, b)


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
    # Of a worker: gradient, noise, and each layer's displacement; of the
    # step: the mean gradient, and each layer's weights.
    assert on["L2Loss"] == 3 + 2 * len(model.trainable_variables)


def test_keeps_table__turned_on_and_off__keeps_noise_and_plan():
    always, switched = _compiled(), _compiled()
    control_of(always).keeps_table = True
    for step in range(4):
        control_of(switched).keeps_table = step in (1, 3)
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


def test_keeps_table__rule_switched_saved_or_compiled__goes_on_until_then(
    tmp_path,
):
    never = _compiled()
    assert never.step_plan.table is None  # The plan has built the optimizer.
    model = _fit(_compiled())
    assert _read(model).valid
    # The table belongs to no model.
    assert len(model.variables) == len(never.variables)
    assert len(model.optimizer.variables) == len(never.optimizer.variables)
    model.noise_rule = RNC
    assert control_of(model).keeps_table
    assert _read(model) is None  # no step under the new rule yet
    model.train_on_batch(*_batch(0))
    # A unit vector for each filter: 8 + 3 of kernels, three weight vectors.
    np.testing.assert_allclose(_read(model).noise_squares, 14, rtol=1e-5)
    model.noise_rule = None
    model.train_on_batch(*_batch(1))
    assert not _read(model).noise_squares.any()
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert not control_of(loaded).keeps_table
    model.compile("sgd", problems.cross_entropy(), num_workers=M)
    assert _read(model) is None


def test_keeps_table__not_a_bool__error_shows_it():
    with pytest.raises(ValueError, match="keeps_table=1"):
        control_of(_compiled()).keeps_table = 1


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
