"""The decay, the collapse and Fig. 6 (b), by hand and in exact fractions."""

from fractions import Fraction

import keras
import numpy as np
import pytest
import tensorflow as tf

from tf_gnc import schedules

UNIT = 2.0**-24  # Largest relative error of one rounding to float32.


def rates(schedule, steps):
    """The rates at all `steps`, from one compiled call."""
    return tf.function(schedule)(tf.constant(steps, tf.int64)).numpy()


def paper_rates(peak, steps_per_epoch, decay_steps, epochs=90):
    """Appendix A.5 as a loop over steps, in exact fractions."""
    ramp, expected = 5 * steps_per_epoch, []
    for step in range(epochs * steps_per_epoch):
        if step < ramp:
            rate = 1 + (peak - 1) * Fraction(step, ramp)
        else:
            rate = peak * (1 - Fraction(step - ramp, decay_steps)) ** 2
        if step >= 80 * steps_per_epoch:
            rate /= 5
        expected.append(float(rate))
    return np.array(expected)


@pytest.mark.parametrize(
    "batch_size, peak, steps_per_epoch, decay_steps",
    [
        (32768, 23, 39, 4120),
        (32768, 23, 40, 4120),
        (131072, 42, 9, 1030),
        (131072, 42, 10, 1030),
    ],
)
def test_imagenet_schedule__every_step__equals_loop_in_fractions(
    batch_size, peak, steps_per_epoch, decay_steps
):
    schedule = schedules.imagenet_schedule(batch_size, steps_per_epoch)
    expected = paper_rates(peak, steps_per_epoch, decay_steps)
    ours = rates(schedule, range(90 * steps_per_epoch))
    # The module's promise: one rounding.
    np.testing.assert_allclose(ours, expected, rtol=1.01 * UNIT)


def test_cifar_schedule__marked_epochs_of_figure_6a__hand_numbers():
    expected = {
        0: 0.025,
        5: 3.2125,  # halfway from 0.025 to 6.4
        10: 6.4,
        79: 6.4,
        80: 0.64,
        119: 0.64,
        120: 0.064,
        159: 0.064,
    }
    schedule = schedules.cifar_schedule(8192, steps_per_epoch=7)
    ours = rates(schedule, [7 * epoch for epoch in expected])
    np.testing.assert_allclose(ours, list(expected.values()), rtol=1e-7)


def test_imagenet_schedule__marked_epochs_of_figure_6b__hand_numbers():
    # 40 steps an epoch, T = 4120 = 40 * 103: (1 - t / T) after e epochs is
    # (103 - (e - 5)) / 103.
    expected = {
        0: 1.0,
        2.5: 12.0,  # halfway from 1 to 23
        5: 23.0,
        6: 22.5555660288434,  # 23 * (102 / 103)**2
        79: 1.823263267037421,  # 23 * (29 / 103)**2
        80: 0.339937788669997,  # 23 * (28 / 103)**2 / 5
        90: 0.140484494297295,  # 23 * (18 / 103)**2 / 5
    }
    schedule = schedules.imagenet_schedule(32768, steps_per_epoch=40)
    steps = [round(40 * epoch) for epoch in expected]
    ours = rates(schedule, steps)
    np.testing.assert_allclose(ours, list(expected.values()), rtol=1e-7)
    # The step before the collapse: 920 of 4120 left, and one.
    before = 23 * (1121 / 4120) ** 2
    np.testing.assert_allclose(rates(schedule, [3199]), before, rtol=1e-7)


def test_imagenet_schedule__large_batch_of_table_4__is_the_same_curve():
    schedule = schedules.imagenet_schedule(131072, steps_per_epoch=10)
    ours = rates(schedule, [0, 50, 800])
    expected = [1.0, 42.0, 42 * (28 / 103) ** 2 / 5]
    np.testing.assert_allclose(ours, expected, rtol=1e-7)


def test_imagenet_schedule__other_lengths__keep_the_fractions():
    schedule = schedules.imagenet_schedule(32768, 40, epochs=18)
    assert (schedule.steps, schedule.then.boundary) == (40, 640)
    assert schedule.then.schedule.steps == 4120 // 5
    one = schedules.imagenet_schedule(
        64, 1, epochs=1, initial_rate=2.0, start_rate=0.5, decay_steps=9
    )
    assert rates(one, [0, 1]).tolist() == [0.5, np.float32(2 / 5)]


