"""Smoothed cross-entropy against a loop over classes."""

import math

import keras
import numpy as np
import pytest

from tf_gnc.losses import SmoothedCrossentropy

PROBABILITIES = np.array([[0.7, 0.2, 0.1], [0.1, 0.3, 0.6]])
LABELS = np.array([0, 1])


def _by_hand(smoothing):
    """Mean over the rows of -sum over classes of target times logarithm."""
    losses = []
    for row, label in zip(PROBABILITIES, LABELS, strict=True):
        loss = 0.0
        for index, probability in enumerate(row):
            target = smoothing / 3 + (1 - smoothing) * (index == label)
            loss -= target * math.log(probability)
        losses.append(loss)
    return sum(losses) / len(losses)


@pytest.mark.parametrize("smoothing", [0, 0.1, 1])
@pytest.mark.parametrize("from_logits", [True, False])
def test_smoothed_crossentropy__any_smoothing__is_the_sum_over_classes(
    smoothing, from_logits
):
    loss = SmoothedCrossentropy(smoothing, from_logits)
    predicted = np.log(PROBABILITIES) if from_logits else PROBABILITIES
    for labels in (LABELS, LABELS[:, np.newaxis]):
        found = float(loss(labels, predicted))
        assert found == pytest.approx(_by_hand(smoothing), rel=1e-5)


@pytest.mark.parametrize("smoothing", [-0.1, 1.5, float("nan"), None])
def test_smoothed_crossentropy__smoothing_out_of_range__is_refused(smoothing):
    with pytest.raises(ValueError, match="`smoothing` must be"):
        SmoothedCrossentropy(smoothing)


def test_smoothed_crossentropy__registered__comes_back_with_its_arguments():
    loss = SmoothedCrossentropy(0.2, from_logits=False, name="mine")
    config = keras.saving.serialize_keras_object(loss)
    assert config["registered_name"] == "tf_gnc>SmoothedCrossentropy"
    again = keras.saving.deserialize_keras_object(config)
    assert again.get_config() == loss.get_config()
