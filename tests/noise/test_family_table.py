"""A table: every member of the family has every property of a training step."""

import shutil

import keras
import numpy as np
import pytest

import tf_gnc
from tests import problems
from tests.noise.members import (
    DECAY,
    EVERY_MEMBER,
    MEMBERS,
    MOMENTUM,
    ONE_PASS,
    PATHS,
    RATE,
    B,
    assert_near,
    by_model,
    by_numpy,
    compiled,
    expected_of,
    fit,
    rule_of,
    start,
    weights_of,
)
from tf_gnc import analysis
from tf_gnc.callbacks import AlphaSchedule, BackupAndRestore, Probe


class Copy(keras.callbacks.Callback):
    """Keeps what the backups are after so many steps, as a kill would."""

    backed_up = ()

    def __init__(self, steps, source, target):
        super().__init__()
        self.steps, self.source, self.target = steps, source, target

    def on_train_batch_begin(self, batch, logs=None):
        if int(self.model.optimizer.iterations.numpy()) == self.steps:
            shutil.copytree(self.source, self.target)


@pytest.mark.parametrize("name", MEMBERS)
def test_restart__after_two_of_six_steps__goes_on_bit_for_bit(name, tmp_path):
    """And on two replicas up to rounding."""
    ends, folder = [], tmp_path / "run"
    lives = [(1, True), (1, False)]
    if name in (*ONE_PASS, *PATHS, "sam", "asam"):
        lives.append((2, False))
    for number, (replicas, is_first) in enumerate(lives):
        model = compiled(rule_of(name), replicas)
        callbacks = [BackupAndRestore(folder, save_freq=1)]
        if is_first:
            callbacks.append(Copy(2, folder, tmp_path / "killed"))
        else:
            keras.utils.set_random_seed(number + 7)
            model.set_weights(start())
        fit(model, 6, callbacks=callbacks)
        assert int(model.optimizer.iterations.numpy()) == 6
        ends.append(_state(model) if replicas == 1 else weights_of(model))
        folder = tmp_path / f"life {number}"
        shutil.copytree(tmp_path / "killed", folder)
    for a, b in zip(ends[0], ends[1], strict=True):
        np.testing.assert_array_equal(a, b)
    for other in ends[2:]:
        assert_near(other, ends[0][: len(other)], 1e-5)


def _state(model):
    """Weights, then all else that a step reads."""
    memory = problems.memory(model) if model.step_plan.memory else ()
    return [
        *weights_of(model),
        *(v.numpy() for v in model.optimizer.variables),
        *memory,
    ]


@pytest.mark.parametrize(
    "name", ["extrapolation", "gnc_uphill", "gnc_current", "worker_sam",
             "every 3, of all", "momentum_sam"],
)  # fmt: skip
def test_loss_scaling__a_fixed_scale__changes_nothing(name):
    optimizer = keras.optimizers.LossScaleOptimizer(
        tf_gnc.optimizers.MomentumSGD(RATE, MOMENTUM, DECAY), 1024.0
    )
    found = by_model(rule_of(name), optimizer=optimizer)
    assert_near(found, expected_of(name), 1e-5)


@pytest.mark.parametrize(
    "name", ["extrapolation", "gnc_current", "worker_sam", "asam",
             "momentum_sam"],
)  # fmt: skip
def test_lars__with_a_member__agrees_with_numpy(name):
    optimizer = tf_gnc.optimizers.LARS(
        RATE, MOMENTUM, DECAY, trust_coefficient=0.25
    )
    found = by_model(rule_of(name), optimizer=optimizer)
    _, told = MEMBERS[name]
    expected = by_numpy(**told, tau=0.25)
    assert_near(found, expected, 1e-5)
    plain = by_numpy(**{**told, "coefficient": 1e-12}, tau=0.25)
    assert problems.largest_difference(expected, plain) > 1e-3


@pytest.mark.parametrize("name", ["extrapolation", "gnc_current", "gnc_uphill"])
def test_lars__rates_by_layer__are_what_the_noise_follows(name):
    optimizer = tf_gnc.optimizers.LARS(
        RATE, MOMENTUM, DECAY, trust_coefficient=0.25, noise_rate="layer"
    )
    rule = rule_of(name)
    rule = type(rule).from_config({**rule.get_config(), "alpha": 8.0})
    found = by_model(rule, optimizer=optimizer)
    told = {**MEMBERS[name][1], "coefficient": 8.0, "tau": 0.25}
    expected = by_numpy(**told, per_layer=True)
    assert_near(found, expected, 1e-5)
    by_one_rate = by_numpy(**told)
    assert problems.largest_difference(expected, by_one_rate) > 1e-3


