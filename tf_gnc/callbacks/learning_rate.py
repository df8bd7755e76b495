"""A learning rate that changes with every step, for any optimizer."""

from collections.abc import Callable

import keras
import numpy as np

from tf_gnc.callbacks.base import check_one_step_a_call


class LearningRatePerStep(keras.callbacks.Callback):
    """Sets the learning rate before every step, and logs it.

    A schedule handed to the optimizer itself does the same, but then Keras's
    `ReduceLROnPlateau` refuses the optimizer, and nothing logs the rate. This
    one takes an optimizer with a plain float rate, and any Keras model. Whoever
    changes the rate in between, as `ReduceLROnPlateau` does, multiplies the
    schedule from there on by what that made of it.

    Args:
        schedule: Takes the number of steps taken so far, as the optimizer
            counts them, and returns the rate of the coming step: a number or
            a scalar tensor, from `tf_gnc.schedules` for instance.

    Raises:
        ValueError: If `schedule` is not callable. In `fit`: if the optimizer
            has a schedule of its own, if the schedule returns no number of 0
            or more, or if `steps_per_execution` is above 1, whose steps know
            of no callback.

    Attributes:
        factor: What others have made of the rate so far, a multiple.

    Example:
        >>> warm_up = LearningRatePerStep(lambda step: 0.1 * min(1, step / 10))
        >>> model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
        >>> model.compile("sgd", "mse")
        >>> history = model.fit(np.ones((4, 1)), np.ones((4, 1)), batch_size=2,
        ...                     epochs=2, callbacks=[warm_up], verbose=0)
        >>> [round(rate, 3) for rate in history.history["learning_rate"]]
        [0.01, 0.03]
    """

    backed_up = ("factor", "_rate")  # see tf_gnc.callbacks.callback_state

    def __init__(self, schedule: Callable[[int], float]) -> None:
        super().__init__()
        if not callable(schedule):
            raise ValueError(
                "`schedule` must be a function of the step, got "
                f"schedule={schedule!r}."
            )
        self.schedule = schedule
        self.factor = 1.0
        self._rate: float | None = None  # as set last

    def on_train_begin(self, logs: dict | None = None) -> None:
        """Refuses an optimizer whose rate can't be set."""
        check_one_step_a_call(self.model, type(self).__name__)
        if not isinstance(self.model.optimizer.learning_rate, keras.Variable):
            raise ValueError(
                "`LearningRatePerStep` needs an optimizer with a plain rate, "
                "got one that has a schedule of its own. Pass it "
                "learning_rate=0.1, or leave this callback out."
            )

    def on_train_batch_begin(
        self, batch: int, logs: dict | None = None
    ) -> None:
        """Sets the rate of the coming step."""
        step = int(self.model.optimizer.iterations.numpy())
        rate = np.asarray(self.schedule(step))
        if rate.size != 1 or not 0 <= float(rate) < np.inf:
            raise ValueError(
                "`schedule` must return a rate of 0 or more, got "
                f"{rate.tolist()!r} for step {step}."
            )
        self._notice()
        optimizer = self.model.optimizer
        optimizer.learning_rate = self.factor * float(rate)
        self._rate = float(optimizer.learning_rate)  # as rounded

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        """Adds the last step's rate to the epoch's logs."""
        if logs is not None:
            logs["learning_rate"] = self._rate

    def on_train_end(self, logs: dict | None = None) -> None:
        """Keeps what the last epoch's end made of the rate."""
        self._notice()
        self._rate = None

    def _notice(self) -> None:
        """Looks for a rate that somebody else has set."""
        if self._rate:
            now = float(self.model.optimizer.learning_rate)
            self.factor *= now / self._rate
