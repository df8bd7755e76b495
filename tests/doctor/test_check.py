"""The doctor finds what is wrong, and leaves no trace."""

import re

import keras
import numpy as np
import pytest
import tensorflow as tf

import tf_gnc
from tests import problems
from tf_gnc import doctor
from tf_gnc.doctor import noise as doctor_noise
from tf_gnc.doctor import setup as doctor_setup
from tf_gnc.doctor.dry_step import dry_steps, measuring
from tf_gnc.step.plan import StepPlan

RULES = {
    "gnc": tf_gnc.GradientNoise(alpha=0.5),
    "rnc": tf_gnc.RandomNoise(alpha=0.5, seed=3),
    "dpsgd": None,
}


def _compiled(model, noise, num_workers=4, optimizer=None, **more):
    model.compile(
        optimizer or problems.sgd(),
        problems.cross_entropy(),
        noise=noise,
        num_workers=num_workers,
        **more,
    )
    return model


def _found(report):
    return {check.name: check for check in report.checks}


def _failed(report):
    return [check.name for check in report.checks if not check.ok]


def _everything(model):
    """All that a check might leave changed, to the bit."""
    values = [
        *model.variables,
        *model.metrics_variables,
        *model.optimizer.variables,
    ]
    kept = {v.path: np.asarray(v.value).tobytes() for v in values}
    plan = model.step_plan
    kept["global seed"] = np.asarray(plan.generator.state.value).tobytes()
    if plan.memory is not None:
        kept["gradients"] = plan.memory.gradients.numpy().tobytes()
        kept["mean"] = plan.memory.mean.numpy().tobytes()
    kept["objects"] = {
        name: value
        for name, value in vars(model).items()
        if name not in ("_tracker", "built")
    }
    kept["optimizer"] = set(vars(model.optimizer))
    return kept


def _middle_of_training(name):
    x, y = problems.images(32)
    model, _ = problems.trained(
        problems.full_network(),
        x,
        y,
        noise=RULES[name],
        num_workers=4,
        metrics=["accuracy"],
    )
    return model, x, y


def _check_changes_nothing(name, model, x, y):
    """Checks a healthy model whose state is compared before and after."""
    before = _everything(model)
    report = doctor.check(model, x, y)
    assert _everything(model) == before
    assert report.ok, report
    found = _found(report)
    assert found["batch"].message == f"4 workers x {len(x) // 4} examples."
    assert ("sum of noise" in found) == (name == "gnc")
    off = "off, as asked"
    assert (off in found["noise"].message) == (name == "dpsgd")
    if name == "dpsgd":
        assert "relative difference 0.0e+00" in found["noise"].message
    else:
        differs = re.search("differs by ([^ ]+) ", found["gradient"].message)
        assert float(differs[1]) > 1e-3
        assert "repeats to 0.0e+00" in found["gradient"].message


@pytest.mark.parametrize("name", ["rnc", "dpsgd"])
def test_check__in_the_middle_of_training__is_ok_and_changes_nothing(name):
    _check_changes_nothing(name, *_middle_of_training(name))


def test_check__gradient_noise_in_training__goes_on_as_never_looked_at():
    (plain, x, y), (checked, _, _) = (
        _middle_of_training("gnc") for _ in range(2)
    )
    _check_changes_nothing("gnc", checked, x, y)
    history, expected = (
        model.fit(x, y, batch_size=16, shuffle=False, verbose=0).history
        for model in (checked, plain)
    )
    assert history == expected
    for first, second in zip(
        plain.get_weights(), checked.get_weights(), strict=True
    ):
        np.testing.assert_array_equal(first, second)


def test_check__interrupted__puts_everything_back(monkeypatch):
    model, x, y = _middle_of_training("gnc")
    before = _everything(model)

    def interrupt(model):
        raise KeyboardInterrupt

    monkeypatch.setattr(doctor_noise, "measuring", interrupt)
    with pytest.raises(KeyboardInterrupt):
        doctor.check(model, x, y)
    assert _everything(model) == before


def test_check__model_not_built_yet__trains_as_if_never_looked_at():
    class Net(tf_gnc.GNCTrainStep, keras.Sequential):
        pass

    x, y = problems.images(16)
    weights = []
    for checked in (False, True):
        keras.utils.set_random_seed(2)
        layers = [keras.layers.Flatten(), keras.layers.Dense(problems.CLASSES)]
        model = _compiled(Net(layers), RULES["gnc"], metrics=["accuracy"])
        if checked:
            assert doctor.check(model, x, y).ok
        model.fit(x, y, epochs=2, batch_size=16, shuffle=False, verbose=0)
        weights.append(model.get_weights())
    for first, second in zip(*weights, strict=True):
        np.testing.assert_array_equal(first, second)


