"""GNCtoRNC and schedules of the coefficient."""

import gc
import weakref

import keras
import numpy as np
import pytest

import tf_gnc
from tests import problems

M = 4
GNC = tf_gnc.GradientNoise(alpha=1.0)
RNC = tf_gnc.RandomNoise(alpha=0.5, seed=3)


def _run(callbacks=(), epochs=4, noise=None, **fit):
    x, y = problems.vectors(32)
    model, history = problems.trained(
        problems.quick_network(),
        x,
        y,
        epochs=epochs,
        noise=noise,
        num_workers=M,
        fit={"callbacks": list(callbacks), **fit},
    )
    return model, history


def _tiny():
    inputs = keras.Input((5,))
    model = tf_gnc.GNCModel(inputs, keras.layers.Dense(3)(inputs))
    model.compile(
        problems.sgd(), problems.cross_entropy(), noise=GNC, num_workers=2
    )
    return model


def _fit_tiny(callbacks, epochs):
    """A step an epoch."""
    x, y = problems.vectors(2)
    return _tiny().fit(x, y, epochs=epochs, verbose=0, callbacks=callbacks)


def _epochs_without_steps(callbacks, epochs):
    """What `fit` calls at epochs, for what a callback does there."""
    listed = keras.callbacks.CallbackList(
        callbacks, model=_tiny(), epochs=epochs
    )
    listed.on_train_begin()
    for epoch in range(epochs):
        listed.on_epoch_begin(epoch)
        listed.on_epoch_end(epoch, {"loss": 1.0})
    listed.on_train_end()


class _Note(keras.callbacks.Callback):
    """Notes the rule in force in each epoch, and the first memory."""

    def __init__(self):
        super().__init__()
        self.rules, self.first_memory = [], None

    def on_epoch_end(self, epoch, logs=None):
        self.rules.append(self.model.noise_rule)
        if epoch == 0 and self.model.step_plan.memory is not None:
            self.first_memory = weakref.ref(
                self.model.step_plan.memory.gradients
            )


@pytest.fixture(scope="module")
def switched():
    """A run from GNC to RNC, and what was noted in it."""
    note = _Note()
    switch = tf_gnc.callbacks.SwitchNoise(epoch=2, noise=RNC)
    model, _ = _run([switch, note], noise=GNC)
    return model, note


@pytest.fixture(scope="module")
def only_gnc():
    model, _ = _run(noise=GNC)
    return model


def test_switch_noise__gnc_to_rnc__is_two_fits_one_after_the_other(
    switched, only_gnc
):
    by_hand, _ = _run(epochs=2, noise=GNC)
    by_hand.noise_rule = RNC
    x, y = problems.vectors(32)
    by_hand.fit(
        x, y, batch_size=16, shuffle=False, verbose=0, initial_epoch=2, epochs=4
    )
    for a, b in zip(switched[0].variables, by_hand.variables, strict=True):
        np.testing.assert_array_equal(a.numpy(), b.numpy(), err_msg=a.path)
    difference = problems.largest_difference(
        problems.float_weights(switched[0]), problems.float_weights(only_gnc)
    )
    assert difference > 1e-4


def test_switch_noise__after_the_switch__old_memory_is_freed(switched):
    model, note = switched
    assert note.rules == [GNC, GNC, RNC, RNC]
    gc.collect()
    assert note.first_memory() is None
    assert model.step_plan.memory is None


def test_switch_noise__run_that_starts_later__switches_at_once():
    note = _Note()
    switch = tf_gnc.callbacks.SwitchNoise(2, RNC)
    _run([switch, note], epochs=5, noise=GNC, initial_epoch=3)
    assert note.rules == [RNC, RNC]


@pytest.mark.parametrize("replicas", [2])
def test_switch_noise__two_replicas__same_run_as_one(replicas, switched):
    with problems.mirrored(replicas):
        two, _ = _run([tf_gnc.callbacks.SwitchNoise(2, RNC)], noise=GNC)
    difference = problems.largest_difference(
        problems.float_weights(switched[0]), problems.float_weights(two)
    )
    assert difference < 1e-5


def test_switch_noise__beyond_the_run__error_names_both():
    switch = tf_gnc.callbacks.SwitchNoise(4, None)
    with pytest.raises(ValueError, match="epoch=4 with epochs=4"):
        _run([switch], noise=GNC)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"epoch": -1, "noise": None}, "epoch=-1"),
        ({"epoch": 1.5, "noise": None}, "epoch=1.5"),
        ({"epoch": 1, "noise": "rnc"}, "noise='rnc'"),
    ],
)
def test_switch_noise__bad_argument__error_shows_it(arguments, message):
    with pytest.raises(ValueError, match=message):
        tf_gnc.callbacks.SwitchNoise(**arguments)


def test_switch_noise__stock_keras_model__error_says_what_it_needs():
    x, y = problems.images(16)
    model = problems.plain_network(keras.Model)
    switch = tf_gnc.callbacks.SwitchNoise(0, None)
    with pytest.raises(ValueError, match="needs a model with .*GNCTrainStep"):
        problems.trained(model, x, y, fit={"callbacks": [switch]})


