"""MomentumSGD against a NumPy loop, hand numbers and stock Keras."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tf_gnc import schedules
from tf_gnc.optimizers import MomentumSGD

UNIT = 2.0**-24  # Largest relative error of one rounding to float32.
STEPS = 10


def numpy_loop(x, gradients, rates, momentum, decay):
    """The paper's update in float64; returns the weights after each step."""
    x = np.array(x, np.float64)
    velocity = np.zeros_like(x)
    path = []
    for gradient, rate in zip(gradients, rates, strict=True):
        velocity = momentum * velocity - rate * (gradient + decay * x)
        x = x + velocity
        path.append(x)
    return np.array(path)


def run(optimizer, x, gradients):
    """The weights after each step of the optimizer."""
    variable = keras.Variable(np.float32(x))
    path = []
    for gradient in gradients:
        optimizer.apply([tf.constant(gradient)], [variable])
        path.append(variable.numpy())
    return np.array(path)


def problem(shape=(3, 4)):
    """Start weights in [-1, 1] and ten gradients, as float32."""
    rng = np.random.default_rng(0)
    x = rng.uniform(-1, 1, shape).astype("float32")
    return x, rng.uniform(-1, 1, (STEPS, *shape)).astype("float32")


def tolerance(rates, momentum):
    """Absolute bound on the rounding errors of ten steps of `problem`.

    With |g + decay * x| <= 2, a velocity stays below V = 2 rate / (1 - m) and
    a weight below 1 + 10 V. A step rounds the velocity, five times, and the
    weight, once, and the rate may be five roundings off; the velocity's error
    reaches the weight 1 / (1 - m) times.
    """
    velocity = 2 * max(rates) / (1 - momentum)
    weight = 1 + STEPS * velocity
    return STEPS * UNIT * (10 * velocity / (1 - momentum) + weight)


@pytest.mark.parametrize("momentum", [0.9, 0.5, 0])
@pytest.mark.parametrize("decay", [0, 0.1])
def test_momentum_sgd__ten_steps_of_a_schedule__equal_the_numpy_loop(
    momentum, decay
):
    x, gradients = problem()
    decays = schedules.StepDecay(0.5, [5, 8], factor=0.5)
    schedule = schedules.WarmUp(0.1, 4, decays)
    rates = [0.1, 0.2, 0.3, 0.4, 0.5] + [0.25] * 3 + [0.125] * 2
    optimizer = MomentumSGD(schedule, momentum, decay)
    expected = numpy_loop(x, gradients, rates, momentum, decay)
    np.testing.assert_allclose(
        run(optimizer, x, gradients),
        expected,
        rtol=0,
        atol=tolerance(rates, momentum),
    )


@pytest.mark.parametrize("momentum", [0.9, 0.0])
def test_momentum_sgd__no_decay__equals_stock_keras_bit_for_bit(momentum):
    x, gradients = problem()
    ours = run(MomentumSGD(0.1, momentum), x, gradients)
    stock = run(keras.optimizers.SGD(0.1, momentum), x, gradients)
    np.testing.assert_array_equal(ours, stock)


def test_momentum_sgd__decay_alone__builds_up_in_the_velocity():
    zeros = np.zeros((2, 1), "float32")
    # lambda = eta = m = 1/2 and x = 1, in the gradient:
    #   v = -1/4, x = 3/4;  v = -1/8 - 3/16 = -5/16, x = 7/16.
    ours = MomentumSGD(0.5, momentum=0.5, weight_decay=0.5)
    assert run(ours, [1.0], zeros)[:, 0].tolist() == [0.75, 0.4375]
    # Decoupled, as Keras has it: x = (1 - 1/4) x at every step.
    stock = keras.optimizers.SGD(0.5, momentum=0.5, weight_decay=0.5)
    assert run(stock, [1.0], zeros)[:, 0].tolist() == [0.75, 0.5625]


def test_momentum_sgd__rate_drops__leaves_the_velocity_as_it_was():
    # The rate inside: v = -1, then -1/2 - 1/8. Outside, as in PyTorch, the
    # second step would be -(1/8) * (1/2 + 1) = -3/16 instead of -5/8.
    schedule = schedules.StepDecay(1.0, [1], factor=0.125)
    optimizer = MomentumSGD(schedule, momentum=0.5)
    path = run(optimizer, [0.0], np.ones((2, 1), "float32"))
    assert path[:, 0].tolist() == [-1.0, -1.625]


