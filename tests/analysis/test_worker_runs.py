"""The workers' losses and gradients, against the step itself and NumPy."""

import gc
import weakref

import keras
import numpy as np
import pytest
import tensorflow as tf

import tf_gnc
from tests import oracles, problems
from tf_gnc.analysis.worker_runs import WorkerRuns

M, ROWS, RATE = 4, 16, 0.5
RULES = {
    "none": lambda: None,
    "gnc": lambda: tf_gnc.GradientNoise(alpha=1.0),
    "rnc": lambda: tf_gnc.RandomNoise(alpha=0.5, seed=3),
}


def _model(rule=None, network=problems.full_network, replicas=1, steps=2):
    """Trained for some steps by plain SGD, on other rows than `_batch`."""
    with problems.mirrored(replicas):
        model = network()
        x, y = problems.images(ROWS * max(steps, 1), seed=7)
        model.compile(
            keras.optimizers.SGD(RATE),
            problems.cross_entropy(),
            metrics=["accuracy"],
            noise=rule,
            num_workers=M,
        )
    if steps:
        model.fit(x, y, batch_size=ROWS, shuffle=False, verbose=0)
    return model


def _batch():
    return problems.images(ROWS, seed=8)


def _packed(weights):
    return np.concatenate([np.ravel(w) for w in weights])


def _trainable(model):
    return [v.numpy() for v in model.trainable_variables]


def _step_gradient(model, batch):
    """What a training step hands to plain SGD, from the weights' change."""
    before = _packed(_trainable(model)).astype("float64")
    model.fit(*batch, batch_size=ROWS, shuffle=False, verbose=0)
    return (before - _packed(_trainable(model))) / RATE


def _displaced(model):
    """Each worker's weights under GNC, in NumPy."""
    weights = [w.astype("float64") for w in _trainable(model)]
    gradients, mean = problems.memory(model)
    ends = np.cumsum([w.size for w in weights])[:-1]
    for gradient in gradients.astype("float64"):
        parts = np.split(gradient - mean, ends)
        noise = [
            p.reshape(w.shape) for p, w in zip(parts, weights, strict=True)
        ]
        yield oracles.displaced(
            weights, noise, model.noise_alpha * RATE, "filter", True, None
        )


# GNC on two replicas is held against NumPy below.
@pytest.mark.parametrize(
    ("rule", "replicas"), [("none", 1), ("gnc", 1), ("rnc", 2)]
)
def test_gradient__noise_in_force__is_what_the_next_step_hands_on(
    rule, replicas
):
    # With BatchNorm, Dropout and a regularizer.
    model = _model(RULES[rule](), replicas=replicas)
    batch = _batch()
    found = WorkerRuns(model, batch).gradient().mean
    expected = _step_gradient(model, batch)
    scale = np.abs(expected).max()
    # The weights' rounding, divided by the rate.
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 * scale)


@pytest.fixture(scope="module")
def gnc():
    """A model under GNC and its runs on `_batch`; nobody changes them."""
    model = _model(RULES["gnc"](), problems.plain_network)
    return model, WorkerRuns(model, _batch())


@pytest.mark.parametrize("replicas", [1, 2])
def test_gradient__gnc__is_each_workers_own_in_numpy(gnc, replicas):
    x, y = _batch()
    model, runs = gnc
    if replicas > 1:
        model = _model(RULES["gnc"](), problems.plain_network, replicas)
        runs = WorkerRuns(model, (x, y))
    losses, gradients, lengths = [], [], []
    clean = _packed(_trainable(model))
    for i, weights in enumerate(_displaced(model)):
        rows = slice(4 * i, 4 * i + 4)
        loss, gradient = oracles.gradient(weights, x[rows], y[rows])
        losses.append(loss)
        gradients.append(_packed(gradient))
        lengths.append(oracles.norm(_packed(weights) - clean))
    found = runs.gradient()
    np.testing.assert_allclose(found.losses, losses, rtol=1e-5)
    np.testing.assert_allclose(runs.losses().losses, losses, rtol=1e-5)
    squares = [oracles.norm(g) ** 2 for g in gradients]
    np.testing.assert_allclose(found.squares, squares, rtol=1e-4)
    np.testing.assert_allclose(
        found.mean, np.mean(gradients, axis=0), atol=1e-5
    )
    np.testing.assert_allclose(
        found.displacements, lengths / oracles.norm(clean), rtol=1e-4
    )
    assert min(found.displacements) > 1e-3


