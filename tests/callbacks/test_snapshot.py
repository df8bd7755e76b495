"""Each part of a backup: what is written, and that it is put back."""

import random

import keras
import numpy as np
import pytest

import tf_gnc
from tests import problems
from tf_gnc import _keras_compat
from tf_gnc.callbacks import snapshot
from tf_gnc.store import Store

POSITION = {"epoch": 1, "batch": 2}
RNC = tf_gnc.RandomNoise(alpha=0.25, seed=5)


def _model(replicas=1, rule=None, optimizer=None, steps=3):
    with problems.mirrored(replicas):
        model = problems.quick_network()
        model.compile(
            optimizer or problems.sgd(), problems.cross_entropy(),
            metrics=["accuracy"], num_workers=4,
            noise=rule or tf_gnc.GradientNoise(alpha=0.5),
        )  # fmt: skip
    x, y = problems.vectors(16 * steps, seed=steps)
    model.fit(x, y, batch_size=16, shuffle=False, verbose=0)
    return model


def _saved(model, folder, callbacks=()):
    store = Store(folder)
    draft = store.begin(3)
    kept, arrays = snapshot.contents(model, list(callbacks), ({}, {}), POSITION)
    snapshot.write(draft, model, arrays)
    generation, _ = draft.seal(1, kept)
    return generation


@pytest.fixture(scope="module")
def before(tmp_path_factory):
    """A model on two replicas, and its backup."""
    _keras_compat.set_random_seed(1)
    model = _model(replicas=2)
    random.seed(7)
    np.random.seed(8)
    draws = random.getstate(), np.random.get_state()[1].tolist()
    return model, _saved(model, tmp_path_factory.mktemp("one")), draws


@pytest.fixture(scope="module")
def after(before):
    """Another model, on four replicas, to which the backup was put back."""
    for _ in range(3):
        problems.quick_network()  # Its own layers are counted on from these.
    model = _model(replicas=4, steps=2)
    model.noise_alpha = 9.0
    random.seed(1)
    np.random.seed(1)
    snapshot.restore(before[1], model)
    drawn = random.getstate(), np.random.get_state()[1].tolist()
    snapshot.restore_metrics(before[1], model)
    return model, drawn


def test_restore__weights_optimizer_and_seeds__are_equal(before, after):
    for kind in ("variables", "optimizer.variables"):
        first, second = before[0], after[0]
        for name in kind.split("."):
            first, second = getattr(first, name), getattr(second, name)
        assert len(first) == len(second) > 3
        for a, b in zip(first, second, strict=True):
            if "accuracy" in a.path or "loss" in a.path:
                continue  # metrics
            np.testing.assert_array_equal(a.numpy(), b.numpy(), a.path)


def test_restore__memory__each_worker_has_its_own_row_and_all_the_mean(
    before, after
):
    rows, mean = problems.memory(before[0])
    others, other_mean = problems.memory(after[0])
    assert rows.shape[0] == 4
    assert len(np.unique(rows, axis=0)) == 4
    np.testing.assert_array_equal(rows, others)
    np.testing.assert_array_equal(mean, other_mean)
    strategy = after[0].distribute_strategy
    means = strategy.experimental_local_results(after[0].step_plan.memory.mean)
    assert all(np.array_equal(m.numpy(), mean) for m in means)


def test_restore__random_states__are_those_of_the_backup(before, after):
    assert after[1] == before[2]


def test_restore__metrics__go_on_counting_the_same(before, after):
    assert before[0].get_metrics_result()["accuracy"] > 0
    for name, value in before[0].get_metrics_result().items():
        np.testing.assert_allclose(
            after[0].get_metrics_result()[name], value, rtol=1e-6
        )


def test_restore__coefficient__is_the_one_in_force(before, after):
    assert after[0].noise_alpha == before[0].noise_alpha == 0.5


def test_restore__undoable_memory__takes_the_half_in_force(tmp_path):
    keras.config.set_dtype_policy("mixed_float16")

    def scaled(steps):
        optimizer = keras.mixed_precision.LossScaleOptimizer(
            problems.sgd(), initial_scale=128.0
        )
        return _model(optimizer=optimizer, steps=steps)

    first, second = scaled(3), scaled(2)
    plan = first.step_plan
    assert int(plan.memory.half.numpy()) == 1
    strategy = first.distribute_strategy
    rows = plan.memory.rows(0, strategy)
    assert not np.array_equal(rows, plan.memory.gradients.numpy()[:4])
    snapshot.restore(_saved(first, tmp_path), second)
    memory = second.step_plan.memory
    np.testing.assert_array_equal(memory.rows(0, strategy), rows)


def test_restore__unseeded_draws_and_other_rule_in_force__go_on(tmp_path):
    first = _model()
    keras.random.uniform([1])
    generation = _saved(first, tmp_path / "draws")
    drawn = keras.random.uniform([4]).numpy()
    snapshot.restore(generation, first)
    np.testing.assert_array_equal(keras.random.uniform([4]).numpy(), drawn)

    second = _model(steps=2)
    first.noise_rule = RNC
    first.noise_alpha = 0.125
    snapshot.restore(_saved(first, tmp_path / "rule"), second)
    assert second.noise_rule == RNC
    assert second.noise_alpha == 0.125
    assert second.step_plan.memory is None


def test_contents__position_and_size__stand_in_the_backup(before):
    contents = before[1].contents
    assert contents["position"] == POSITION
    assert (contents["num_replicas"], contents["num_processes"]) == (2, 1)


def test_check_identity__layers_made_before__are_no_other_model(before, after):
    names = [[layer.name for layer in m.layers] for m in (before[0], after[0])]
    assert names[0] != names[1]
    snapshot.check_identity(before[1], after[0])
