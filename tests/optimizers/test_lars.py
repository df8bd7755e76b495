"""LARS against NumPy loops of its sources, hand numbers and its limits."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import tf_gnc
from tests import oracles, problems
from tf_gnc import schedules
from tf_gnc.optimizers import LARS, MomentumSGD, exclusion

STEPS, M, B = 10, 4, 16

# name: arguments of LARS, the oracle, arguments of the oracle.
FORMS = {
    "paper": ({}, oracles.lars_paper, {}),
    "tf_models": ({"variant": "tf_models"}, oracles.lars_tf_models, {}),
    "tf_models, velocity": (
        {"variant": "tf_models", "classic_momentum": False},
        oracles.lars_tf_models,
        {"classic": False},
    ),
    "mlperf": ({"variant": "mlperf"}, oracles.lars_mlperf, {}),
    "mlperf, large epsilon": (
        {"variant": "mlperf", "epsilon": 1.0},
        oracles.lars_mlperf,
        {"eps": 1.0},
    ),
    "larc": ({"variant": "larc"}, oracles.larc, {}),
    "larc, large epsilon": (
        {"variant": "larc", "epsilon": 1.0},
        oracles.larc,
        {"eps": 1.0},
    ),
    "larc, scaling": (
        {"variant": "larc", "clip": False},
        oracles.larc,
        {"clip": False},
    ),
    "chainer": ({"variant": "chainer"}, oracles.chainer, {}),
    "chainer, large epsilon": (
        {"variant": "chainer", "epsilon": 1.0},
        oracles.chainer,
        {"eps": 1.0},
    ),
}
EVERY_FORM = pytest.mark.parametrize("form", FORMS)
# Rates at which a step moves a weight of norm 1 by up to a tenth.
RATES = np.linspace(20, 100, STEPS)


def problem(shape=(3, 4), seed=0):
    """Start weights in [-1, 1] and ten gradients, as float32."""
    rng = np.random.default_rng(seed)
    x = rng.uniform(-1, 1, shape).astype("float32")
    return x, rng.uniform(-1, 1, (STEPS, *shape)).astype("float32")


def numpy_path(form, x, gradients, rates, m=0.9, decay=0.1, **arguments):
    """The weights after each step of a form's oracle, in float64."""
    _, step, own = FORMS[form]
    x, v, path = np.float64(x), np.zeros_like(x, "float64"), []
    for g, gamma in zip(np.float64(gradients), rates, strict=True):
        x, v, _ = step(x, v, g, gamma, m, decay, **{**own, **arguments})
        path.append(x)
    return np.array(path)


def run(optimizer, x, gradients, **variable):
    """The weights after each step of the optimizer."""
    variable = keras.Variable(x, **variable)
    path = []
    for gradient in gradients:
        optimizer.apply([tf.constant(gradient)], [variable])
        path.append(variable.numpy())
    return np.array(path)


class Listed(keras.optimizers.schedules.LearningRateSchedule):
    """The rates of a list, one after another."""

    def __init__(self, rates):
        self.rates = [float(r) for r in rates]

    def __call__(self, step):
        return tf.gather(tf.constant(self.rates), tf.cast(step, tf.int32))


def _relative(ours, expected):
    return np.abs(ours - expected).max() / np.abs(expected).max()


@EVERY_FORM
@pytest.mark.parametrize("momentum, decay", [(0.9, 0.1), (0.0, 0.0)])
def test_lars__ten_steps_of_each_form__agree_with_its_oracle(
    form, momentum, decay
):
    x, gradients = problem()
    ours = run(
        LARS(Listed(RATES), momentum, decay, **FORMS[form][0]), x, gradients
    )
    expected = numpy_path(form, x, gradients, RATES, momentum, decay)
    assert _relative(ours, expected) < 1e-6
    assert _relative(x, expected) > 0.05  # it has moved