@pytest.mark.parametrize("rule", ["rnc", "dpsgd"])
def test_check__layers_of_the_users_own__their_weights_are_named(rule):
    class Own(keras.layers.Layer):
        def build(self, shape):
            self.table = self.add_weight(shape=(shape[-1], 2), name="table")
            self.vector = self.add_weight(shape=(2,), name="vector")

        def call(self, x):
            return x @ self.table + self.vector

    class Net(tf_gnc.GNCTrainStep, keras.Sequential):
        pass

    layers = [Own(name="mine"), Own(name="other")]
    dense = keras.layers.Dense(problems.CLASSES)
    model = _compiled(Net([*layers, dense]), RULES[rule])
    report = doctor.check(model, *problems.vectors(16))
    assert report.ok, report
    paths = [layer.table.path for layer in layers]
    line = (
        "ok   filters: of no known kind of layer, so that the last axis "
        f"counts: {', '.join(paths)}."
    )
    assert (line in str(report).splitlines()) == (rule == "rnc")
    assert str(report).count("filters") == (rule == "rnc")


@pytest.mark.parametrize(
    ("rule", "num_workers", "rate", "message"),
    [
        (tf_gnc.RandomNoise(alpha=0.0), 4, 0.1, "off, since alpha=0."),
        (RULES["gnc"], 4, 0.0, "off, since the learning rate is 0"),
        (RULES["gnc"], 1, 0.1, "off, since with num_workers=1"),
    ],
)
@pytest.mark.filterwarnings("ignore:GradientNoise does nothing")
def test_check__noise_silently_off__fails_with_the_reason(
    rule, num_workers, rate, message
):
    x, y = problems.images(16)
    optimizer = keras.optimizers.SGD(rate)
    model = _compiled(problems.plain_network(), rule, num_workers, optimizer)
    report = doctor.check(model, x, y)
    assert _failed(report) == ["noise", "gradient"]
    assert _found(report)["noise"].message.startswith(message)
    assert str(report).count("FAIL ") == 2


def test_check__alpha_turned_off_after_compile__fails():
    x, y = problems.images(16)
    model = _compiled(problems.plain_network(), RULES["gnc"])
    model.noise_alpha = 0.0
    report = doctor.check(model, x, y)
    assert _failed(report) == ["noise", "gradient"]
    assert _found(report)["noise"].message.startswith("off, since alpha=0.")
    model.noise_alpha = 0.5
    report = doctor.check(model, x, y)
    assert report.ok, report
    assert _found(report)["batch"].message == "4 workers x 4 examples."
    assert "filters" not in _found(report)  # All kinds are known.


def test_check__all_workers_see_the_same_rows__fails_and_asks():
    x, y = problems.images(4)
    model = _compiled(problems.plain_network(), RULES["gnc"])
    report = doctor.check(model, np.tile(x, (4, 1, 1, 1)), np.tile(y, 4))
    assert "noise" in _failed(report)
    assert "no worker's weights are displaced" in str(report)


def test_check__step_that_moves_weights__fails():
    class Moving(tf_gnc.GNCModel):
        def train_step(self, data):
            logs = super().train_step(data)
            self.trainable_variables[0].assign_add(
                tf.ones_like(self.trainable_variables[0]) * 1e-6
            )
            return logs

    x, y = problems.images(16)
    model = _compiled(problems.plain_network(Moving), RULES["gnc"])
    before = model.get_weights()
    assert _failed(doctor.check(model, x, y)) == ["weights"]
    for first, second in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(first, second)


def test_check__train_step_of_the_users_own__says_so():
    class Own(tf_gnc.GNCModel):
        def train_step(self, data):
            return {"loss": tf.reduce_sum(self(data[0]))}

    x, y = problems.images(16)
    model = _compiled(problems.plain_network(Own), RULES["gnc"])
    report = doctor.check(model, x, y)
    assert _failed(report) == ["step"]
    assert "let it call that of tf_gnc.GNCTrainStep" in str(report)


def test_check__mean_of_another_step__noise_does_not_sum_to_zero(monkeypatch):
    begin_step = StepPlan.begin_step

    def spoiled(self):
        step = begin_step(self)
        if step is None:  # the doctor's steps without noise
            return None
        store = step.end
        step.end = lambda mean, valid: store(0.999 * mean, valid)
        return step

    monkeypatch.setattr(StepPlan, "begin_step", spoiled)
    x, y = problems.images(16)
    model = _compiled(problems.plain_network(), RULES["gnc"])
    assert _failed(doctor.check(model, x, y)) == ["sum of noise"]


