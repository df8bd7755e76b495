"""Which weights a rule displaces, and by what share of their norms."""

import json

import keras
import numpy as np
import pytest

import tf_gnc
from tests import problems
from tf_gnc import GradientNoise, MomentumNoise, RandomNoise, SharpnessAware
from tf_gnc.callbacks import Probe

M, B = 4, 16


def _model(rule, rate=0.1, network=problems.dense_network):
    model = network()
    model.compile(
        keras.optimizers.SGD(rate, momentum=0.9), problems.cross_entropy(),
        noise=rule, num_workers=M,
    )  # fmt: skip
    return model


def _fit(model, data=problems.vectors, callbacks=()):
    """Four steps."""
    x, y = data(4 * B)
    model.fit(
        x, y, batch_size=B, shuffle=False, verbose=0, callbacks=[*callbacks]
    )
    return model


def _moves(model):
    """Each variable's displacements in the coming step: worker by worker."""
    plan = model.step_plan
    clean = plan.clean_weights()
    displaced = plan.displacement(clean, model.optimizer, plan.begin_step())
    vectors = {}
    if plan.rule.takes_two_passes:  # Any gradient will do.
        vectors["current_mean"] = clean + 1.0
    moves = [displaced(i, **vectors)[1] - clean for i in range(M)]
    return {
        variable.path: np.array(parts)
        for variable, *parts in zip(
            plan.variables, *map(plan.layout.unpack, moves), strict=True
        )
    }


RULES = {
    "gnc": GradientNoise,
    "rnc": lambda alpha=None, **more: RandomNoise(alpha, seed=1, **more),
    "sam": SharpnessAware,
    "asam": lambda rho=None, **more: SharpnessAware(rho, adaptive=True, **more),
    "momentum_sam": MomentumNoise,
}


@pytest.mark.parametrize("name", RULES)
def test_relative__each_filter__moves_by_that_share_of_its_norm(name):
    model = _fit(_model(RULES[name](relative=0.02)))
    for v in model.trainable_variables:
        if "beta" in v.path or "bias" in v.path:  # They began as zeros.
            v.assign(np.zeros(v.shape))
    for rate in (0.1, 0.003):
        model.optimizer.learning_rate = rate
        moves = _moves(model)
        for variable in model.trainable_variables:
            x, moved = variable.numpy(), moves[variable.path]
            axes = tuple(range(x.ndim - 1)) if x.ndim > 1 else None
            expected = 0.02 * np.sqrt((x**2).sum(axes))
            for one in moved:
                np.testing.assert_allclose(
                    np.sqrt((one**2).sum(axes)), expected, rtol=1e-3, atol=1e-8
                )
            assert (np.abs(moved).max() > 1e-3) == (expected.max() > 0)


def test_relative__coefficient__is_driven_as_any_other():
    model = _fit(_model(GradientNoise(relative=0.02)))
    assert model.noise_alpha == 0.02
    before = _moves(model)
    model.noise_alpha = 0.04
    for path, moved in _moves(model).items():
        np.testing.assert_allclose(
            moved, 2 * before[path], rtol=1e-3, atol=1e-7
        )
        assert np.abs(moved).max() > 1e-4 or "kernel" not in path


