"""What the callbacks of this folder have in common."""

import keras

from tf_gnc.step.trainer import NoiseSettings


class StepCallback(keras.callbacks.Callback):
    """A callback for models with `GNCTrainStep`."""

    def set_model(self, model: keras.Model) -> None:
        """Takes a model whose steps know noise; Keras calls this."""
        if not isinstance(model, NoiseSettings):
            raise ValueError(
                f"`{type(self).__name__}` needs a model with "
                "tf_gnc.GNCTrainStep, such as a tf_gnc.GNCModel, got a "
                f"{type(model).__name__}."
            )
        super().set_model(model)

    def _steps_taken(self) -> int:
        return int(self.model.optimizer.iterations.numpy())


def check_one_step_a_call(model: keras.Model, what: str) -> None:
    """Raises a ValueError if a model takes several steps at a time.

    `what` is the callback that wants to be asked before each.
    """
    at_once = model.steps_per_execution
    if at_once > 1:
        raise ValueError(
            f"`{what}` sets something before every step and needs "
            f"steps_per_execution=1, got {at_once}: TensorFlow would come "
            "back to Python after so many steps."
        )