def test_lars__the_forms__differ_by_more_than_the_tolerance():
    x, gradients = problem()
    ends = [numpy_path(f, x, gradients, RATES, 0.9, 0.1)[-1] for f in FORMS]
    # Tiny epsilons, and what they do to small weights, are all that sets
    # these three apart.
    names = list(FORMS)
    alike = {"paper", "mlperf", "chainer"}
    # With an epsilon as large they are one but for small weights.
    of_one = {"mlperf, large epsilon", "chainer, large epsilon"}
    for i, first in enumerate(ends):
        for j, second in enumerate(ends[:i]):
            pair = {names[i], names[j]}
            if not (pair <= alike or pair <= of_one):
                assert _relative(first, second) > 1e-4, (names[i], names[j])


def test_lars__chainers_small_weight__moves_at_gamma_tau():
    # |x| = 0.005 is below 0.01, so that v = -2 * 0.3 * (g + x).
    small, large = np.float32([0.003, 0.004]), np.float32([3.0, 4.0])
    arguments = {"variant": "chainer", "trust_coefficient": 0.3}
    g = np.float32([6.0, 8.0])
    path = run(LARS(2.0, 0.9, 1.0, **arguments), small, [g])
    np.testing.assert_allclose(path[0], small - 0.6 * (g + small), rtol=1e-6)
    # |x| = 5: the rate is 5 / (10 + 5).
    path = run(LARS(2.0, 0.9, 1.0, **arguments), large, [g])
    np.testing.assert_allclose(path[0], large - 0.2 * (g + large), rtol=1e-6)


def test_lars__chainer__adapts_biases_and_normalization_too():
    x, gradients = problem()
    names = ("kernel", "bias", "gamma")
    variables = [keras.Variable(x, name=name) for name in names]
    optimizer = LARS(50.0, 0.9, 0.1, variant="chainer")
    optimizer.apply([tf.constant(gradients[0])] * 3, variables)
    expected = numpy_path("chainer", x, gradients[:1], [50.0])[0]
    for variable in variables:
        assert _relative(variable.numpy(), expected) < 1e-6


def test_lars__first_step__hand_numbers():
    # |x| = 5, |g| = 10, lambda = 1: 0.3 * 5 / (10 + 5) = 0.1; gamma = 2.
    # v = -2 * 0.1 * (g + x) = -0.2 * (9, 12)
    optimizer = LARS(2.0, 0.9, 1.0, trust_coefficient=0.3)
    path = run(optimizer, [3.0, 4.0], np.float32([[6.0, 8.0]]))
    np.testing.assert_allclose(path[0], [3 - 1.8, 4 - 2.4], rtol=1e-6)


def test_lars__clip__bounds_the_local_rate_by_the_global_one():
    # tau * |x| / |g| is 1 and then 1/4, of which 1/2 and 1/4 are left.
    arguments = {"trust_coefficient": 1.0, "momentum": 0.0, "epsilon": 0.0}
    clipped = LARS(0.5, variant="larc", **arguments)
    path = run(clipped, [2.0], np.float32([[2.0], [4.0]]))
    assert path[:, 0].tolist() == [1.0, 1.0 - 0.25 * 4.0]
    scaled = LARS(0.5, variant="larc", clip=False, **arguments)
    assert run(scaled, [2.0], np.float32([[2.0]]))[0] == 2 - 0.5 * 2


@EVERY_FORM
@pytest.mark.parametrize("zero", ["weight", "gradient", "both", "rate"])
@pytest.mark.parametrize("decay", [0.0, 0.1])
def test_lars__something_is_zero__the_oracle_says_what_follows(
    form, zero, decay
):
    x, gradients = problem()
    gradients, rates = gradients[:3].copy(), [0.5] * 3
    if zero in ("weight", "both"):
        x = np.zeros_like(x)
    if zero in ("gradient", "both"):
        gradients[:] = 0
    if zero == "rate":
        rates = [0.0, 0.5, 0.5]
    optimizer = LARS(Listed(rates), 0.9, decay, **FORMS[form][0])
    ours = run(optimizer, x, gradients)
    expected = numpy_path(form, x, gradients, rates, 0.9, decay)
    np.testing.assert_allclose(ours, expected, rtol=0, atol=1e-6)