def test_momentum_sgd__excluded_variables__do_not_decay():
    kernel = keras.Variable([1.0], name="kernel")
    beta = keras.Variable([1.0], name="beta")
    bias = keras.Variable([1.0], name="bias")
    optimizer = MomentumSGD(0.5, weight_decay=0.5)
    optimizer.exclude_from_weight_decay(var_list=[beta], var_names=["bias"])
    optimizer.apply([tf.zeros(1)] * 3, [kernel, beta, bias])
    values = [float(v.numpy()[0]) for v in (kernel, beta, bias)]
    assert values == [0.75, 1.0, 1.0]


def test_momentum_sgd__clipping__bounds_the_gradient_before_the_decay():
    optimizer = MomentumSGD(0.5, momentum=0, weight_decay=4.0, clipvalue=1.0)
    # 8 - (clip(10) + 4 * 8) / 2; clipping the sum would give 7.5.
    path = run(optimizer, [8.0], np.float32([[10.0]]))
    assert path.tolist() == [[8 - 33 / 2]]


def test_momentum_sgd__accumulated_gradients__decay_once_per_update():
    optimizer = MomentumSGD(
        0.5, momentum=0, weight_decay=0.5, gradient_accumulation_steps=2
    )
    path = run(optimizer, [1.0], np.float32([[1.0], [2.0]]))
    assert path[:, 0].tolist() == [1.0, 1 - 0.5 * (1.5 + 0.5)]


@pytest.mark.parametrize("momentum", [0.5, 0.0])
@pytest.mark.parametrize("decay", [0.25, 0.0])
def test_momentum_sgd__sparse_gradient__equals_the_dense_one(momentum, decay):
    x, _ = problem((4, 2))
    rows = np.float32([[1, 2], [3, 4], [5, 6]])
    dense = np.zeros((4, 2), "float32")
    np.add.at(dense, [2, 0, 2], rows)  # row 2 is mentioned twice
    expected = run(MomentumSGD(0.5, momentum, decay), x, [dense] * 3)
    variable = keras.Variable(x)
    optimizer = MomentumSGD(0.5, momentum, decay)
    for step in range(3):
        sparse = tf.IndexedSlices(
            tf.constant(rows), tf.constant([2, 0, 2]), tf.constant([4, 2])
        )
        optimizer.apply([sparse], [variable])
        # The order of summing row 2 is free; its values stay below 32.
        np.testing.assert_allclose(
            variable.numpy(), expected[step], rtol=0, atol=10 * 32 * UNIT
        )


@pytest.mark.parametrize("jit_compile", [False, True])
def test_momentum_sgd__compiled__equals_the_numpy_loop(jit_compile):
    x, gradients = problem()
    variable = keras.Variable(x)
    optimizer = MomentumSGD(0.1, weight_decay=0.1)
    optimizer.build([variable])

    @tf.function(jit_compile=jit_compile)
    def apply(gradient):
        optimizer.apply([gradient], [variable])

    for gradient in gradients:
        apply(tf.constant(gradient))
    expected = numpy_loop(x, gradients, [0.1] * STEPS, 0.9, 0.1)[-1]
    np.testing.assert_allclose(
        variable.numpy(), expected, rtol=0, atol=tolerance([0.1], 0.9)
    )


def test_momentum_sgd__two_replicas__decay_once_on_the_summed_gradient():
    devices = tf.config.list_logical_devices("CPU")
    assert len(devices) >= 2, "tests/conftest.py must set up logical CPUs"
    strategy = tf.distribute.MirroredStrategy([d.name for d in devices[:2]])
    x, gradients = problem()
    with strategy.scope():
        kernel = keras.Variable(x, name="kernel")
        bias = keras.Variable(x, name="bias")
        optimizer = MomentumSGD(0.1, weight_decay=0.1)
        optimizer.exclude_from_weight_decay(var_names=["bias"])
        optimizer.build([kernel, bias])

    @tf.function
    def step(gradient):
        def on_replica():
            # A quarter and three quarters of the gradient, for the sum's sake.
            context = tf.distribute.get_replica_context()
            share = tf.constant([0.25, 0.75])[context.replica_id_in_sync_group]
            optimizer.apply([share * gradient] * 2, [kernel, bias])

        strategy.run(on_replica)

    for gradient in gradients:
        step(tf.constant(gradient))
    for variable, decay in ((kernel, 0.1), (bias, 0.0)):
        expected = numpy_loop(x, gradients, [0.1] * STEPS, 0.9, decay)[-1]
        for copy in strategy.experimental_local_results(variable.value):
            np.testing.assert_allclose(
                copy.numpy(), expected, rtol=0, atol=2 * tolerance([0.1], 0.9)
            )