def test_check__batch_that_workers_cannot_share__fails():
    x, y = problems.images(18)
    model = _compiled(problems.plain_network(), RULES["gnc"])
    report = doctor.check(model, x, y)
    assert _failed(report) == ["batch"]
    assert "18 rows for 4 workers" in str(report)


def test_check__gradient_not_finite__names_the_worker():
    x, y = problems.images(16)
    x[5] = np.nan
    model = _compiled(problems.plain_network(), RULES["gnc"])
    report = doctor.check(model, x, y)
    assert _failed(report) == ["step"]
    assert "worker 1 (of 4" in str(report)


def test_check__no_gnc_model_or_not_compiled_or_empty__error():
    x, y = problems.images(16)
    with pytest.raises(TypeError, match="got a Functional"):
        doctor.check(problems.plain_network(keras.Model), x, y)
    with pytest.raises(ValueError, match="must be compiled"):
        doctor.check(problems.plain_network(), x, y)
    model = _compiled(problems.plain_network(), None)
    with pytest.raises(ValueError, match="at least one row"):
        doctor.check(model, x[:0], y[:0])


@pytest.mark.parametrize("name", ["gnc", "rnc"])
def test_check__mixed_float16__is_ok(name):
    keras.config.set_dtype_policy("mixed_float16")
    x, y = problems.images(16)
    model = _compiled(problems.full_network(), RULES[name])
    model.optimizer.initial_scale = 2.0**8
    report = doctor.check(model, x, y)
    assert report.ok, report


@pytest.mark.parametrize("dtype", ["float64", "bfloat16", "float16"])
def test_check__noise_dtype__sum_is_judged_by_its_rounding(dtype):
    x, y = problems.images(32)
    rule = tf_gnc.GradientNoise(alpha=0.5, noise_dtype=dtype)
    model = _compiled(problems.plain_network(), rule, num_workers=16)
    report = doctor.check(model, x, y)
    assert report.ok, report


def _gradients(model, x, y, num_workers):
    """Each worker's gradient at the clean weights, by stock Keras: (M, P)."""
    rows = []
    for xs, ys in zip(
        np.split(x, num_workers), np.split(y, num_workers), strict=True
    ):
        with tf.GradientTape() as tape:
            loss = problems.cross_entropy()(ys, model(xs, training=True))
        gradients = tape.gradient(loss, [v.value for v in model.weights])
        rows.append(np.concatenate([np.ravel(g) for g in gradients]))
    return np.stack(rows).astype("float64")


@pytest.mark.parametrize("num_replicas", [1, 2])
def test_dry_steps__gradient_noise__displaces_as_stock_gradients_say(
    num_replicas,
):
    x, y = problems.images(16)
    alpha, rate, num_workers = 0.5, 0.1, 4
    rule = tf_gnc.GradientNoise(alpha=alpha, scaling="none")
    gradients = _gradients(problems.plain_network(), x, y, num_workers)
    noise = gradients - gradients.mean(axis=0)
    with problems.mirrored(num_replicas):
        model = _compiled(problems.plain_network(), rule, num_workers)
    weights = np.concatenate([np.ravel(w) for w in model.get_weights()])
    data = (tf.constant(x), tf.constant(y))
    with dry_steps(model, data) as steps:
        gradient = steps.gradient()
        seen = measuring(model)()
    expected = alpha * rate * np.linalg.norm(noise, axis=1)
    np.testing.assert_allclose(
        seen.displacements, expected / np.linalg.norm(weights), rtol=1e-4
    )
    np.testing.assert_allclose(seen.rate, rate, rtol=1e-6)
    np.testing.assert_allclose(
        seen.largest_noise, np.abs(noise).max(), rtol=1e-4
    )
    # Nobody is displaced in the first step.
    scale = np.abs(gradients).max()
    np.testing.assert_allclose(
        gradient, gradients.mean(axis=0), atol=1e-5 * scale
    )


@pytest.mark.parametrize("num_replicas", [1, 2])
def test_dry_steps__random_noise__displaces_by_alpha_times_rate(num_replicas):
    # Each filter is displaced by alpha * eta of its norm, and so is the whole.
    x, y = problems.images(16)
    with problems.mirrored(num_replicas):
        model = _compiled(problems.plain_network(), RULES["rnc"])
    with dry_steps(model, (tf.constant(x), tf.constant(y))):
        seen = measuring(model)()
    np.testing.assert_allclose(seen.displacements, [0.05] * 4, rtol=1e-4)
    assert seen.noise_sum == seen.largest_noise == 0