def test_lars__zero_weight__starts_at_the_global_rate():
    path = run(LARS(0.5), [0.0, 0.0], np.float32([[1.0, -2.0]]))
    assert path.tolist() == [[-0.5, 1.0]]


def test_lars__zero_gradient__decays_at_the_limit_of_the_formula():
    # |g| -> 0: gamma * tau / lambda * lambda * x, whatever lambda.
    for decay in (0.5, 0.25):
        path = run(LARS(0.5, 0.0, decay, trust_coefficient=0.5), [8.0], [[0.0]])
        assert path.tolist() == [[8 - 0.5 * 0.5 * 8]]


@EVERY_FORM
def test_lars__excluded_variable__follows_plain_momentum_without_decay(form):
    x, gradients = problem()
    bias, kernel = (keras.Variable(x, name=n) for n in ("bias", "kernel"))
    plain = keras.Variable(x, name="kernel")
    lars = LARS(0.1, 0.9, 0.1, **FORMS[form][0], exclude="bias")
    sgd = MomentumSGD(0.1, 0.9)
    for gradient in gradients:
        lars.apply([tf.constant(gradient)] * 2, [bias, kernel])
        sgd.apply([tf.constant(gradient)], [plain])
    assert _relative(bias.numpy(), plain.numpy()) < 1e-6
    assert _relative(kernel.numpy(), plain.numpy()) > 1e-3


def test_lars__excluded_in_pytorchs_velocity__a_new_rate_moves_all_of_it():
    # u = 1, 3/2; x = -1, then -1 - 3/16. The paper's velocity gives -13/8.
    optimizer = LARS(Listed([1.0, 0.125]), 0.5, variant="larc", exclude=".")
    path = run(optimizer, [0.0], np.ones((2, 1), "float32"))
    assert path[:, 0].tolist() == [-1.0, -1 - 3 / 16]


def test_lars__default_exclusions__are_biases_and_normalization():
    model = keras.Sequential(
        [
            keras.Input((8, 8, 3)),
            keras.layers.Conv2D(2, 3, name="bias_net"),
            keras.layers.BatchNormalization(name="anything"),
            keras.layers.LayerNormalization(name="gamma"),
            keras.layers.Flatten(),
            keras.layers.Dense(2, name="beta"),
        ],
        name="net",
    )
    excluded = {
        v.path
        for v in model.trainable_variables
        if exclusion.is_excluded(v.path, LARS(1.0).exclude)
    }
    assert excluded == {
        "net/bias_net/bias",
        "net/anything/gamma",
        "net/anything/beta",
        "net/gamma/gamma",
        "net/gamma/beta",
        "net/beta/bias",
    }


def test_lars__patterns_of_the_user__replace_the_default_ones():
    x, gradients = problem()
    names = ("head", "bias", "body")
    values = []
    for exclude in ((), "^head$", ["head", "^bi.s"]):
        variables = [keras.Variable(x, name=n) for n in names]
        optimizer = LARS(0.1, exclude=exclude)
        optimizer.apply([tf.constant(gradients[0])] * 3, variables)
        values.append([np.abs(v.numpy() - x).max() > 0.01 for v in variables])
    assert values == [
        [False, False, False],
        [True, False, False],
        [True, True, False],
    ]


def test_lars__pattern_that_is_nowhere__is_refused_with_the_paths():
    variable = keras.Variable([1.0], name="kernel")
    with pytest.raises(
        ValueError, match=r"exclude=\['nosuch'\] with .* kernel"
    ):
        LARS(0.1, exclude="nosuch").build([variable])
    LARS(0.1).build([variable])  # The usual pattern may find nothing.