def test_losses__other_weights__are_displaced_as_the_models_own_would_be(gnc):
    x, y = _batch()
    model, runs = gnc
    shift = np.linspace(-0.5, 0.5, int(runs.weights.shape[0]))
    found = runs.losses(runs.weights + shift.astype("float32")).losses
    ends = np.cumsum([w.size for w in _trainable(model)])[:-1]
    for i, weights in enumerate(_displaced(model)):
        moved = [
            w + part.reshape(w.shape)
            for w, part in zip(weights, np.split(shift, ends), strict=True)
        ]
        rows = slice(4 * i, 4 * i + 4)
        loss, _ = oracles.gradient(moved, x[rows], y[rows])
        np.testing.assert_allclose(found[i], loss, rtol=1e-5)


def test_losses__sample_weight__weighs_the_rows():
    model = _model(network=problems.plain_network, steps=0)
    x, y = _batch()
    weight = np.linspace(0.1, 2, ROWS).astype("float32")
    weights = [w.astype("float64") for w in _trainable(model)]
    single = [
        oracles.gradient(weights, x[i : i + 1], y[i : i + 1])[0]
        for i in range(ROWS)
    ]
    expected = np.mean(np.reshape(weight * single, [M, -1]), axis=1)
    found = WorkerRuns(model, (x, y, weight)).losses().losses
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    plain = WorkerRuns(model, (x, y, None)).losses().losses
    np.testing.assert_allclose(
        plain, np.mean(np.reshape(single, [M, -1]), axis=1), rtol=1e-5
    )


def test_losses__relative_displacement__is_of_that_length_in_that_direction(
    gnc,
):
    (model, runs), batch = gnc, _batch()
    own = runs.losses()
    found = WorkerRuns(model, batch, relative_displacement=0.25).losses()
    np.testing.assert_allclose(found.displacements, 0.25, rtol=1e-5)
    x, y = batch
    clean = [w.astype("float64") for w in _trainable(model)]
    for i, weights in enumerate(_displaced(model)):
        factor = 0.25 / own.displacements[i]
        longer = [
            c + factor * (w - c) for w, c in zip(weights, clean, strict=True)
        ]
        rows = slice(4 * i, 4 * i + 4)
        loss, _ = oracles.gradient(longer, x[rows], y[rows])
        np.testing.assert_allclose(found.losses[i], loss, rtol=1e-4)


def test_losses__relative_displacement_of_no_noise__stays_zero():
    model = _model(RULES["gnc"](), problems.plain_network, steps=0)
    found = WorkerRuns(model, _batch(), relative_displacement=0.25).losses()
    assert found.displacements.tolist() == [0.0] * M


def test_losses__the_models_own_rule_anew__are_the_same(gnc):
    model, runs = gnc
    found = WorkerRuns(model, _batch(), noise=RULES["gnc"]()).losses().losses
    np.testing.assert_allclose(found, runs.losses().losses, rtol=1e-6)


def test_losses__another_rule__are_those_under_that_rule():
    model = _model(RULES["gnc"](), problems.plain_network)
    batch = _batch()
    others = [RULES["rnc"](), RULES["none"]()]
    found = [WorkerRuns(model, batch, noise=rule).losses() for rule in others]
    for rule, losses in zip(others, found, strict=True):
        model.noise_rule = rule
        expected = WorkerRuns(model, batch).losses()
        np.testing.assert_allclose(losses.losses, expected.losses, rtol=1e-6)