def test_relative__nothing_but_rounding__stays():
    """Workers alike have no noise, however long it may be."""
    x, y = problems.vectors(B // M)
    data = np.tile(x, (4 * M, 1)), np.tile(y, 4 * M)
    for rule in (
        GradientNoise(relative=0.5),
        GradientNoise(relative=0.5, noise_dtype="bfloat16"),
    ):
        model = _fit(_model(rule), lambda size: data)
        assert all(np.abs(m).max() == 0 for m in _moves(model).values())


def test_relative__bias_before_batch_norm__stays():
    """Its gradient is rounding alone; those behind have one."""

    def network():
        keras.utils.set_random_seed(1)
        inputs = keras.Input((5,))
        first = keras.layers.Dense(8, bias_initializer="ones")
        h = keras.layers.BatchNormalization()(first(inputs))
        last = keras.layers.Dense(4, bias_initializer="ones")
        return tf_gnc.GNCModel(inputs, last(h))

    model = _fit(_model(MomentumNoise(relative=0.1), network=network))
    variables = model.step_plan.variables
    moves = _moves(model)
    assert np.abs(moves[variables[1].path]).max() == 0
    assert np.abs(moves[variables[-1].path]).max() > 1e-3


def test_relative__direction__is_the_rules_own():
    """Filter by filter, with the cosine of 1 to the noise itself."""
    own, ours = (
        _fit(_model(rule))
        for rule in (GradientNoise(0.0), GradientNoise(relative=0.0))
    )  # Equal weights and memory: noise of no length.
    for model, coefficient in ((own, 1.0), (ours, 0.01)):
        model.noise_alpha = coefficient
    a, b = (
        next(m for path, m in _moves(model).items() if "kernel" in path)
        for model in (own, ours)
    )
    cosines = (a * b).sum(1) / np.sqrt((a**2).sum(1) * (b**2).sum(1))
    np.testing.assert_allclose(cosines, 1, atol=1e-4)


@pytest.mark.parametrize("name", RULES)
def test_include__pattern__displaces_those_paths_alone(name):
    length = 0.5 if name in ("sam", "asam", "momentum_sam") else 5.0
    model = _fit(_model(RULES[name](length, include="gamma|beta")))
    moves = _moves(model)
    moved = {p for p, m in moves.items() if np.abs(m).max() > 0}
    assert moved == {p for p in moves if "gamma" in p or "beta" in p}
    assert 0 < len(moved) < len(moves)
    if name in ("sam", "momentum_sam"):  # The norm is over those alone.
        parts = [moves[path].reshape(M, -1) for path in moved]
        lengths = np.sqrt((np.concatenate(parts, 1) ** 2).sum(1))
        np.testing.assert_allclose(lengths, length, rtol=1e-4)


def test_include__kernels__is_what_include_vectors_leaves():
    """By another road: both leave the same weights, bit for bit."""
    ours, theirs = (
        _fit(_model(rule, network=problems.plain_network), problems.images)
        for rule in (
            GradientNoise(5.0, include="kernel"),
            GradientNoise(5.0, include_vectors=False),
        )
    )
    for a, b in zip(ours.get_weights(), theirs.get_weights(), strict=True):
        assert (a == b).all()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"include": "kernal"}, r"include='kernal'.*dense.*/kernel"),
        ({"include": "gamma", "include_vectors": False}, "leaves no weight"),
    ],
)
def test_include__nothing_is_left__is_refused_before_a_step(arguments, message):
    model = _model(GradientNoise(0.1, **arguments))
    before = model.get_weights()
    with pytest.raises(ValueError, match=message):
        _fit(model)
    for a, b in zip(before, model.get_weights(), strict=True):
        assert (a == b).all()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: GradientNoise(), "neither `alpha` nor `relative`"),
        (lambda: GradientNoise(0.1, relative=0.1), "stands in the place of"),
        (lambda: SharpnessAware(0.1, relative=0.1), "the place of `rho`"),
        (lambda: RandomNoise("much"), "`alpha` must be a finite number"),
        (lambda: RandomNoise(relative=-1), "`relative` must be .* at least 0"),
        (lambda: RandomNoise(scaling="none", relative=1), "scaling='none'"),
        (
            lambda: GradientNoise(relative=0.1, max_displacement=1),
            "Leave one of them out",
        ),
        (lambda: MomentumNoise(include="("), "must be a pattern"),
        (lambda: MomentumNoise(include=3), "must be a pattern"),
    ],
)
def test_arguments__that_contradict_or_lack__are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize("name", RULES)
def test_config__relative_and_include__come_back(name):
    rule = RULES[name](relative=0.1, include="kernel")
    again = type(rule).from_config(rule.get_config())
    assert again == rule and again.include == "kernel"
    assert (again.relative, again.coefficient) == (0.1, "relative")
    assert not again.follows_rate
    # Of rules without: the configuration of before these arguments.
    usual = RULES[name](0.1)
    assert not {"relative", "include"} & set(usual.get_config())


def test_rule_of_the_users__without_a_constructor__has_both(tmp_path):
    class Back(tf_gnc.NoiseRule):
        needs = frozenset({"previous"})

        def direction(self, at):
            return at.previous

    rule = Back(relative=0.02, include="kernel")
    assert Back.from_config(rule.get_config()) == rule
    model = _fit(_model(rule))
    moves = _moves(model)
    kernel = next(v for v in model.trainable_variables if "kernel" in v.path)
    np.testing.assert_allclose(
        np.sqrt((moves[kernel.path][0] ** 2).sum(0)),
        0.02 * np.sqrt((kernel.numpy() ** 2).sum(0)), rtol=1e-3,
    )  # fmt: skip


def test_probe__relative_rule__shows_its_share_of_each_layer(tmp_path):
    """Kernels with filters of any norms: of the layer it is the same share."""
    probe = Probe("layer_displacement", directory=tmp_path)
    _fit(_model(RandomNoise(relative=0.02, seed=1)), callbacks=[probe])
    lines = (tmp_path / "probe.jsonl").read_text().splitlines()
    for line in lines:
        layers = json.loads(line)["layer_displacement"]["layers"]
        for path, share in layers.items():
            if "kernel" in path or "gamma" in path:
                assert share == pytest.approx(0.02, rel=1e-3), path
    assert len(lines) == 4
