"""Which optimizers a rule goes with, and what the others are told."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import tf_gnc
from tests import problems
from tf_gnc import GradientNoise, MomentumNoise, SharpnessAware, _keras_compat

OPTIMIZERS = {
    "ours": lambda: tf_gnc.optimizers.MomentumSGD(0.1, 0.9),
    "lars": lambda: tf_gnc.optimizers.LARS(1.0, 0.9, 0.01),
    "larc": lambda: tf_gnc.optimizers.LARS(1.0, 0.9, 0.01, variant="larc"),
    "sgd": lambda: keras.optimizers.SGD(0.1, momentum=0.9),
    "adam": lambda: keras.optimizers.Adam(0.01),
    "adamw": lambda: keras.optimizers.AdamW(0.01),
    "nadam": lambda: keras.optimizers.Nadam(0.01),
    "adamax": lambda: keras.optimizers.Adamax(0.01),
    "lamb": lambda: keras.optimizers.Lamb(0.01),
    "lion": lambda: keras.optimizers.Lion(0.01),
    "rmsprop": lambda: keras.optimizers.RMSprop(0.01, momentum=0.9),
    "loss scale": lambda: keras.optimizers.LossScaleOptimizer(
        keras.optimizers.SGD(0.1, momentum=0.9)
    ),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_update_vectors__each_optimizer__point_the_way_the_weights_went(name):
    """After a first step from rest all of them went along their momentum."""
    x = keras.Variable(np.array([1.0, -2.0, 3.0], "float32"))
    optimizer = OPTIMIZERS[name]()
    optimizer.build([x])
    before = x.numpy()
    gradient = tf.constant([0.5, 0.25, -1.0])
    optimizer.apply([optimizer.scale_loss(gradient)], [x])
    (update,) = _keras_compat.update_vectors(optimizer, [x])
    moved = x.numpy() - before
    assert (np.sign(update) == np.sign(moved)).all(), (update, moved)


def _model(optimizer, rule):
    model = problems.dense_network()
    model.compile(optimizer, problems.cross_entropy(), noise=rule,
                  num_workers=4)  # fmt: skip
    return model


def _fit(model, steps=1):
    x, y = problems.vectors(16 * steps)
    model.fit(x, y, batch_size=16, verbose=0)
    return model


def _shared():
    return keras.optimizers.MultiOptimizer(
        keras.optimizers.OptimizerMap(keras.optimizers.SGD(0.1))
    )


NONE, UNKNOWN = "keeps none with momentum=0", "isn't known to keep one"


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (lambda: keras.optimizers.SGD(0.1), NONE),
        (lambda: keras.optimizers.RMSprop(0.1), NONE),
        (lambda: tf_gnc.optimizers.MomentumSGD(0.1, momentum=0.0), NONE),
        (lambda: keras.optimizers.Adagrad(0.1), UNKNOWN),
        (lambda: keras.optimizers.Muon(0.1), UNKNOWN),
        # What it calls momentum are weights.
        (lambda: keras.optimizers.ScheduleFreeAdamW(0.1), UNKNOWN),
        (_shared, UNKNOWN),
    ],
)
def test_momentum__optimizer_without_one__says_why_and_which_have(make, why):
    optimizer = make()
    with pytest.raises(
        ValueError,
        match=rf"got {type(optimizer).__name__}, which {why}\. Use tf_gnc.*"
        r"with momentum: .*Adam.* the method `update_vectors\(\)`",
    ):
        _fit(_model(optimizer, MomentumNoise(0.1)))


def test_momentum__class_of_the_users_own__says_where_it_stands():
    class Known(keras.optimizers.Muon):
        def update_vectors(self):
            return self.momentums, -1

    _fit(_model(Known(0.01), MomentumNoise(0.1)))


def test_rate__optimizer_without_one__is_refused_or_not_asked_for():
    with pytest.raises(ValueError, match="GradientNoise displaces by a mult"):
        _fit(_model(_shared(), GradientNoise(0.1)))
    _fit(_model(_shared(), None))
    _fit(_model(_shared(), SharpnessAware(0.1)))


class OwnRate(tf_gnc.NoiseRule):
    """A length of its own, and a direction that asks for the rate."""

    needs = frozenset({"previous"})
    follows_rate = False

    def direction(self, at):
        return at.rate * at.previous


def test_rate__asked_for_by_a_rule__is_the_optimizers_of_the_step():
    """The same as a rule that follows the rate, under a schedule."""
    ends = []
    for rule in (OwnRate(2.0), GradientNoise(2.0, center=False)):
        schedule = keras.optimizers.schedules.ExponentialDecay(0.1, 1, 0.5)
        ends.append(_fit(_model(keras.optimizers.SGD(schedule), rule), 4))
    first, second = (model.get_weights() for model in ends)
    assert problems.largest_difference(first, second) < 1e-6
    with pytest.raises(AttributeError, match="Learning rate cannot be"):
        _fit(_model(_shared(), OwnRate(2.0)))


def test_accumulation__in_an_optimizer_that_is_shared_with__is_refused():
    inner = keras.optimizers.SGD(0.1, gradient_accumulation_steps=2)
    optimizer = keras.optimizers.MultiOptimizer(
        keras.optimizers.OptimizerMap(inner)
    )
    with pytest.raises(ValueError, match="gradient_accumulation_steps=2"):
        _model(optimizer, None)