@pytest.mark.parametrize("form", ["paper", "larc"])
def test_lars__sparse_gradient__equals_the_dense_one(form):
    x, _ = problem((4, 2))
    rows = np.float32([[1, 2], [3, 4], [5, 6]])
    dense = np.zeros((4, 2), "float32")
    np.add.at(dense, [2, 0, 2], rows)  # row 2 is mentioned twice
    expected = run(LARS(9.0, 0.9, 0.1, **FORMS[form][0]), x, [dense] * 3)[-1]
    variable = keras.Variable(x)
    optimizer = LARS(9.0, 0.9, 0.1, **FORMS[form][0])
    for _ in range(3):
        sparse = tf.IndexedSlices(
            tf.constant(rows), tf.constant([2, 0, 2]), tf.constant([4, 2])
        )
        optimizer.apply([sparse], [variable])
    assert _relative(variable.numpy(), expected) < 1e-6


@EVERY_FORM
@pytest.mark.parametrize("jit_compile", [False, True])
def test_lars__compiled__agrees_with_its_oracle(form, jit_compile):
    x, gradients = problem()
    variable = keras.Variable(x)
    optimizer = LARS(50.0, 0.9, 0.1, **FORMS[form][0])
    optimizer.build([variable])

    @tf.function(jit_compile=jit_compile)
    def apply(gradient):
        optimizer.apply([gradient], [variable])

    for gradient in gradients:
        apply(tf.constant(gradient))
    expected = numpy_path(form, x, gradients, [50.0] * STEPS)[-1]
    assert _relative(variable.numpy(), expected) < 1e-6


def test_lars__scalar_and_float64_variables__are_adapted():
    path = run(LARS(0.5, trust_coefficient=0.5), 2.0, np.float32([4.0]))
    assert path.tolist() == [2 - 0.5 * 0.5 * 2 / 4 * 4]
    x, gradients = problem()
    optimizer = LARS(Listed(RATES), 0.9, 0.1, noise_rate="layer")
    ours = run(optimizer, np.float64(x), np.float64(gradients), dtype="float64")
    # The rates are float32, by Keras.
    expected = numpy_path("paper", x, gradients, np.float64(np.float32(RATES)))
    assert _relative(ours, expected) < 1e-12


def test_lars__float16_variable__norms_do_not_overflow():
    # Squares of 300 are beyond float16: |x| = |g| = 600, 1/4 * 300 off.
    x, g = np.full((2, 2), 300, "float16"), np.full((1, 2, 2), 300, "float16")
    optimizer = LARS(0.5, trust_coefficient=0.5)
    path = run(optimizer, x, g, dtype="float16")
    assert path.dtype == np.float16
    assert path.tolist() == np.full((1, 2, 2), 225.0).tolist()


def test_lars__loss_scaling__unscales_and_skips_overflows():
    variable = keras.Variable([2.0])
    inner = LARS(0.5, 0.5, trust_coefficient=0.5, noise_rate="layer")
    optimizer = keras.optimizers.LossScaleOptimizer(inner, initial_scale=4.0)
    # |x| / |g| = 2 / 1, local rate 1/2.
    optimizer.apply([tf.constant([4.0])], [variable])
    assert variable.numpy().tolist() == [1.5]
    optimizer.apply([tf.constant([np.inf])], [variable])
    assert variable.numpy().tolist() == [1.5]
    assert inner.velocities[0].numpy().tolist() == [-0.5]
    assert float(inner.local_rates[0].numpy()) == 0.5


@pytest.mark.parametrize("policy", ["mixed_float16", "float16"])
def test_lars__model_of_16_bits__trains_in_compile_and_fit(policy):
    x, y = np.eye(2, dtype="float32"), np.ones((2, 1), "float32")
    weights = []
    for each in ("float32", policy):
        # A bias would follow the global rate, which is far too high for it.
        dense = keras.layers.Dense(
            1, use_bias=False, kernel_initializer="ones", dtype=each
        )
        model = keras.Sequential([keras.Input((2,)), dense])
        optimizer = LARS(20.0, weight_decay=0.5, trust_coefficient=0.01)
        if each == "mixed_float16":
            optimizer = keras.optimizers.LossScaleOptimizer(optimizer, 128.0)
        model.compile(optimizer, "mse")
        model.fit(x, 3 * y, batch_size=2, epochs=3, verbose=0)
        weights.append(np.float32(dense.kernel.numpy()))
    assert abs(weights[0] - 1).min() > 0.05
    # A few roundings to 11 bits, rates and weights of order 1.
    np.testing.assert_allclose(*weights, rtol=0, atol=20 * 2.0**-11)


