"""A table: every member of the family has every property of a training step."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import tf_gnc
from tests import problems
from tests.noise.test_family import (
    MEMBERS,
    ONE_PASS,
    B,
    _assert_near,
    _fit,
    _model,
    _weights,
)
from tf_gnc import analysis
from tf_gnc.callbacks import BackupAndRestore, Probe

EVERY_MEMBER = pytest.mark.parametrize("name", MEMBERS)
# Those whose group spans two replicas of four workers each.
SPANNING = ("sam", "asam", "every 3, of all", "gnc_current")


def _rule(name):
    return MEMBERS[name][0]()


@EVERY_MEMBER
def test_collectives__one_for_a_step_and_one_for_a_group_above_a_replica(name):
    x, y = map(tf.constant, problems.images(B))
    model = _model(_rule(name), replicas=2)
    strategy = model.distribute_strategy
    with strategy.scope():
        model._make_plan()
        step = tf.function(lambda: strategy.run(model.train_step, [(x, y)]))
        graph = step.get_concrete_function().graph
        found = list(problems.sums_over_replicas(graph))
    assert len(found) == (2 if name in SPANNING else 1)


@EVERY_MEMBER
def test_restart__on_other_replicas__goes_on_as_one_run(name, tmp_path):
    """Killed after step 3 of 6 on one replica, and taken up on two."""

    def stop(batch, logs):
        if batch == 2:
            raise KeyboardInterrupt

    data = problems.images(6 * B, seed=4)

    def fit(model, callbacks=()):
        backup = BackupAndRestore(tmp_path / "backup", save_freq=1)
        model.fit(
            *data, batch_size=B, shuffle=False, verbose=0,
            callbacks=[*callbacks, backup],
        )  # fmt: skip
        return model

    whole = _fit(_model(_rule(name)), data=data)
    watch = keras.callbacks.LambdaCallback(on_train_batch_begin=stop)
    watch.backed_up = ()
    with pytest.raises(KeyboardInterrupt):
        fit(_model(_rule(name)), [watch])
    _assert_near(_weights(fit(_model(_rule(name), replicas=2))),
                 _weights(whole), 2e-5)  # fmt: skip


@EVERY_MEMBER
def test_loss_scaling__a_fixed_scale__changes_nothing(name):
    models = []
    for scale in (None, 1024.0):
        model = problems.plain_network()
        optimizer = tf_gnc.optimizers.MomentumSGD(0.1, 0.9, 0.01)
        if scale:
            optimizer = keras.optimizers.LossScaleOptimizer(optimizer, scale)
        model.compile(
            optimizer, problems.cross_entropy(), noise=_rule(name),
            num_workers=8,
        )  # fmt: skip
        models.append(_fit(model, steps=4))
    plain, scaled = models
    _assert_near(_weights(scaled), _weights(plain), 1e-5)


@EVERY_MEMBER
def test_lars__the_members_displacement__moves_it(name):
    ends = []
    for rule in (_rule(name), None):
        model = problems.plain_network()
        model.compile(
            tf_gnc.optimizers.LARS(1.0, 0.9, 0.01, trust_coefficient=0.1),
            problems.cross_entropy(), noise=rule, num_workers=8,
        )  # fmt: skip
        ends.append(_weights(_fit(model, steps=4)))
    assert all(np.isfinite(w).all() for w in ends[0])
    assert problems.largest_difference(*ends) > 1e-4


@EVERY_MEMBER
def test_doctor__each_member__finds_that_it_makes_a_difference(name):
    model = _fit(_model(_rule(name)), steps=3)  # The optimizer has moved.
    report = tf_gnc.doctor.check(model, *problems.images(B, seed=9))
    assert report.ok, str(report)


def test_doctor__a_rule_that_moves_nothing__says_so():
    class Nothing(tf_gnc.NoiseRule):
        needs = frozenset({"current"})

        def direction(self, at):
            return 0 * at.current

    report = tf_gnc.doctor.check(_model(Nothing(0.1)), *problems.images(B))
    assert not report.ok
    assert "the noise makes no difference" in str(report)


@EVERY_MEMBER
def test_measures__each_member__are_of_its_own_displacement(name, tmp_path):
    model = _model(_rule(name))
    rows = []

    class Rows(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            rows.append(dict(logs))

    x, y = problems.images(3 * B, seed=6)
    probe = Probe(["relative_displacement", "loss_spread"])
    model.fit(x, y, batch_size=B, verbose=0, shuffle=False,
              callbacks=[probe, Rows()])  # fmt: skip
    assert rows[0]["probe_relative_displacement"] > 0
    # What the coming step will do, and then what it did.
    batch = problems.images(B, seed=7)
    own = analysis.sharpness(model, batch)
    everyone = analysis.sharpness(model, batch, rows="all")
    probe = Probe(["relative_displacement", "loss_spread"])
    model.fit(
        *batch,
        batch_size=B,
        verbose=0,
        shuffle=False,
        callbacks=[probe, Rows()],
    )
    inactive = name.startswith("every")  # Step 3 is one with a pass.
    assert rows[1]["probe_loss_spread_mean"] == pytest.approx(
        own["mean"], rel=1e-4
    )
    for found in (own, everyone):
        assert found["relative_displacement"] == pytest.approx(
            rows[1]["probe_relative_displacement"], rel=1e-3
        )
    assert inactive or own["relative_displacement"] > 0


@EVERY_MEMBER
def test_coefficient__assigned__is_that_of_another_rule(name):
    rule = _rule(name)
    config = {**rule.get_config(), rule.coefficient: rule.alpha / 2}
    half = _fit(_model(type(rule).from_config(config)), steps=4)
    model = _model(rule)
    model.noise_alpha = rule.alpha / 2
    _assert_near(_weights(_fit(model, steps=4)), _weights(half), 1e-6)


@EVERY_MEMBER
def test_file__saved_and_loaded__trains_on_with_the_rule(name, tmp_path):
    model = _model(_rule(name))
    path = tmp_path / "model.keras"
    model.save(path)
    loaded = keras.models.load_model(path)
    assert loaded.noise_rule == model.noise_rule


def test_spectrum__of_two_passes__says_what_it_needs():
    model = _fit(_model(_rule("sam")), steps=1)
    with pytest.raises(ValueError, match="noise is there before"):
        analysis.spectrum(model)
    for name in ONE_PASS:
        assert analysis.spectrum(_fit(_model(_rule(name)), steps=2))["layers"]


def test_overflow__in_the_first_pass__leaves_the_statistics_finite():
    """A scale that overflows at once: the step is skipped, and no NaN stays."""
    model = problems.full_network()
    optimizer = keras.optimizers.LossScaleOptimizer(
        keras.optimizers.SGD(0.1), initial_scale=2.0**127
    )
    model.compile(
        optimizer, problems.cross_entropy(), num_workers=4,
        noise=tf_gnc.SharpnessAware(0.3, "all"), loss_weights=1e4,
    )  # fmt: skip
    before = _weights(model)
    x, y = problems.images(B)
    model.fit(x, y, batch_size=B, verbose=0)
    _assert_near(_weights(model), before, 0)
    assert all(np.isfinite(v.numpy()).all() for v in model.variables)


def test_doctor__momentum_at_rest_and_a_step_without_noise__say_when():
    batch = problems.images(B)
    report = tf_gnc.doctor.check(_model(_rule("momentum_sam")), *batch)
    assert report.ok and "on from the second step" in str(report)
    later = tf_gnc.SharpnessAware(0.3, start_step=5)
    report = tf_gnc.doctor.check(_model(later), *batch)
    assert report.ok and "off in step 0, as asked" in str(report)


class Named(tf_gnc.NoiseRule):
    coefficient = "rho"


def test_own_rule__coefficient_of_another_name__comes_back():
    rule = Named(0.3, every=2)
    assert rule.get_config()["rho"] == 0.3
    assert Named.from_config(rule.get_config()) == rule


@pytest.mark.parametrize(
    ("attribute", "value"), [("group", 0), ("group", "All"),
                             ("statistics", "Clean")],
)  # fmt: skip
def test_own_rule__wrong_attribute__is_refused(attribute, value):
    wrong = type("Wrong", (tf_gnc.NoiseRule,), {attribute: value})
    with pytest.raises(ValueError, match=f"got {attribute}="):
        wrong(0.1)
