"""Every member of the family against NumPy, at its limits, on any topology."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import tf_gnc
from tests import oracles_family, problems
from tf_gnc import GradientNoise, MomentumNoise, SharpnessAware

M, B, STEPS, RATE, DECAY = 8, 16, 10, 0.1, 0.01

# By name: the rule, and what the oracle is told.
MEMBERS = {
    "extrapolation": (
        lambda: GradientNoise(2.0, center=False),
        {"kind": "gnc", "coefficient": 2.0, "center": False},
    ),
    "gnc_current": (
        lambda: GradientNoise(2.0, current=True),
        {"kind": "gnc", "coefficient": 2.0, "current": True},
    ),
    "gnc_uphill": (
        lambda: GradientNoise(2.0, uphill=True),
        {"kind": "gnc", "coefficient": 2.0, "uphill": True},
    ),
    "uphill, current, not centred": (
        lambda: GradientNoise(2.0, center=False, current=True, uphill=True),
        {"kind": "gnc", "coefficient": 2.0, "center": False, "current": True,
         "uphill": True},
    ),
    "sam": (
        lambda: SharpnessAware(0.3, group="all"),
        {"kind": "sam", "coefficient": 0.3, "group": M},
    ),
    "worker_sam": (
        lambda: SharpnessAware(0.3),
        {"kind": "sam", "coefficient": 0.3},
    ),
    "groups of 2": (
        lambda: SharpnessAware(0.3, group=2),
        {"kind": "sam", "coefficient": 0.3, "group": 2},
    ),
    "groups of 4": (
        lambda: SharpnessAware(0.3, group=4),
        {"kind": "sam", "coefficient": 0.3, "group": 4},
    ),
    "asam": (
        lambda: SharpnessAware(0.5, group="all", adaptive=True),
        {"kind": "sam", "coefficient": 0.5, "group": M, "adaptive": True},
    ),
    "every 3": (
        lambda: SharpnessAware(0.3, every=3),
        {"kind": "sam", "coefficient": 0.3, "every": 3},
    ),
    "every 3, of all": (
        lambda: SharpnessAware(0.3, group="all", every=3),
        {"kind": "sam", "coefficient": 0.3, "group": M, "every": 3},
    ),
    "momentum_sam": (
        lambda: MomentumNoise(0.3),
        {"kind": "momentum", "coefficient": 0.3},
    ),
}  # fmt: skip
ONE_PASS = ("extrapolation", "gnc_uphill", "momentum_sam")


def _data(steps=STEPS, seed=3):
    return problems.images(B * steps, seed=seed)


def _model(rule, replicas=1, num_workers=M, network=None, **arguments):
    with problems.mirrored(replicas):
        keras.utils.set_random_seed(1)
        model = (network or problems.plain_network)()
        model.compile(
            tf_gnc.optimizers.MomentumSGD(RATE, 0.9, DECAY),
            problems.cross_entropy(),
            noise=rule,
            num_workers=num_workers,
            **arguments,
        )
    return model


def _fit(model, steps=STEPS, data=None):
    x, y = data or _data(steps)
    model.fit(x, y, batch_size=B, shuffle=False, verbose=0)
    return model


def _weights(model):
    return [v.numpy() for v in model.trainable_variables]


def _assert_near(found, expected, rtol=1e-5):
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=rtol, atol=rtol * np.abs(b).max())


@pytest.mark.parametrize("name", MEMBERS)
def test_member__ten_steps__agree_with_numpy(name):
    make, told = MEMBERS[name]
    model = _model(make())
    start = _weights(model)
    x, y = _data()
    batches = [(x[i : i + B], y[i : i + B]) for i in range(0, len(x), B)]
    expected = oracles_family.train(
        start, batches, M, RATE, decay=DECAY, **told
    )
    plain = oracles_family.train(
        start, batches, M, RATE, decay=DECAY, **{**told, "coefficient": 1e-12}
    )
    _assert_near(_weights(_fit(model)), expected, 2e-5)
    # The member makes a difference that the tolerance would not hide.
    assert problems.largest_difference(expected, plain) > 1e-3


@pytest.mark.parametrize("name", MEMBERS)
def test_member__two_replicas__are_one(name):
    make, _ = MEMBERS[name]
    two = _fit(_model(make(), replicas=2), steps=4)
    _assert_near(_weights(two), _weights(_fit(_model(make()), steps=4)), 2e-5)


@pytest.mark.parametrize("name", ["sam", "groups of 4", "gnc_current"])
def test_member__group_over_four_replicas__is_one(name):
    make, _ = MEMBERS[name]
    four = _fit(_model(make(), replicas=4), steps=3)
    _assert_near(_weights(four), _weights(_fit(_model(make()), steps=3)), 2e-5)


# Limits.


def test_worker_sam__one_worker__is_sam():
    found = [
        _weights(_fit(_model(SharpnessAware(0.3, group), num_workers=1)))
        for group in (1, "all")
    ]
    _assert_near(*found, rtol=1e-6)


def test_current__identical_workers__are_not_displaced():
    x, y = problems.images(2, seed=5)
    data = np.tile(x, (STEPS * M, 1, 1, 1)), np.tile(y, STEPS * M)
    found = _fit(_model(GradientNoise(5.0, current=True)), data=data)
    plain = _fit(_model(None), data=data)
    _assert_near(_weights(found), _weights(plain), 1e-5)


@pytest.mark.parametrize(
    "rule",
    [
        GradientNoise(0.0, center=False),
        SharpnessAware(0.0),
        MomentumNoise(0.0),
        SharpnessAware(0.3, start_step=STEPS),
        MomentumNoise(0.3, stop_step=0),
    ],
    ids=repr,
)
def test_rule__turned_off__is_no_noise(rule):
    _assert_near(
        _weights(_fit(_model(rule))), _weights(_fit(_model(None))), 1e-6
    )


def test_asam__weights_of_one_size__is_sam_with_another_rho():
    """T = |x| + 0.01 is then a number: T^2 g / |T g| = T g / |g|."""
    moved = []
    for rule in (
        SharpnessAware(0.1, adaptive=True),
        SharpnessAware(0.1 * 0.51),
    ):
        model = _model(rule, network=problems.dense_network)
        signs = np.random.default_rng(0)
        for v in model.trainable_variables:
            v.assign(0.5 * signs.choice([-1.0, 1.0], v.shape))
        x, y = problems.vectors(B)
        model.fit(x, y, batch_size=B, verbose=0)
        moved.append(_weights(model))
    _assert_near(*moved, rtol=1e-5)


def test_sam__zero_gradient__stays():
    model = problems.dense_network()
    model.compile(
        keras.optimizers.SGD(0.1),
        keras.losses.MeanSquaredError(),
        noise=SharpnessAware(0.5),
        num_workers=4,
    )
    for v in model.trainable_variables:
        v.assign(tf.zeros(v.shape))
    x, _ = problems.vectors(B)
    outputs = model(x)
    model.fit(x, np.zeros(outputs.shape), batch_size=B, verbose=0)
    assert all((w == 0).all() for w in _weights(model))


# What is given, and what is not.


class Undeclared(tf_gnc.NoiseRule):
    needs = frozenset({"previous"})

    def direction(self, at):
        return at.previous - at.previous_mean


def test_own_rule__vector_not_declared__error_names_it():
    with pytest.raises(ValueError, match="Add 'previous_mean' to its `needs`"):
        _fit(_model(Undeclared(0.1)), steps=1)


def test_own_rule__unknown_need__is_refused():
    class Wrong(tf_gnc.NoiseRule):
        needs = frozenset({"future"})

    with pytest.raises(ValueError, match="`needs` of Wrong must be a set of"):
        Wrong(0.1)


def test_own_rule__previous_mean_alone__keeps_no_workers_gradients():
    class Mean(tf_gnc.NoiseRule):
        needs = frozenset({"previous_mean"})

        def direction(self, at):
            return at.previous_mean

    model = _fit(_model(Mean(2.0)), steps=3)
    assert model.step_plan.memory.gradients.shape[0] == 0
    # All workers at x - alpha eta |x_p| mean: extrapolation of one worker.
    own = _fit(_model(GradientNoise(2.0, center=False), num_workers=1), steps=3)
    _assert_near(_weights(model), _weights(own), 1e-5)


def test_group__not_a_divisor__names_those_that_are():
    with pytest.raises(ValueError, match="group=3 with num_workers=8. Use one"):
        _fit(_model(SharpnessAware(0.1, group=3)), steps=1)


@pytest.mark.parametrize(
    "optimizer", [keras.optimizers.SGD(0.1), keras.optimizers.Adagrad(0.1)]
)
def test_momentum__optimizer_without_one__says_which_have(optimizer):
    model = problems.dense_network()
    model.compile(
        optimizer, problems.cross_entropy(), noise=MomentumNoise(0.1),
        num_workers=4,
    )  # fmt: skip
    x, y = problems.vectors(B)
    with pytest.raises(ValueError, match="optimizer with one, got"):
        model.fit(x, y, batch_size=B, verbose=0)


OPTIMIZERS = {
    "ours": lambda: tf_gnc.optimizers.MomentumSGD(0.1, 0.9),
    "lars": lambda: tf_gnc.optimizers.LARS(1.0, 0.9, 0.01),
    "larc": lambda: tf_gnc.optimizers.LARS(1.0, 0.9, 0.01, variant="larc"),
    "sgd": lambda: keras.optimizers.SGD(0.1, momentum=0.9),
    "adam": lambda: keras.optimizers.Adam(0.01),
    "adamw": lambda: keras.optimizers.AdamW(0.01),
    "nadam": lambda: keras.optimizers.Nadam(0.01),
    "adamax": lambda: keras.optimizers.Adamax(0.01),
    "lamb": lambda: keras.optimizers.Lamb(0.01),
    "lion": lambda: keras.optimizers.Lion(0.01),
    "rmsprop": lambda: keras.optimizers.RMSprop(0.01, momentum=0.9),
    "loss scale": lambda: keras.optimizers.LossScaleOptimizer(
        keras.optimizers.SGD(0.1, momentum=0.9)
    ),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_update_vectors__each_optimizer__point_the_way_the_weights_went(name):
    """After a first step from rest all of them went along their momentum."""
    from tf_gnc import _keras_compat

    x = keras.Variable(np.array([1.0, -2.0, 3.0], "float32"))
    optimizer = OPTIMIZERS[name]()
    optimizer.build([x])
    before = x.numpy()
    gradient = tf.constant([0.5, 0.25, -1.0])
    optimizer.apply([optimizer.scale_loss(gradient)], [x])
    (update,) = _keras_compat.update_vectors(optimizer, [x])
    moved = x.numpy() - before
    assert (np.sign(update) == np.sign(moved)).all(), (update, moved)


# Batch normalization, and the passes.


@pytest.mark.parametrize("group", [1, "all"])
def test_statistics__clean_pass__are_those_of_no_noise(group):
    x, y = _data(1)
    kept = {}
    for statistics in ("clean", "displaced", None):
        rule = statistics and SharpnessAware(2.0, group, statistics=statistics)
        model = _model(rule, network=problems.full_network)
        model.fit(x, y, batch_size=B, shuffle=False, verbose=0)
        kept[statistics] = [
            v.numpy() for v in model.non_trainable_variables
            if "moving" in v.path
        ]  # fmt: skip
    _assert_near(kept["clean"], kept[None], 1e-5)
    assert any(
        np.abs(a - b).max() > 1e-3
        for a, b in zip(kept["displaced"], kept[None], strict=True)
    )


@pytest.mark.parametrize("name", MEMBERS)
def test_member__xla_and_several_steps_a_call__are_the_same(name):
    make, _ = MEMBERS[name]
    plain = _fit(_model(make(), network=problems.dense_network), steps=6,
                 data=problems.vectors(6 * B))  # fmt: skip
    for arguments in ({"jit_compile": True}, {"steps_per_execution": 3}):
        model = _model(make(), network=problems.dense_network, **arguments)
        _fit(model, data=problems.vectors(6 * B))
        _assert_near(_weights(model), _weights(plain), 1e-4)


@pytest.mark.parametrize("name", MEMBERS)
def test_member__configuration__makes_an_equal_rule(name):
    rule = MEMBERS[name][0]()
    again = type(rule).from_config(rule.get_config())
    assert again == rule
    kept = keras.saving.serialize_keras_object(rule)
    assert keras.saving.deserialize_keras_object(kept) == rule
