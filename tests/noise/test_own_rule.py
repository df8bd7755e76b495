"""A rule of the user's own: what it must define, and what it inherits."""

import numpy as np

import tf_gnc
from tests import problems


class Own(tf_gnc.NoiseRule):
    """Gradient noise, by the contract alone."""

    needs = frozenset({"previous", "previous_mean"})

    def direction(self, at):
        return at.previous - at.previous_mean


def _train(rule):
    model = problems.dense_network()
    model.compile("sgd", problems.cross_entropy(), noise=rule, num_workers=4)
    x, y = problems.vectors(16)
    for _ in range(3):
        model.train_on_batch(x, y)
    return model, (x, y)


def test_own_rule__needs_and_direction_alone__is_gnc():
    own, (x, y) = _train(Own(alpha=0.5))
    known, _ = _train(tf_gnc.GradientNoise(alpha=0.5))
    for a, b in zip(own.get_weights(), known.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    assert tf_gnc.doctor.check(own, x, y).ok
    assert tf_gnc.doctor.memory_forecast(own).dtype == "float32"