def test_imagenet_schedule__counted_from_step_0__as_its_docstring_says():
    schedule = schedules.WarmUp(
        1.0,
        200,
        schedules.FinalCollapse(schedules.PolynomialDecay(23.0, 4120), 3200),
    )
    expected = [1.0, 23 * (3920 / 4120) ** 2, 23 * (920 / 4120) ** 2 / 5]
    np.testing.assert_allclose(
        rates(schedule, [0, 200, 3200]), expected, rtol=1e-7
    )


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"batch_size": 8192}, "32768 or 131072 only, got batch_size=8192.*in"),
        ({"steps_per_epoch": 0}, "at least 1, got steps_per_epoch=0"),
        ({"epochs": 0}, "at least 1, got epochs=0"),
        ({"initial_rate": -1}, "at least 0, got initial=-1"),
        ({"start_rate": -1}, "at least 0, got start=-1"),
        ({"decay_steps": 0}, "at least 1, got steps=0"),
        ({"steps_per_epoch": 400}, "zero from step 6120 on.*36000.*42149"),
        ({"decay_steps": 3399}, "zero from step 3599 on"),
    ],
)
def test_imagenet_schedule__illegal_argument__error_names_it(
    arguments, message
):
    legal = {"batch_size": 32768, "steps_per_epoch": 40}
    with pytest.raises(ValueError, match=message):
        schedules.imagenet_schedule(**{**legal, **arguments})
    schedules.imagenet_schedule(**legal, decay_steps=3400)  # just enough


@pytest.mark.parametrize("power", [1, 2, 0.5, 3])
def test_polynomial_decay__any_power__equals_the_formula(power):
    schedule = schedules.PolynomialDecay(0.3, 50, power, after=7)
    expected = [
        0.3 * (1 - min(max(step - 7, 0), 50) / 50) ** power
        for step in range(70)
    ]
    np.testing.assert_allclose(
        rates(schedule, range(70)), expected, rtol=1.01 * UNIT
    )


def test_polynomial_decay__steps_beyond_float32__are_told_apart():
    schedule = schedules.PolynomialDecay(2.0**40, 2**40, power=1.0)
    steps = [2**40 - 1, 2**40 - 3, 2**40, 2**40 + 1]
    assert rates(schedule, steps).tolist() == [1.0, 3.0, 0.0, 0.0]


def test_final_collapse__any_schedule__is_divided_from_the_boundary_on():
    cosine = keras.optimizers.schedules.CosineDecay(1.0, decay_steps=100)
    schedule = schedules.FinalCollapse(cosine, 50, divisor=4)
    expected = [float(cosine(49)), float(cosine(50)) / 4]
    np.testing.assert_allclose(rates(schedule, [49, 50]), expected, rtol=UNIT)
    twice = schedules.FinalCollapse(schedules.FinalCollapse(8.0, 1, 2), 2, 2)
    assert rates(twice, [0, 1, 2]).tolist() == [8.0, 4.0, 2.0]


@pytest.mark.parametrize("jit_compile", [False, True])
def test_imagenet_schedule__scalar_step_compiled__equals_the_eager_one(
    jit_compile,
):
    schedule = schedules.imagenet_schedule(32768, 39)
    compiled = tf.function(
        schedule,
        input_signature=[tf.TensorSpec((), tf.int64)],
        jit_compile=jit_compile,
    )
    for step in (0, 1, 194, 195, 196, 3119, 3120, 3509, 9999):
        assert float(compiled(step)) == float(schedule(step))
        assert schedule(step).dtype == tf.float32


@pytest.mark.parametrize(
    "schedule",
    [
        schedules.imagenet_schedule(32768, 40),
        schedules.PolynomialDecay(1.0, 50, 3.0, after=10),
        schedules.FinalCollapse(0.5, 10, 2.0),
        schedules.FinalCollapse(
            keras.optimizers.schedules.CosineDecay(1.0, decay_steps=100), 10
        ),
    ],
    ids=lambda schedule: type(schedule).__name__,
)
def test_schedules__config__round_trips(schedule):
    config = keras.optimizers.schedules.serialize(schedule)
    copy = keras.optimizers.schedules.deserialize(config)
    assert type(copy) is type(schedule)
    assert keras.optimizers.schedules.serialize(copy) == config
    steps = range(0, 3600, 5)
    assert rates(copy, steps).tolist() == rates(schedule, steps).tolist()
    # from_config must leave the caller's dictionary alone.
    before = schedule.get_config()
    type(schedule).from_config(before)
    assert before == schedule.get_config()


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: schedules.PolynomialDecay(-1, 5), "got initial=-1"),
        (lambda: schedules.PolynomialDecay(1, 0), "got steps=0"),
        (lambda: schedules.PolynomialDecay(1, 5, 0), "above 0, got power=0"),
        (lambda: schedules.PolynomialDecay(1, 5, after=-1), "got after=-1"),
        (lambda: schedules.FinalCollapse("poly", 5), "got schedule='poly'"),
        (lambda: schedules.FinalCollapse(1.0, 0), "got boundary=0"),
        (lambda: schedules.FinalCollapse(1.0, 5, 0.5), "got divisor=0.5"),
        (lambda: schedules.FinalCollapse(1.0, 5)(1.5), "a whole number"),
        (lambda: schedules.PolynomialDecay(1.0, 5)(1.5), "a whole number"),
    ],
)
def test_schedules__illegal_argument__error_names_it(make, message):
    with pytest.raises(ValueError, match=message):
        make()