def test_losses__the_models_rule_with_twice_the_alpha__go_twice_as_far(gnc):
    model, runs = gnc
    once = runs.losses().displacements
    rule = tf_gnc.GradientNoise(alpha=2.0)
    twice = WorkerRuns(model, _batch(), noise=rule).losses().displacements
    np.testing.assert_allclose(twice, 2 * once, rtol=1e-5)


@pytest.mark.parametrize("replicas", [1, 2])
def test_full_gradient__uneven_data__is_the_mean_over_pieces(replicas):
    # 16 + 16 + 5 rows: the last go as 4 and 1.
    model = _model(network=problems.dense_network, replicas=replicas, steps=0)
    x, y = problems.vectors(37)
    data = tf.data.Dataset.from_tensor_slices((x, y)).batch(7)
    found = WorkerRuns(model, problems.vectors(ROWS)).full_gradient(data)
    alone = problems.dense_network(keras.Model)
    alone.set_weights(model.get_weights())
    expected = np.zeros(found.shape)
    for begin in range(0, 37, 4):
        rows = slice(begin, min(begin + 4, 37))
        with tf.GradientTape() as tape:
            loss = problems.cross_entropy()(
                y[rows], alone(x[rows], training=True)
            )
        gradients = tape.gradient(
            loss, [v.value for v in alone.trainable_variables]
        )
        expected += (rows.stop - rows.start) / 37 * _packed(gradients)
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_full_gradient__data_of_one_batch__draws_its_masks_and_then_others():
    # Dropout: the same masks for the batch itself, others for what follows.
    model = _model(steps=0)
    batch = _batch()
    runs = WorkerRuns(model, batch, noise=None)
    data = tf.data.Dataset.from_tensor_slices(batch).batch(ROWS)
    own = runs.gradient().mean
    np.testing.assert_allclose(runs.full_gradient(data), own, atol=1e-6)
    twice = runs.full_gradient(data.repeat(2))
    assert np.abs(twice - np.asarray(own)).max() > 1e-4


def test_runs__again_and_at_other_weights__are_traced_once():
    traces = []

    class Counting(keras.layers.Layer):
        def call(self, x):
            traces.append(1)
            return x

    inputs = keras.Input((5,))
    outputs = keras.layers.Dense(3)(Counting()(inputs))
    model = tf_gnc.GNCModel(inputs, outputs)
    model.compile("sgd", problems.cross_entropy(), num_workers=M)
    runs = WorkerRuns(model, problems.vectors(ROWS))
    runs.gradient()
    before = len(traces)
    for scale in (0.5, 2.0):
        runs.gradient(scale * runs.weights)
    WorkerRuns(model, problems.vectors(ROWS, seed=2)).gradient()
    assert len(traces) == before
    # Another rule is another plan, and nothing of the old one is kept.
    model.noise_rule = RULES["rnc"]()
    WorkerRuns(model, problems.vectors(ROWS)).gradient()
    assert len(traces) > before


def test_runs__of_ever_other_shapes__only_the_last_are_kept():
    inputs = keras.Input((None, 3))
    outputs = keras.layers.GlobalAveragePooling1D()(inputs)
    model = tf_gnc.GNCModel(inputs, keras.layers.Dense(3)(outputs))
    model.compile("sgd", problems.cross_entropy(), num_workers=M)

    def traced(length, relative=None):
        batch = np.zeros((M, length, 3), "float32"), np.zeros(M)
        runs = WorkerRuns(model, batch, relative_displacement=relative)
        return weakref.ref(runs._traced)

    oldest, others = traced(1), []
    for length in range(2, 20):
        others += [traced(length), traced(1, relative=0.1 * length)]
        traced(2)  # used again and again
    gc.collect()
    assert oldest() is None
    assert others[0]() is not None
    assert sum(other() is not None for other in others) <= 16