def _trained(optimizer, replicas=1, rule=None, steps=STEPS, model_of=None):
    """Weights before and after training a GNCModel, and the model."""
    x, y = problems.images(B * steps)
    with problems.mirrored(replicas):
        model = (model_of or problems.plain_network)()
        start = [w.copy() for w in model.get_weights()]
        problems.trained(
            model,
            x,
            y,
            epochs=1,
            batch_size=B,
            optimizer=optimizer(),
            noise=rule,
            num_workers=M,
        )
    return start, model


def _batches():
    x, y = problems.images(B * STEPS)
    return [(x[i : i + B], y[i : i + B]) for i in range(0, len(x), B)]


# LARS sees the mean gradient only, so a form of each kind of velocity is
# enough: with the learning rate in it, without it, and with a clipped ratio.
@pytest.mark.parametrize(
    "form", ["paper", "tf_models, velocity", "larc", "chainer"]
)
def test_lars__two_replicas__equal_one(form):
    # Vectors follow the plain rate, so it must suit them; tau makes up for it.
    arguments = {**FORMS[form][0], "trust_coefficient": 0.2}
    ends = [
        _trained(
            lambda: LARS(0.2, 0.9, 0.01, noise_rate="layer", **arguments),
            replicas,
            tf_gnc.GradientNoise(alpha=1.0),
        )
        for replicas in (1, 2)
    ]
    (start, one), (_, two) = ends
    assert (
        problems.largest_difference(one.get_weights(), two.get_weights()) < 1e-5
    )
    assert problems.largest_difference(start, one.get_weights()) > 0.1
    rates = [float(r.numpy()) for r in two.optimizer.local_rates]
    expected = [float(r.numpy()) for r in one.optimizer.local_rates]
    np.testing.assert_allclose(rates, expected, rtol=1e-4)
    for variable in two.optimizer.local_rates:
        copies = two.distribute_strategy.experimental_local_results(
            variable.value
        )
        assert len({float(copy.numpy()) for copy in copies}) == 1


def test_lars__two_replicas__need_no_reduction_of_their_own():
    x, y = map(tf.constant, problems.images(B))
    with problems.mirrored(2):
        model = problems.plain_network()
        model.compile(
            LARS(0.1, noise_rate="layer"),
            problems.cross_entropy(),
            noise=tf_gnc.GradientNoise(alpha=0.1),
            num_workers=M,
        )
        model._make_plan()
        strategy = model.distribute_strategy
        step = tf.function(lambda: strategy.run(model.train_step, [(x, y)]))
        (summed,) = problems.sums_over_replicas(
            step.get_concrete_function().graph
        )
    # The gradients, and a few numbers beside them.
    num_weights = sum(w.size for w in model.get_weights())
    assert num_weights <= summed < num_weights + 10


def test_lars__two_replicas_in_stock_keras__equal_the_oracle():
    x, gradients = problem()
    strategy = tf.distribute.MirroredStrategy(
        ["CPU:0", "CPU:1"],
        cross_device_ops=tf.distribute.ReductionToOneDevice(),
    )
    with strategy.scope():
        kernel = keras.Variable(x, name="kernel")
        optimizer = LARS(50.0, 0.9, 0.1)
        optimizer.build([kernel])

    @tf.function
    def step(gradient):
        def on_replica():
            # A quarter and three quarters of the gradient, for the sum's sake.
            context = tf.distribute.get_replica_context()
            share = tf.constant([0.25, 0.75])[context.replica_id_in_sync_group]
            optimizer.apply([share * gradient], [kernel])

        strategy.run(on_replica)

    for gradient in gradients:
        step(tf.constant(gradient))
    expected = numpy_path("paper", x, gradients, [50.0] * STEPS)[-1]
    for copy in strategy.experimental_local_results(kernel.value):
        assert _relative(copy.numpy(), expected) < 1e-6