@pytest.mark.parametrize(
    "name", ["extrapolation", "gnc_current", "sam", "asam", "momentum_sam"]
)
def test_alpha_schedule__of_each_step__drives_the_coefficient(name):
    _, told = MEMBERS[name]
    size = told["coefficient"]
    schedule = AlphaSchedule(lambda step: size / (1 + step), unit="step")
    found = by_model(rule_of(name), callbacks=[schedule])
    told = {**told, "coefficient": lambda step: size / (1 + step)}
    assert_near(found, by_numpy(**told), 1e-5)


# The others, each method as it is, the command line's doctor has examined.
@pytest.mark.parametrize(
    "name", ["groups of 2", "every 3, of all", "momentum_sam"]
)
def test_doctor__each_member__finds_that_it_makes_a_difference(name):
    model = fit(compiled(rule_of(name)), steps=3)  # The optimizer has moved.
    report = tf_gnc.doctor.check(model, *problems.images(B, seed=9))
    assert report.ok, str(report)


def test_doctor__a_rule_that_moves_nothing__says_so():
    class Nothing(tf_gnc.NoiseRule):
        needs = frozenset({"current"})

        def direction(self, at):
            return 0 * at.current

    report = tf_gnc.doctor.check(compiled(Nothing(0.1)), *problems.images(B))
    assert not report.ok
    assert "the noise makes no difference" in str(report)


@pytest.mark.parametrize(
    "name", [p for p in PATHS if p not in ("gnc_uphill", "every 3")]
)
def test_measures__each_member__are_of_its_own_displacement(name, tmp_path):
    model = compiled(rule_of(name))
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
    assert rows[1]["probe_loss_spread_mean"] == pytest.approx(
        own["mean"], rel=1e-4
    )
    for found in (own, everyone):
        assert found["relative_displacement"] == pytest.approx(
            rows[1]["probe_relative_displacement"], rel=1e-3
        )
    assert own["relative_displacement"] > 0


@pytest.mark.parametrize("name", ["groups of 4", "momentum_sam"])
def test_file__saved_and_loaded__trains_on_with_the_rule(name, tmp_path):
    model = compiled(rule_of(name))
    path = tmp_path / "model.keras"
    model.save(path)
    loaded = keras.models.load_model(path)
    assert loaded.noise_rule == model.noise_rule


def test_spectrum__of_two_passes__says_what_it_needs():
    model = fit(compiled(rule_of("sam")), steps=1)
    with pytest.raises(ValueError, match="noise is there before"):
        analysis.spectrum(model)
    for name in ONE_PASS:
        assert analysis.spectrum(fit(compiled(rule_of(name)), steps=2))[
            "layers"
        ]


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
    before = weights_of(model)
    x, y = problems.images(B)
    model.fit(x, y, batch_size=B, verbose=0)
    assert_near(weights_of(model), before, 0)
    assert all(np.isfinite(v.numpy()).all() for v in model.variables)


def test_doctor__momentum_at_rest_and_a_step_without_noise__say_when():
    batch = problems.images(B)
    report = tf_gnc.doctor.check(compiled(rule_of("momentum_sam")), *batch)
    assert report.ok and "on from the second step" in str(report)
    later = tf_gnc.SharpnessAware(0.3, start_step=5)
    report = tf_gnc.doctor.check(compiled(later), *batch)
    assert report.ok and "off in step 0, as asked" in str(report)


class Named(tf_gnc.NoiseRule):
    coefficient = "rho"


def test_own_rule__coefficient_of_another_name__comes_back():
    rule = Named(0.3, every=2)
    assert rule.get_config()["rho"] == 0.3
    assert Named.from_config(rule.get_config()) == rule
    assert Named(rho=0.3, every=2) == rule
    with pytest.raises(TypeError, match="Named has no argument 'roh'"):
        Named(roh=0.3)


def test_rule__stop_before_start__is_refused_and_0_is_off():
    with pytest.raises(ValueError, match="start_step=5 with stop_step=2"):
        tf_gnc.SharpnessAware(start_step=5, stop_step=2)
    assert tf_gnc.SharpnessAware(start_step=5, stop_step=0).stop_step == 0


@pytest.mark.parametrize(
    ("attribute", "value"), [("group", 0), ("group", "All"),
                             ("statistics", "Clean")],
)  # fmt: skip
def test_own_rule__wrong_attribute__is_refused(attribute, value):
    wrong = type("Wrong", (tf_gnc.NoiseRule,), {attribute: value})
    with pytest.raises(ValueError, match=f"got {attribute}="):
        wrong(0.1)


@EVERY_MEMBER
def test_member__configuration__makes_an_equal_rule(name):
    rule = rule_of(name)
    again = type(rule).from_config(rule.get_config())
    assert again == rule
    kept = keras.saving.serialize_keras_object(rule)
    assert keras.saving.deserialize_keras_object(kept) == rule
