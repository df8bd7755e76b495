"""A rate for every step, against an optimizer that has the schedule itself."""

import keras
import numpy as np
import pytest

import tf_gnc
from tests import problems
from tf_gnc.callbacks import LearningRatePerStep
from tf_gnc.schedules import StepDecay, WarmUp

SCHEDULE = WarmUp(0.01, 3, StepDecay(0.2, (5,)))


def _fit(optimizer, *callbacks, model_class=tf_gnc.GNCModel, **compiled):
    noise = {"noise": tf_gnc.GradientNoise(0.1), "num_workers": 4}
    if model_class is keras.Model:
        noise = {}
    x, y = problems.vectors(32)
    return problems.trained(
        problems.dense_network(model_class),
        x,
        y,
        optimizer=optimizer,
        fit={"callbacks": list(callbacks)},
        **noise,
        **compiled,
    )


@pytest.mark.parametrize("model_class", [tf_gnc.GNCModel, keras.Model])
@pytest.mark.parametrize(
    "optimizer", [keras.optimizers.SGD, keras.optimizers.Adam]
)
def test_per_step__any_optimizer__is_its_own_schedule(model_class, optimizer):
    ours, history = _fit(
        optimizer(0.1), LearningRatePerStep(SCHEDULE), model_class=model_class
    )
    theirs, _ = _fit(optimizer(SCHEDULE), model_class=model_class)
    for a, b in zip(ours.get_weights(), theirs.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    # Two steps an epoch: the rates of steps 1, 3 and 5.
    expected = [float(SCHEDULE(step)) for step in (1, 3, 5)]
    assert history["learning_rate"] == expected


def test_per_step__plateau__multiplies_the_schedule_from_there_on():
    """No loss improves by 10, so that each epoch but the first has a factor."""
    plateau = keras.callbacks.ReduceLROnPlateau(
        "loss", factor=0.5, patience=1, min_delta=10.0
    )
    ours = LearningRatePerStep(SCHEDULE)
    _, history = _fit("sgd", ours, plateau)
    rates = [float(SCHEDULE(step)) for step in (1, 3, 5)]
    expected = [rates[0], rates[1], 0.5 * rates[2]]
    np.testing.assert_allclose(history["learning_rate"], expected, rtol=1e-6)
    assert ours.factor == pytest.approx(0.25)
    # Another `fit` goes on from there: what was reduced is not so twice.
    model, history = _fit("sgd", ours)
    expected = [0.25 * rate for rate in rates]
    np.testing.assert_allclose(history["learning_rate"], expected, rtol=1e-6)


def test_per_step__bad_values__errors_show_them():
    with pytest.raises(ValueError, match="schedule=0.1"):
        LearningRatePerStep(0.1)
    for wrong in (lambda step: -1.0, lambda step: float("nan")):
        with pytest.raises(ValueError, match="for step 0"):
            _fit("sgd", LearningRatePerStep(wrong))
    with pytest.raises(ValueError, match="a schedule of its own"):
        _fit(keras.optimizers.SGD(SCHEDULE), LearningRatePerStep(SCHEDULE))


@pytest.mark.parametrize(
    "callback",
    [
        LearningRatePerStep(SCHEDULE),
        tf_gnc.callbacks.AlphaSchedule(lambda step: 0.1, unit="step"),
    ],
)
def test_per_step__several_steps_a_call__is_refused(callback):
    with pytest.raises(ValueError, match="steps_per_execution=1, got 2"):
        _fit("sgd", callback, steps_per_execution=2)


def test_schedule__in_kerass_scheduler__counts_epochs():
    scheduler = keras.callbacks.LearningRateScheduler(StepDecay(0.5, (1, 2)))
    _, history = _fit(keras.optimizers.SGD(0.1), scheduler)
    assert history["learning_rate"] == pytest.approx([0.5, 0.05, 0.005])


def test_alpha_schedule__by_the_step__is_in_force_at_each():
    seen = []

    def ramp(step, alpha):
        seen.append((step, alpha))
        return 0.01 * step

    by_step = tf_gnc.callbacks.AlphaSchedule(ramp, unit="step")
    model, history = _fit("sgd", by_step)
    assert seen == [(0, 0.1), *((s, 0.01 * (s - 1)) for s in range(1, 6))]
    assert history["alpha"] == [0.01, 0.03, 0.05]
    assert model.noise_alpha == 0.05
    with pytest.raises(ValueError, match="`unit` must be"):
        tf_gnc.callbacks.AlphaSchedule(ramp, unit="batch")