@pytest.mark.parametrize("noise_rate", ["global", "layer"])
def test_lars__in_a_gnc_model__agrees_with_algorithm_1(noise_rate):
    rates = [0.5] * 5 + [0.25] * 5
    alpha = 1.0 if noise_rate == "global" else 100.0

    def oracle(alpha, per_layer):
        return oracles.train_lars(
            start,
            _batches(),
            M,
            lambda step: rates[step],
            alpha=alpha,
            per_layer=per_layer,
            momentum=0.5,
            decay=0.01,
        )

    start, model = _trained(
        lambda: LARS(Listed(rates), 0.5, 0.01, noise_rate=noise_rate),
        rule=tf_gnc.GradientNoise(alpha=alpha),
    )
    ours = model.get_weights()
    expected = oracle(alpha, noise_rate == "layer")
    assert problems.largest_difference(expected, ours) < 1e-5
    assert problems.largest_difference(oracle(0.0, False), ours) > 1e-4


def test_noise_rates__layer__are_the_local_rates_of_the_step_before():
    kernel = keras.Variable([2.0], name="kernel")
    bias = keras.Variable([2.0], name="bias")
    optimizer = LARS(
        Listed([0.5, 4.0, 8.0]), 0.0, trust_coefficient=0.5, noise_rate="layer"
    )
    optimizer.build([kernel, bias])

    def rates():
        return [float(r) for r in optimizer.noise_rates([bias, kernel])]

    assert rates() == [0.5, 0.5]  # the global rate, at the first step
    optimizer.apply([tf.constant([4.0])] * 2, [kernel, bias])
    # 0.5 * 0.5 * 2 / 4 for the kernel; the bias had the global rate of then.
    assert rates() == [0.5, 0.125]
    assert LARS(1.0).noise_rates([kernel]) is None


def test_noise_rates__global_rate_of_zero__is_a_local_rate_of_zero():
    kernel = keras.Variable([2.0], name="kernel")
    optimizer = LARS(Listed([0.0, 4.0]), noise_rate="layer")
    optimizer.apply([tf.constant([4.0])], [kernel])
    assert [float(r) for r in optimizer.noise_rates([kernel])] == [0.0]


def test_noise_rate__layer_with_loss_scaling__is_found_in_the_inner_one():
    def scaled(noise_rate):
        inner = LARS(0.5, 0.5, noise_rate=noise_rate)
        return keras.optimizers.LossScaleOptimizer(inner, initial_scale=8.0)

    rule = tf_gnc.GradientNoise(alpha=100.0)
    _, plain = _trained(lambda: LARS(0.5, 0.5, noise_rate="layer"), rule=rule)
    _, layer = _trained(lambda: scaled("layer"), rule=rule)
    _, everywhere = _trained(lambda: scaled("global"), rule=rule)
    expected = plain.get_weights()
    layer, everywhere = layer.get_weights(), everywhere.get_weights()
    assert problems.largest_difference(expected, layer) < 1e-5
    assert problems.largest_difference(expected, everywhere) > 1e-3


@EVERY_FORM
def test_lars__config__round_trips_with_its_exclusions(form):
    original = LARS(
        schedules.imagenet_schedule(32768, 40),
        np.float32(0.5),
        1e-4,
        exclude=["bias$", "^head/"],
        noise_rate="layer",
        name="mine",
        clipnorm=1.0,
        **FORMS[form][0],
    )
    config = keras.saving.serialize_keras_object(original)
    # Keras's own from_config writes into the dictionary that it is given.
    copy = keras.saving.deserialize_keras_object(
        keras.saving.serialize_keras_object(original)
    )
    assert type(copy) is LARS
    assert keras.saving.serialize_keras_object(copy) == config
    for name in (
        "variant",
        "trust_coefficient",
        "exclude",
        "noise_rate",
        "epsilon",
        "clip",
        "classic_momentum",
        "momentum",
        "l2_weight_decay",
        "clipnorm",
        "name",
    ):
        assert getattr(copy, name) == getattr(original, name), name
    assert copy.exclude == ("bias$", "^head/")
    assert float(copy.learning_rate) == float(original.learning_rate)


