"""Every member of the family against NumPy, on any topology; its limits."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import tf_gnc
from tests import problems
from tests.noise.members import (
    EVERY_MEMBER,
    PATHS,
    STEPS,
    B,
    M,
    assert_near,
    by_model,
    by_numpy,
    compiled,
    doubles,
    expected_of,
    fit,
    images,
    rule_of,
    start,
    weights_of,
)
from tf_gnc import GradientNoise, MomentumNoise, SharpnessAware

# Those whose group spans two replicas of four workers each.
SPANNING = (
    "sam", "sam of kernels", "asam", "every 3, of all", "gnc_current",
)  # fmt: skip


@EVERY_MEMBER
def test_member__one_replica__agrees_with_numpy(name):
    assert_near(by_model(rule_of(name)), expected_of(name), 1e-5)


# On several replicas in float64, whose rounding hides nothing.


@EVERY_MEMBER
def test_member__two_replicas__agree_with_numpy_by_few_sums(name):
    """One sum over the replicas, and one for a group above a replica."""
    model = compiled(rule_of(name, "float64"), 2, **doubles())
    model.set_weights(start())
    graphs, train_step = [], model.train_step

    def watched(data):
        graphs.append(tf.compat.v1.get_default_graph())
        return train_step(data)

    model.train_step = watched
    fit(model, batches=images())
    assert_near(weights_of(model), expected_of(name), 1e-12)
    found = list(problems.sums_over_replicas(graphs[0]))
    assert len(found) == (2 if name in SPANNING else 1)


@EVERY_MEMBER
def test_member__four_replicas__agree_with_numpy(name):
    found = by_model(rule_of(name, "float64"), 4, **doubles())
    assert_near(found, expected_of(name), 1e-12)


@pytest.mark.parametrize("replicas", [1, 2])
def test_group__that_divides_workers_but_no_replica__agrees_with_numpy(
    replicas,
):
    """Twelve workers in threes of four: six a replica, the second in both."""
    found = by_model(
        SharpnessAware(0.3, group=4), replicas, 24, num_workers=12, **doubles()
    )
    told = {"kind": "sam", "coefficient": 0.3, "group": 4}
    expected = by_numpy(24, 12, **told)
    assert_near(found, expected, 1e-12)


@pytest.mark.parametrize("name", PATHS)
def test_member__xla_and_several_steps_a_call__agree_with_numpy(name):
    found = by_model(rule_of(name), jit_compile=True, steps_per_execution=5)
    assert_near(found, expected_of(name), 1e-5)


# What one member has beside its usual arguments.
VARIANTS = {
    "sam, kernels": (
        lambda: SharpnessAware(0.3, "all", include_vectors=False),
        {"kind": "sam", "group": M, "include_vectors": False},
    ),
    "asam, kernels": (
        lambda: SharpnessAware(0.3, adaptive=True, include_vectors=False),
        {"kind": "sam", "adaptive": True, "include_vectors": False},
    ),
    "momentum, kernels": (
        lambda: MomentumNoise(0.3, include_vectors=False),
        {"kind": "momentum", "include_vectors": False},
    ),
    "sam, a while": (
        lambda: SharpnessAware(0.3, "all", every=2, start_step=3, stop_step=8),
        {"kind": "sam", "group": M, "every": 2, "start_step": 3,
         "stop_step": 8},
    ),
    "momentum, a while": (
        lambda: MomentumNoise(0.3, every=3, start_step=1, stop_step=9),
        {"kind": "momentum", "every": 3, "start_step": 1, "stop_step": 9},
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", VARIANTS)
def test_variant__one_replica__agrees_with_numpy(name):
    make, told = VARIANTS[name]
    expected = by_numpy(coefficient=0.3, **told)
    other = {"include_vectors": True, "every": 1}
    usual = by_numpy(coefficient=0.3, **{**told, **other})
    assert problems.largest_difference(expected, usual) > 1e-3
    assert_near(by_model(make()), expected, 1e-5)


# Limits.


def test_worker_sam__one_worker__is_sam():
    found = [
        weights_of(fit(compiled(SharpnessAware(0.3, group), num_workers=1)))
        for group in (1, "all")
    ]
    assert_near(*found, rtol=1e-6)


def test_current__identical_workers__are_not_displaced():
    x, y = problems.images(2, seed=5)
    data = np.tile(x, (STEPS * M, 1, 1, 1)), np.tile(y, STEPS * M)
    found = fit(compiled(GradientNoise(5.0, current=True)), batches=data)
    plain = fit(compiled(None), batches=data)
    assert_near(weights_of(found), weights_of(plain), 1e-5)


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
    plain = by_numpy(kind="gnc", coefficient=0.0)
    assert_near(by_model(rule, **doubles()), plain, 1e-12)


def test_asam__weights_of_one_size__is_sam_with_another_rho():
    """T = |x| + 0.01 is then a number: T^2 g / |T g| = T g / |g|."""
    moved = []
    for rule in (
        SharpnessAware(0.1, adaptive=True),
        SharpnessAware(0.1 * 0.51),
    ):
        model = compiled(rule, network=problems.dense_network)
        signs = np.random.default_rng(0)
        for v in model.trainable_variables:
            v.assign(0.5 * signs.choice([-1.0, 1.0], v.shape))
        x, y = problems.vectors(B)
        model.fit(x, y, batch_size=B, verbose=0)
        moved.append(weights_of(model))
    assert_near(*moved, rtol=1e-5)


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
    assert all((w == 0).all() for w in weights_of(model))


# What is given, and what is not.


class Undeclared(tf_gnc.NoiseRule):
    needs = frozenset({"previous"})

    def direction(self, at):
        return at.previous - at.previous_mean


def test_own_rule__vector_not_declared__error_names_it():
    with pytest.raises(ValueError, match="Add 'previous_mean' to its `needs`"):
        fit(compiled(Undeclared(0.1)), steps=1)


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

    model = fit(compiled(Mean(2.0)), steps=3)
    assert model.step_plan.memory.gradients.shape[0] == 0
    # All workers at x - alpha eta |x_p| mean: extrapolation of one worker.
    own = compiled(GradientNoise(2.0, center=False), num_workers=1)
    assert_near(weights_of(model), weights_of(fit(own, steps=3)), 1e-5)


@pytest.mark.parametrize(("group", "workers"), [(3, 8), (4, 6), (8, 4)])
def test_group__not_a_divisor__names_those_that_are(group, workers):
    divisors = {8: "1, 2, 4, 8", 6: "1, 2, 3, 6", 4: "1, 2, 4"}[workers]
    model = compiled(SharpnessAware(0.1, group=group), num_workers=workers)
    with pytest.raises(
        ValueError,
        match=f"group={group} with num_workers={workers}. Use one of "
        f"{divisors}, or 'all'",
    ):
        fit(model, steps=1, size=24)
