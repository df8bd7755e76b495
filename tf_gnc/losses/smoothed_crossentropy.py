"""Cross-entropy of whole-number labels, smoothed."""

from typing import Any

import keras

from tf_gnc import _check


@keras.saving.register_keras_serializable(package="tf_gnc")
class SmoothedCrossentropy(keras.losses.Loss):
    r"""Cross-entropy of whole-number labels, smoothed.

    The target is :math:`(1 - s)` for the label's class plus :math:`s / C` for
    each of the C classes (Szegedy et al., 2016, arXiv:1512.00567, section 7).

    Args:
        smoothing: s, from 0 to 1.
        from_logits: Whether predictions are logits, not probabilities.
        **kwargs: As for `keras.losses.Loss`.

    Raises:
        ValueError: If `smoothing` is out of its range.

    Example:
        >>> loss = SmoothedCrossentropy(0.5, from_logits=False)
        >>> y_true, y_pred = np.array([0]), np.array([[0.75, 0.25]])
        >>> round(float(loss(y_true, y_pred)), 4)  # the least there can be
        0.5623
    """

    def __init__(
        self, smoothing: float, from_logits: bool = True, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.smoothing = _check.real(
            "smoothing", smoothing, minimum=0, maximum=1
        )
        self.from_logits = from_logits

    def call(self, y_true: Any, y_pred: Any) -> Any:
        """Returns the loss of each example."""
        y_true = keras.ops.one_hot(
            keras.ops.cast(y_true, "int32"), y_pred.shape[-1]
        )
        return keras.losses.categorical_crossentropy(
            keras.ops.reshape(y_true, keras.ops.shape(y_pred)),
            y_pred,
            from_logits=self.from_logits,
            label_smoothing=self.smoothing,
        )

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments."""
        return {
            **super().get_config(),
            "smoothing": self.smoothing,
            "from_logits": self.from_logits,
        }