def test_check__two_replicas__is_ok_and_leaves_all_components_alone():
    x, y = problems.images(16)
    with problems.mirrored(2):
        model = _compiled(problems.full_network(), RULES["gnc"])
    before = model.get_weights()
    report = doctor.check(model, x, y)
    assert report.ok, report
    assert "over the 4 workers" in str(report)
    for first, second in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(first, second)
    here = doctor.setup_of(model)
    assert (here.strategy, here.num_replicas) == ("MirroredStrategy", 2)
    assert (here.num_workers, here.workers_per_replica) == (4, 2)
    assert here.num_processes == 1


@pytest.mark.parametrize("policy", ["float32", "mixed_float16"])
def test_memory_forecast__any_model__is_what_the_memory_takes(policy):
    keras.config.set_dtype_policy(policy)
    rule = tf_gnc.GradientNoise(alpha=0.1, noise_dtype="bfloat16")
    model = _compiled(problems.full_network(), rule, num_workers=6)
    need = doctor.memory_forecast(model)
    assert need.copies == (2 if policy == "mixed_float16" else 1)
    x, y = problems.images(12)
    model.fit(x, y, batch_size=12, verbose=0)
    gradients = model.step_plan.memory.gradients
    actual = gradients.shape[0] * gradients.shape[1] * gradients.dtype.size
    spare_row = gradients.shape[1] * gradients.dtype.size
    assert need.num_bytes in (actual, actual - spare_row)


@pytest.mark.parametrize("name", ["rnc", "dpsgd"])
def test_memory_forecast__rule_without_memory__is_nothing(name):
    model = _compiled(problems.plain_network(), RULES[name])
    assert doctor.memory_forecast(model).num_bytes == 0
    assert "takes 0 B" in doctor.check_memory(model).message


# Of 6 workers: means, and their own gradients where the rule needs both.
@pytest.mark.parametrize(
    ("rule", "num_replicas", "kept", "collectives"),
    [
        (tf_gnc.SharpnessAware(0.1), 2, 0, "one collective"),
        (tf_gnc.SharpnessAware(0.1, 3), 2, 1, "one collective"),
        (tf_gnc.SharpnessAware(0.1, 2), 2, 3, "two collectives"),
        (tf_gnc.SharpnessAware(0.1, "all", every=2), 1, 1, None),
        (tf_gnc.GradientNoise(0.1, current=True), 2, 1 + 3, "two collectives"),
    ],
    ids=repr,
)
def test_doctor__two_passes__says_what_they_keep_and_cost(
    rule, num_replicas, kept, collectives
):
    with problems.mirrored(num_replicas):
        model = _compiled(problems.dense_network(), rule, num_workers=6)
    need = doctor.memory_forecast(model)
    weights = sum(v.numpy().size for v in model.trainable_variables)
    assert need.num_bytes == kept * weights * 4
    message = doctor.check_memory(model).message
    if kept:
        assert f"of it between two passes ({kept} vectors of" in message
    else:
        assert "one worker's gradient at a time" in message
    words = doctor_noise._cost(model)
    when = "One step in 2" if rule.every == 2 else "A step"
    assert words.startswith(f"{when} has two passes forward and backward")
    assert ("collective" in words) == bool(collectives)
    assert (collectives or "") in words
    if num_replicas == 1:
        report = doctor.check(model, *problems.vectors(12))
        assert report.ok and words in str(report)


@pytest.mark.parametrize("num_replicas", [1, 2])
def test_check_memory__compared_with_what_is_free__fails_just_above(
    num_replicas, monkeypatch
):
    with problems.mirrored(num_replicas):
        model = _compiled(problems.plain_network(), RULES["gnc"])
    weights = sum(w.size for w in model.get_weights())
    need = 4 * weights * 4  # workers over all replicas, float32
    monkeypatch.setattr(doctor_setup, "free_memory_bytes", lambda: need)
    assert doctor.check_memory(model).ok
    monkeypatch.setattr(doctor_setup, "free_memory_bytes", lambda: need - 1)
    short = doctor.check_memory(model)
    assert not short.ok
    assert "Use fewer workers" in short.message
    monkeypatch.setattr(doctor_setup, "free_memory_bytes", lambda: None)
    assert doctor.check_memory(model).ok


def test_free_memory_bytes__this_machine__is_positive_or_unknown():
    free = doctor.free_memory_bytes()
    assert free is None or free > 0