@pytest.mark.parametrize("noise", ["model", None])
def test_runs__kept_traces__take_the_batch_and_weights_of_now(noise):
    """What was traced before training must not remember anything of it."""
    model = _model(RULES["gnc"](), steps=1)
    x, y = _batch()
    WorkerRuns(model, (x, y), noise=noise).gradient()
    model.fit(x, y, batch_size=len(x), shuffle=False, verbose=0)
    model.optimizer.learning_rate = 0.3
    other = problems.images(len(x), seed=11)
    found = WorkerRuns(model, other, noise=noise).gradient()
    model.step_plan._kept.clear()
    expected = WorkerRuns(model, other, noise=noise).gradient()
    np.testing.assert_array_equal(found.losses, expected.losses)
    np.testing.assert_array_equal(found.mean, expected.mean)


def _compiled(**arguments):
    model = problems.dense_network()
    model.compile("sgd", problems.cross_entropy(), **arguments)
    return model


def test_worker_runs__model_not_compiled__says_how_to_compile():
    with pytest.raises(ValueError, match=r"must be compiled.*model.compile"):
        WorkerRuns(problems.dense_network(), problems.vectors(8))


def test_worker_runs__plain_keras_model__says_which_model_is_needed():
    model = problems.dense_network(keras.Model)
    with pytest.raises(ValueError, match="GNCTrainStep"):
        WorkerRuns(model, problems.vectors(8))


def test_worker_runs__uneven_batch__names_rows_and_workers():
    with pytest.raises(ValueError, match="10 rows for 4 workers"):
        WorkerRuns(_compiled(num_workers=4), problems.vectors(10))


def test_worker_runs__parts_of_other_lengths__are_refused():
    x, y = problems.vectors(8)
    with pytest.raises(ValueError, match=r"same number of rows.*\[4, 8\]"):
        WorkerRuns(_compiled(num_workers=4), (x, y[:4]))


def test_worker_runs__empty_batch__is_refused():
    with pytest.raises(ValueError, match=r"1 or more, got \[0\]"):
        WorkerRuns(_compiled(), problems.vectors(0))


@pytest.mark.parametrize(
    "batch",
    [None, np.ones((8, 5)), (), (None,), (1, 2, 3, 4), ("a", object())],
    ids=["none", "array", "empty", "without-x", "four-parts", "objects"],
)
def test_worker_runs__no_batch__says_what_a_batch_is(batch):
    with pytest.raises(ValueError, match="`batch` must be"):
        WorkerRuns(_compiled(), batch)


def test_worker_runs__rule_without_its_gradients__is_refused():
    model = _compiled(num_workers=4, noise=RULES["rnc"]())
    with pytest.raises(ValueError, match="the model doesn't keep"):
        WorkerRuns(model, problems.vectors(8), noise=RULES["gnc"]())


def test_worker_runs__no_rule__is_refused():
    with pytest.raises(ValueError, match="noise='gnc'"):
        WorkerRuns(_compiled(), problems.vectors(8), noise="gnc")


@pytest.mark.parametrize("value", [-1, float("nan"), "far"])
def test_worker_runs__bad_relative_displacement__is_refused(value):
    with pytest.raises(ValueError, match="`relative_displacement` must be"):
        WorkerRuns(
            _compiled(), problems.vectors(8), relative_displacement=value
        )


def test_worker_runs__no_trainable_weights__is_refused():
    model = problems.dense_network()
    model.trainable = False
    model.compile("sgd", problems.cross_entropy())
    with pytest.raises(ValueError, match="must have trainable weights"):
        WorkerRuns(model, problems.vectors(8))


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda data: list(data), "must be a tf.data.Dataset"),
        (lambda data: data.repeat(), "must be finite"),
        (lambda data: data.take(0), "one that is empty"),
        (lambda data: data.map(lambda x, y: x), "must be a tuple"),
    ],
)
def test_full_gradient__bad_data_set__says_what_is_needed(make, said):
    runs = WorkerRuns(_compiled(num_workers=4), problems.vectors(8))
    data = tf.data.Dataset.from_tensor_slices(problems.vectors(8)).batch(4)
    with pytest.raises(ValueError, match=said):
        runs.full_gradient(make(data))