@pytest.mark.parametrize("format", ["keras", "checkpoint"])
def test_lars__saved_and_loaded__goes_on_as_if_never_stopped(tmp_path, format):
    x, y = problems.images(32)
    fit = {"batch_size": 16, "shuffle": False, "verbose": 0}

    def compiled():
        model = problems.full_network(dropout=0.0)
        model.compile(
            LARS(
                schedules.WarmUp(0.1, 3, 0.4),
                weight_decay=0.1,
                exclude=["gamma", "beta"],
                noise_rate="layer",
                trust_coefficient=0.1,
            ),
            problems.cross_entropy(),
            noise=tf_gnc.RandomNoise(alpha=1.0, seed=3),
            num_workers=2,
        )
        return model

    model = compiled()
    model.fit(x, y, **fit)
    if format == "keras":
        model.save(tmp_path / "model.keras")
        loaded = keras.models.load_model(tmp_path / "model.keras")
    else:
        path = tf.train.Checkpoint(model=model).write(str(tmp_path / "c"))
        loaded = compiled()
        loaded.optimizer.build(loaded.trainable_variables)
        tf.train.Checkpoint(model=loaded).read(path).assert_consumed()
    assert loaded.optimizer.exclude == ("gamma", "beta")
    for ours, theirs in zip(
        model.optimizer.variables, loaded.optimizer.variables, strict=True
    ):
        np.testing.assert_array_equal(ours.numpy(), theirs.numpy())
    assert all(float(r.numpy()) > 0 for r in loaded.optimizer.local_rates)
    for each in (model, loaded):
        each.fit(x, y, **fit)
    assert int(loaded.optimizer.iterations) == 4
    for ours, theirs in zip(model.weights, loaded.weights, strict=True):
        np.testing.assert_array_equal(ours.numpy(), theirs.numpy())


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"variant": "lamb"}, "one of 'paper', .*, got variant='lamb'"),
        ({"trust_coefficient": 0}, "above 0, got trust_coefficient=0"),
        ({"epsilon": -1}, "at least 0, got epsilon=-1"),
        ({"noise_rate": "local"}, "got noise_rate='local'"),
        ({"momentum": 2}, "got momentum=2"),
        ({"weight_decay": -1}, "got weight_decay=-1"),
        ({"clip": True}, "clip=True with variant='paper'. Use variant='larc'"),
        ({"clip": 1, "variant": "larc"}, "True or False, got clip=1"),
        (
            {"classic_momentum": True, "variant": "larc"},
            "got classic_momentum=True with variant='larc'",
        ),
        ({"classic_momentum": False}, "classic_momentum=False with .*'paper'"),
        ({"exclude": "("}, r"regular expressions .*, got '\('"),
        ({"exclude": [3]}, "regular expressions .*, got 3"),
        ({"exclude": 3}, r"got exclude=3. Use \(\)"),
        ({"nesterov": True}, "nesterov"),
    ],
)
def test_lars__illegal_argument__error_names_it(arguments, message):
    with pytest.raises(ValueError, match=message):
        LARS(1.0, **arguments)


def test_lars__keras_exclusions__are_refused_since_they_are_not_saved():
    with pytest.raises(ValueError, match=r"var_names=\['bias'\].*exclude=\["):
        LARS(1.0).exclude_from_weight_decay(var_names=["bias"])


def test_lars__decoupled_decay__is_refused():
    with pytest.raises(ValueError, match="Set `l2_weight_decay`"):
        LARS(1.0).weight_decay = 0.1