def test_momentum_sgd__loss_scaling__unscales_and_skips_overflows():
    variable = keras.Variable([1.0])
    inner = MomentumSGD(0.5, momentum=0.5, weight_decay=0.5)
    optimizer = keras.optimizers.LossScaleOptimizer(inner, initial_scale=4.0)
    optimizer.apply([tf.constant([4.0])], [variable])
    assert variable.numpy().tolist() == [1 - 0.5 * (1 + 0.5)]
    velocity = inner.velocities[0].numpy().tolist()
    optimizer.apply([tf.constant([np.inf])], [variable])
    assert variable.numpy().tolist() == [0.25]
    assert inner.velocities[0].numpy().tolist() == velocity == [-0.75]


def test_momentum_sgd__mixed_float16_model__trains_in_compile_and_fit():
    x, y = np.eye(2, dtype="float32"), np.ones((2, 1), "float32")
    weights = []
    for policy in ("float32", "mixed_float16"):
        dense = keras.layers.Dense(1, kernel_initializer="zeros", dtype=policy)
        model = keras.Sequential([keras.Input((2,)), dense])
        optimizer = MomentumSGD(0.125, weight_decay=0.5)
        if policy == "mixed_float16":
            optimizer = keras.optimizers.LossScaleOptimizer(optimizer, 128.0)
        model.compile(optimizer, "mse")
        model.fit(x, y, batch_size=2, epochs=3, verbose=0)
        weights.append(dense.kernel.numpy())
    assert weights[0].min() > 0
    # A few gradients rounded to 11 bits, rates and weights of order 1.
    np.testing.assert_allclose(*weights, rtol=0, atol=10 * 2.0**-11)


def test_momentum_sgd__no_momentum__allocates_no_velocities():
    variable = keras.Variable(np.zeros((5, 5), "float32"))
    without, with_momentum = MomentumSGD(0.1, momentum=0), MomentumSGD(0.1)
    without.build([variable])
    with_momentum.build([variable])
    assert without.velocities == []
    assert len(with_momentum.variables) == len(without.variables) + 1


def test_momentum_sgd__config__round_trips():
    schedule = schedules.cifar_schedule(8192, 6)
    original = MomentumSGD(
        schedule, np.float32(0.5), 1e-4, name="mine", clipnorm=1.0, use_ema=True
    )
    config = keras.optimizers.serialize(original)
    # Keras's own from_config writes into the dictionary that it is given.
    copy = keras.optimizers.deserialize(keras.optimizers.serialize(original))
    assert type(copy) is MomentumSGD
    assert keras.optimizers.serialize(copy) == config
    assert (copy.momentum, copy.l2_weight_decay) == (0.5, 1e-4)
    assert (copy.clipnorm, copy.name) == (1.0, "mine")
    assert float(copy.learning_rate) == float(original.learning_rate)


def test_momentum_sgd__saved_and_loaded__goes_on_as_if_never_stopped(tmp_path):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(8, 3)).astype("float32")
    y = rng.normal(size=(8, 1)).astype("float32")
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])
    schedule = schedules.WarmUp(0.01, 3, 0.1)
    model.compile(MomentumSGD(schedule, weight_decay=0.1), "mse")
    model.fit(x, y, batch_size=4, shuffle=False, verbose=0)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert any(v.numpy().any() for v in loaded.optimizer.velocities)
    for each in (model, loaded):
        each.fit(x, y, batch_size=4, shuffle=False, verbose=0)
    assert int(loaded.optimizer.iterations) == 4
    for ours, theirs in zip(model.weights, loaded.weights, strict=True):
        np.testing.assert_array_equal(ours.numpy(), theirs.numpy())


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"momentum": -0.1}, "`momentum` must be .* got momentum=-0.1"),
        (
            {"momentum": 1.1},
            "`momentum` must be .* at most 1, got momentum=1.1",
        ),
        ({"weight_decay": -1e-4}, "at least 0, got weight_decay=-0.0001"),
        ({"weight_decay": None}, "got weight_decay=None"),
        ({"learning_rate": -1}, "at least 0, got learning_rate=-1"),
        ({"learning_rate": "0.1"}, "got learning_rate='0.1'"),
        ({"nesterov": True}, "nesterov"),
    ],
)
def test_momentum_sgd__illegal_argument__error_names_it(arguments, message):
    with pytest.raises(ValueError, match=message):
        MomentumSGD(**arguments)
    MomentumSGD(0, momentum=1, weight_decay=0)  # the edges are legal


def test_momentum_sgd__decoupled_decay_set_later__is_refused():
    optimizer = MomentumSGD(weight_decay=0.5)
    assert optimizer.weight_decay is None
    with pytest.raises(ValueError, match="got weight_decay=0.25. Set `l2_we"):
        optimizer.weight_decay = 0.25
    optimizer.l2_weight_decay = 0.25
    assert optimizer.get_config()["weight_decay"] == 0.25