def test_alpha_schedule__of_the_epoch__is_logged_and_in_force(only_gnc):
    schedule = tf_gnc.callbacks.AlphaSchedule(lambda epoch: 0.5 * epoch)
    model, history = _run([schedule], noise=GNC)
    assert history["alpha"] == [0.0, 0.5, 1.0, 1.5]
    constant = tf_gnc.callbacks.AlphaSchedule(lambda epoch: 1.0)
    same, _ = _run([constant], noise=tf_gnc.GradientNoise(0.0))
    for a, b in zip(same.variables, only_gnc.variables, strict=True):
        np.testing.assert_array_equal(a.numpy(), b.numpy())
    difference = problems.largest_difference(
        problems.float_weights(model), problems.float_weights(only_gnc)
    )
    assert difference > 1e-4


def test_alpha_schedule__of_epoch_and_alpha__builds_on_the_last():
    schedule = tf_gnc.callbacks.AlphaSchedule(lambda epoch, alpha: alpha / 2)
    history = _fit_tiny([schedule], epochs=3).history
    assert history["alpha"] == [0.5, 0.25, 0.125]


def test_alpha_schedule__bad_values__errors_show_them():
    with pytest.raises(ValueError, match="schedule=0.1"):
        tf_gnc.callbacks.AlphaSchedule(0.1)
    negative = tf_gnc.callbacks.AlphaSchedule(lambda epoch: -0.5)
    with pytest.raises(ValueError, match="alpha=-0.5"):
        _fit_tiny([negative], epochs=4)


class _Measured(keras.callbacks.Callback):
    """Puts given numbers into the epochs' logs; None for nothing."""

    def __init__(self, values):
        super().__init__()
        self.values = values

    def on_epoch_end(self, epoch, logs=None):
        if self.values[epoch] is not None:
            logs["measured"] = self.values[epoch]


@pytest.mark.parametrize(
    ("values", "settings", "first"),
    [
        ([1.0, 0.6, 0.4, 0.9, 0.9], {}, 3),
        ([1.0, 0.4, 0.9, 0.4, 0.4], {"patience": 2}, 5),
        ([1.0, None, 0.4, None, 1.0], {}, 3),
        ([1.0, np.nan, 0.9, np.nan, 0.9], {}, None),
        ([np.nan, 1.0, 0.4, 1.0, 1.0], {}, 3),
        ([1.0, 0.9, 0.9, 0.9, 0.9], {}, None),
        ([9.0, 1.0, 1.0, 0.6, 0.4], {"start_epoch": 1}, 5),
        ([1.0, 0.7, 0.7, 0.7, 0.7], {"share": 0.8}, 2),
        ([0.4, 0.8, 0.5, 0.3, 1.0], {}, 4),  # of the highest, not the first
    ],
)
def test_switch_on_drop__measured_numbers__switches_in_the_epoch_after(
    values, settings, first
):
    note = _Note()
    switch = tf_gnc.callbacks.SwitchNoiseOnDrop(RNC, "measured", **settings)
    callbacks = [_Measured([*values, 1.0]), switch, note]
    _epochs_without_steps(callbacks, epochs=6)
    want = [GNC if first is None or e < first else RNC for e in range(6)]
    assert note.rules == want
    assert switch.switched == (first is not None)


def test_switch_on_drop__in_fit__switches():
    note = _Note()
    switch = tf_gnc.callbacks.SwitchNoiseOnDrop(RNC, "measured")
    _fit_tiny([_Measured([1.0, 0.4, 0.4]), switch, note], epochs=3)
    assert note.rules == [GNC, GNC, RNC]


def test_switch_on_drop__number_never_measured__says_so():
    switch = tf_gnc.callbacks.SwitchNoiseOnDrop(None, "measured")
    with pytest.warns(UserWarning, match="none of them had"):
        _fit_tiny([switch], epochs=1)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"noise": "rnc"}, "`noise` must be a noise rule"),
        ({"share": 0}, "`share`"),
        ({"share": 1.5}, "`share`"),
        ({"patience": 0}, "`patience`"),
        ({"start_epoch": -1}, "`start_epoch`"),
    ],
)
def test_switch_on_drop__illegal_argument__is_refused(arguments, message):
    arguments = {"noise": None, "monitor": "measured", **arguments}
    with pytest.raises(ValueError, match=message):
        tf_gnc.callbacks.SwitchNoiseOnDrop(**arguments)


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        (tf_gnc.MomentumNoise(0.1), "momentum=0"),
        (tf_gnc.SharpnessAware(0.1, group=3), "`group` must divide"),
        (tf_gnc.GradientNoise(0.1, include="kernal"), "include='kernal'"),
    ],
)
def test_switch_noise__rule_that_does_not_fit__is_refused_at_once(
    rule, message
):
    model = problems.dense_network()
    model.compile(
        keras.optimizers.SGD(0.1), problems.cross_entropy(), num_workers=4
    )
    x, y = problems.vectors(16)
    for switch in (
        tf_gnc.callbacks.SwitchNoise(1, rule),
        tf_gnc.callbacks.SwitchNoiseOnDrop(rule, "loss"),
    ):
        with pytest.raises(ValueError, match=message):
            model.fit(
                x, y, batch_size=16, epochs=2, verbose=0, callbacks=[switch]
            )
    assert int(model.optimizer.iterations) == 0
