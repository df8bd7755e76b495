"""Schedules against NumPy loops in float64 and the paper's own numbers."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tf_gnc import schedules

UNIT = 2.0**-24  # Largest relative error of one rounding to float32.


def rates(schedule, steps):
    """The rates at all `steps`, from one compiled call."""
    return tf.function(schedule)(tf.constant(steps, tf.int64)).numpy()


def paper_rates(start, peak, steps_per_epoch, epochs=160):
    """Appendix A.4 as a loop over epochs and steps, in float64."""
    expected = []
    for epoch in range(epochs):
        for batch in range(steps_per_epoch):
            done = epoch + batch / steps_per_epoch
            if epoch < 10:
                expected.append(start + (peak - start) * done / 10)
            elif epoch < 80:
                expected.append(peak)
            elif epoch < 120:
                expected.append(peak / 10)
            else:
                expected.append(peak / 100)
    return np.array(expected)


@pytest.mark.parametrize(
    "batch_size, peak, steps_per_epoch",
    [(8192, 6.4, 6), (8192, 6.4, 7), (4096, 3.2, 13), (2048, 1.6, 25)],
)
def test_cifar_schedule__every_step_of_160_epochs__equals_loop_in_float64(
    batch_size, peak, steps_per_epoch
):
    schedule = schedules.cifar_schedule(batch_size, steps_per_epoch)
    expected = paper_rates(0.025, peak, steps_per_epoch)
    # The module's promise: one rounding.
    np.testing.assert_allclose(
        rates(schedule, range(160 * steps_per_epoch)),
        expected,
        rtol=1.01 * UNIT,
    )


@pytest.mark.parametrize("batch_size, peak", [(8192, 6.4), (4096, 3.2)])
def test_cifar_schedule__paper_batch_sizes__hits_the_numbers_of_table_4(
    batch_size, peak
):
    schedule = schedules.cifar_schedule(batch_size, steps_per_epoch=100)
    steps = [0, 1000, 7999, 8000, 11999, 12000, 15999]
    expected = np.float32(
        [0.025, peak, peak, peak / 10, peak / 10, peak / 100, peak / 100]
    )
    np.testing.assert_allclose(
        rates(schedule, steps), expected, rtol=1.01 * UNIT
    )


def test_cifar_schedule__figure_3c_base_rate__gives_its_exceptional_rates():
    for batch_size, peak in [(8192, 0.064), (4096, 0.032), (2048, 0.016)]:
        schedule = schedules.cifar_schedule(batch_size, 10, base_rate=0.001)
        np.testing.assert_allclose(
            rates(schedule, [0, 100]), [0.00025, peak], rtol=1.01 * UNIT
        )


def test_cifar_schedule__shorter_run__keeps_the_fractions():
    schedule = schedules.cifar_schedule(8192, steps_per_epoch=6, epochs=24)
    # 144 steps: warm-up 144 / 16 = 9, decays at 72 and 108.
    expected = [0.025, 6.4, 6.4, 0.64, 0.64, 0.064]
    steps = [0, 9, 71, 72, 107, 108]
    np.testing.assert_allclose(
        rates(schedule, steps), expected, rtol=1.01 * UNIT
    )
    assert schedule.steps == 9


def test_cifar_schedule__odd_length__rounds_boundaries_up():
    schedule = schedules.cifar_schedule(128, steps_per_epoch=1, epochs=3)
    assert schedule.then.boundaries == (2, 3)  # 1.5 and 2.25
    assert schedule.steps == 1  # 3 / 16


def test_cifar_schedule__single_step__error_names_both_numbers():
    with pytest.raises(ValueError, match="epochs=1 with steps_per_epoch=1"):
        schedules.cifar_schedule(8192, steps_per_epoch=1, epochs=1)
    schedules.cifar_schedule(8192, steps_per_epoch=2, epochs=1)


@pytest.mark.parametrize(
    "batch_size, rate", [(8192, 6.4), (4096, 3.2), (128, 0.1), (32, 0.025)]
)
def test_linear_scaling__paper_batch_sizes__gives_its_rates(batch_size, rate):
    assert schedules.linear_scaling(0.1, 128, batch_size) == rate


@pytest.mark.parametrize(
    "arguments, message",
    [
        ((-0.1, 128, 32), "base_rate=-0.1"),
        ((0.1, 0, 32), "base_batch_size=0"),
        ((0.1, 128, 32.0), "batch_size=32.0"),
    ],
)
def test_linear_scaling__illegal_argument__error_names_it(arguments, message):
    with pytest.raises(ValueError, match=message):
        schedules.linear_scaling(*arguments)
    assert schedules.linear_scaling(0.0, 1, 1) == 0.0


def test_warm_up__schedule_with_decays__follows_it_at_the_absolute_step():
    decay = schedules.StepDecay(1.0, [5, 8], factor=0.5)
    schedule = schedules.WarmUp(0.0, 4, decay)
    expected = [0.0, 0.25, 0.5, 0.75, 1.0, 0.5, 0.5, 0.5, 0.25, 0.25]
    assert rates(schedule, range(10)).tolist() == expected


def test_warm_up__decay_inside_the_ramp__aims_at_the_rate_where_it_ends():
    decay = schedules.StepDecay(1.0, [2], factor=0.5)
    schedule = schedules.WarmUp(0.0, 4, decay)
    assert (
        rates(schedule, range(6)).tolist()
        == [0, 0.125, 0.25, 0.375] + [0.5] * 2
    )


def test_warm_up__stock_keras_schedule__is_followed():
    cosine = keras.optimizers.schedules.CosineDecay(1.0, decay_steps=100)
    schedule = schedules.WarmUp(0.0, 10, cosine)
    at_50 = 0.5 * (1 + np.cos(np.pi * 50 / 100))
    at_5 = 0.5 * 0.5 * (1 + np.cos(np.pi * 10 / 100))
    # CosineDecay rounds a few times more, and relative to 1, not to 0.5.
    np.testing.assert_allclose(
        rates(schedule, [5])[0], at_5, atol=10 * UNIT, rtol=0
    )
    assert abs(float(schedule(50)) - at_50) < 10 * UNIT


def test_warm_up__start_above_the_target__descends():
    schedule = schedules.WarmUp(start=1.0, steps=2, then=0.0)
    assert rates(schedule, range(4)).tolist() == [1.0, 0.5, 0.0, 0.0]


def test_warm_up__no_steps__is_the_other_schedule_alone():
    schedule = schedules.WarmUp(start=1.0, steps=0, then=0.25)
    assert rates(schedule, [0, 1]).tolist() == [0.25, 0.25]


def test_warm_up__steps_beyond_float32__are_told_apart():
    steps = 2**40
    schedule = schedules.WarmUp(0.0, steps, schedules.StepDecay(8.0, [steps]))
    # The ramp ends at 0.8, the rate after the decay at its very end.
    np.testing.assert_allclose(
        rates(schedule, [0, 2**39, steps - 1, steps]),
        [0.0, 0.4, 0.8, 0.8],
        rtol=1.01 * UNIT,
    )
    decay = schedules.StepDecay(8.0, [steps], factor=0.5)
    assert rates(decay, [steps - 1, steps]).tolist() == [8.0, 4.0]
    assert float(decay(steps - 1)) == 8.0  # a Python int beyond int32


def test_step_decay__many_decays__round_only_once():
    schedule = schedules.StepDecay(0.3, list(range(1, 13)))
    expected = np.float32([0.3 * 0.1**k for k in range(13)])
    assert rates(schedule, range(13)).tolist() == expected.tolist()


def test_step_decay__no_boundaries__is_constant():
    schedule = schedules.StepDecay(0.5, [])
    assert rates(schedule, [0, 10**6]).tolist() == [0.5, 0.5]
    assert float(schedule(7)) == 0.5


@pytest.mark.parametrize(
    "step",
    [
        8000,
        np.int64(8000),
        np.int32(8000),
        tf.constant(8000, tf.int64),
        tf.constant(8000, tf.int32),
        keras.Variable(8000, dtype="int64"),
    ],
    ids=lambda step: type(step).__name__,
)
def test_schedules__step_of_any_integer_type__give_one_float32(step):
    rate = schedules.cifar_schedule(8192, 100)(step)
    assert rate.dtype == tf.float32 and rate.shape == ()
    assert float(rate) == np.float32(0.64)


@pytest.mark.parametrize("jit_compile", [False, True])
def test_schedules__scalar_step_compiled__equal_the_eager_ones(jit_compile):
    schedule = schedules.cifar_schedule(8192, 6)
    compiled = tf.function(
        schedule,
        input_signature=[tf.TensorSpec((), tf.int64)],
        jit_compile=jit_compile,
    )
    for step in (0, 1, 31, 59, 60, 479, 480, 719, 720):
        assert float(compiled(step)) == float(schedule(step))


@pytest.mark.parametrize("step", [1.5, tf.constant(1.0), np.float64(2)])
def test_schedules__fractional_step__error_says_what_came(step):
    for schedule in (schedules.WarmUp(0, 1, 1), schedules.StepDecay(1, [1])):
        with pytest.raises(ValueError, match="must be a whole number .* float"):
            schedule(step)


def test_schedules__config__round_trips_with_nested_schedules():
    cosine = keras.optimizers.schedules.CosineDecay(1.0, decay_steps=100)
    for original in (
        schedules.cifar_schedule(8192, 6),
        schedules.WarmUp(0.125, 10, 1.0),
        schedules.WarmUp(0.125, 10, cosine),
        schedules.WarmUp(0.5, 5, schedules.WarmUp(0.125, 10, cosine)),
        schedules.StepDecay(1.0, [3, 5], 0.5),
    ):
        config = keras.optimizers.schedules.serialize(original)
        copy = keras.optimizers.schedules.deserialize(config)
        assert type(copy) is type(original)
        assert keras.optimizers.schedules.serialize(copy) == config
        steps = range(0, 960, 5)
        assert rates(copy, steps).tolist() == rates(original, steps).tolist()
        # from_config must leave the caller's dictionary alone.
        before = original.get_config()
        type(original).from_config(before)
        assert before == original.get_config()


def test_schedules__in_an_optimizer__set_its_rate_step_by_step():
    schedule = schedules.WarmUp(0.0, 2, schedules.StepDecay(1.0, [3], 0.5))
    optimizer = keras.optimizers.SGD(schedule)
    x = keras.Variable([0.0])
    seen = []
    for _ in range(5):
        before = float(x.numpy()[0])
        optimizer.apply([tf.constant([1.0])], [x])
        seen.append(before - float(x.numpy()[0]))
    assert seen == [0.0, 0.5, 1.0, 0.5, 0.5]


@pytest.mark.parametrize(
    "arguments, message",
    [
        ((-1, 4, 1.0), "`start` must be .* at least 0, got start=-1"),
        ((0.0, -1, 1.0), "`steps` must be .* at least 0, got steps=-1"),
        ((0.0, 2.0, 1.0), "`steps` must be a whole number.*steps=2.0"),
        ((0.0, 4, "cosine"), "`then` must be .* got then='cosine'"),
        ((0.0, 4, -1.0), "`then` must be .* at least 0, got then=-1.0"),
    ],
)
def test_warm_up__illegal_argument__error_names_it(arguments, message):
    with pytest.raises(ValueError, match=message):
        schedules.WarmUp(*arguments)


@pytest.mark.parametrize(
    "arguments, message",
    [
        ((-1.0, [4]), "`initial` must be .* at least 0, got initial=-1.0"),
        ((1.0, 4), r"`boundaries` must be a list.*write boundaries=\[4\]"),
        ((1.0, [0, 4]), r"`boundaries\[0\]` must be .* at least 1"),
        ((1.0, [4, 4]), r"must increase strictly, got boundaries=\[4, 4\]"),
        ((1.0, [8, 4]), r"got boundaries=\[8, 4\].*: \[4, 8\]"),
        ((1.0, [4], 0), "`factor` must be .* above 0, .* got factor=0"),
        ((1.0, [4], 1.5), "`factor` must be .* at most 1, got factor=1.5"),
    ],
)
def test_step_decay__illegal_argument__error_names_it(arguments, message):
    with pytest.raises(ValueError, match=message):
        schedules.StepDecay(*arguments)
    schedules.StepDecay(0, [1, 2], 1)  # the edges themselves are legal


def test_config__subclass_with_an_argument_of_its_own__round_trip():
    class ToTen(schedules.WarmUp):
        def __init__(self, rate, **kwargs):
            super().__init__(then=rate, steps=10, **kwargs)

        def get_config(self):
            return {**super().get_config(), "rate": self.then, "start": 0.25}

    config = ToTen(0.5, start=0.25).get_config()
    assert config == {"rate": 0.5, "start": 0.25}
    assert ToTen.from_config(config).then == 0.5
