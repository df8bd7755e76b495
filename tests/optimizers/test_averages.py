"""Averages of the weights, Keras's own, on runs with noise."""

import keras
import numpy as np
import pytest

import tf_gnc
from tests import problems
from tf_gnc import GradientNoise, SharpnessAware
from tf_gnc.callbacks import BackupAndRestore

B, BETA = 16, 0.8
GNC = GradientNoise(0.5)
OPTIMIZERS = {
    "momentum": lambda **more: tf_gnc.optimizers.MomentumSGD(0.1, 0.9, **more),
    "lars": lambda **more: tf_gnc.optimizers.LARS(1.0, momentum=0.9, **more),
    "adam": lambda **more: keras.optimizers.Adam(0.01, **more),
}


class _Weights(keras.callbacks.Callback):
    """The weights after each step."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def on_train_batch_end(self, batch, logs=None):
        self.seen.append([v.numpy() for v in self.model.trainable_variables])


def _model(name, rule=GNC, replicas=1):
    with problems.mirrored(replicas):
        model = problems.dense_network()
        optimizer = OPTIMIZERS[name](use_ema=True, ema_momentum=BETA)
        model.compile(
            optimizer, problems.cross_entropy(), noise=rule, num_workers=4
        )
    return model


def _fit(model, callbacks=(), epochs=2, **arguments):
    x, y = problems.vectors(4 * B)
    return model.fit(
        x, y, batch_size=B, shuffle=False, verbose=0, epochs=epochs,
        validation_data=(x, y), callbacks=[*callbacks], **arguments,
    ).history  # fmt: skip


def _averages(model):
    return [v.numpy() for v in model.optimizer._model_variables_moving_average]


@pytest.mark.parametrize("replicas", [1, 2])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_ema__steps_with_noise__averages_the_clean_weights(name, replicas):
    """Keras's average, by a loop over the weights that the steps left."""
    model = _model(name, replicas=replicas)
    start = [v.numpy() for v in model.trainable_variables]
    weights = _Weights()
    _fit(model, [weights])
    expected = [np.zeros_like(w) for w in start]
    for number, seen in enumerate(weights.seen):
        # The first step begins the average with its own weights.
        keep = BETA if number else 0.0
        expected = [
            keep * old + (1 - keep) * new
            for old, new in zip(expected, seen, strict=True)
        ]
    for a, b in zip(_averages(model), expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("rule", [GNC, SharpnessAware(0.1)])
def test_swap_ema_weights__validation__is_of_the_average_and_training_goes_on(
    rule,
):
    def run(*callbacks):
        model = _model("momentum", rule)
        return model, _fit(model, callbacks)

    swapped, seen = run(keras.callbacks.SwapEMAWeights())
    plain, unseen = run()
    # Keras swaps by sums, so weights come back up to their rounding.
    assert seen["loss"] == pytest.approx(unseen["loss"], rel=1e-5)
    assert seen["val_loss"][0] != pytest.approx(unseen["val_loss"][0], rel=1e-3)
    # `fit` ends with the averages in the model.
    for a, b in zip(swapped.trainable_variables, _averages(plain), strict=True):
        np.testing.assert_allclose(a.numpy(), b, rtol=1e-4, atol=1e-6)


def test_backup__killed_run_with_an_average__takes_it_up_bit_for_bit(tmp_path):
    def killed(epoch, logs):
        if epoch == 1:
            raise KeyboardInterrupt

    whole, first, second = _model("lars"), _model("lars"), _model("lars")
    _fit(whole, epochs=3)
    kill = keras.callbacks.LambdaCallback(on_epoch_begin=killed)
    with pytest.raises(KeyboardInterrupt):
        _fit(first, [BackupAndRestore(tmp_path), kill], epochs=3)
    _fit(second, [BackupAndRestore(tmp_path)], epochs=3)
    assert int(first.optimizer.iterations) == 4
    for a, b in zip(_averages(whole), _averages(second), strict=True):
        assert (a == b).all()
