"""Callbacks that change the noise during `fit`: its rule, or its coefficient.

Floor 3: may import from floors 0 to 2.
"""

import inspect
from collections.abc import Callable

import keras

from tf_gnc import _check
from tf_gnc.compiling import NoiseSettings
from tf_gnc.noise import NoiseRule


def check_model(callback: keras.callbacks.Callback, model: keras.Model) -> None:
    """Checks that a model's training step knows noise.

    Raises:
        ValueError: If it doesn't.
    """
    if not isinstance(model, NoiseSettings):
        raise ValueError(
            f"`{type(callback).__name__}` needs a model with "
            "tf_gnc.GNCTrainStep, such as a tf_gnc.GNCModel, got a "
            f"{type(model).__name__}."
        )


class _NoiseCallback(keras.callbacks.Callback):
    """A callback for models with `GNCTrainStep`."""

    def set_model(self, model: keras.Model) -> None:
        """Takes the model; Keras calls this."""
        check_model(self, model)
        super().set_model(model)


class SwitchNoise(_NoiseCallback):
    """Puts another noise rule in force from an epoch on: GNCtoRNC.

    Paper: Haruki et al. (2019), arXiv:1906.10822, section 4: GNC first, RNC
    from epoch 120 of 160 (CIFAR) or 80 of 90 (ImageNet) on.
    Deviation from the paper: none.

    The old rule's memory is freed. The step is traced anew, which costs
    seconds once. A `fit` that starts after `epoch` (`initial_epoch`) switches
    at once.

    Args:
        epoch: First epoch, counted from 0, under the new rule.
        noise: The new rule, or None for plain data-parallel SGD.

    Raises:
        ValueError: If an argument is outside its range.

    Example:
        >>> switch = SwitchNoise(epoch=120, noise=RandomNoise(alpha=2.0))
        >>> switch.epoch
        120
    """

    def __init__(self, epoch: int, noise: NoiseRule | None) -> None:
        super().__init__()
        self.epoch = _check.integer("epoch", epoch, minimum=0)
        if noise is not None and not isinstance(noise, NoiseRule):
            raise ValueError(
                f"`noise` must be a noise rule or None, got noise={noise!r}."
            )
        self.noise = noise

    def on_train_begin(self, logs: dict | None = None) -> None:
        """Rejects a switch that the run would never reach."""
        epochs = self.params.get("epochs")
        if epochs is not None and self.epoch >= epochs:
            raise ValueError(
                "`SwitchNoise` must take place within the run, got "
                f"epoch={self.epoch} with epochs={epochs} (counted from 0). "
                f"Use an epoch from 0 to {epochs - 1}."
            )

    def on_epoch_begin(self, epoch: int, logs: dict | None = None) -> None:
        """Switches if the epoch has come and the rule isn't in force yet."""
        if epoch >= self.epoch and self.model.noise_rule != self.noise:
            self.model.noise_rule = self.noise


class AlphaSchedule(_NoiseCallback):
    """Sets the noise's coefficient at the start of every epoch.

    Not in the paper, whose alpha is constant. Nothing is traced anew.

    Args:
        schedule: Takes the epoch, counted from 0, and the coefficient in
            force, or the epoch alone; returns the coefficient for the epoch,
            a number of 0 or more.

    Raises:
        ValueError: If `schedule` is not callable; in `fit`, if it returns
            something else.

    Example:
        >>> ramp = AlphaSchedule(lambda epoch: 0.1 * min(1, epoch / 10))
    """

    def __init__(
        self, schedule: Callable[[int, float], float] | Callable[[int], float]
    ) -> None:
        super().__init__()
        if not callable(schedule):
            raise ValueError(
                "`schedule` must be a function of the epoch, got "
                f"schedule={schedule!r}."
            )
        self.schedule = schedule
        try:
            inspect.signature(schedule).bind(0, 0.0)
            self._takes_alpha = True
        except TypeError:
            self._takes_alpha = False

    def on_epoch_begin(self, epoch: int, logs: dict | None = None) -> None:
        """Sets the epoch's coefficient."""
        arguments = (epoch, self.model.noise_alpha)
        if not self._takes_alpha:
            arguments = (epoch,)
        self.model.noise_alpha = self.schedule(*arguments)

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        """Adds the coefficient in force to the epoch's logs."""
        if logs is not None:
            logs["alpha"] = self.model.noise_alpha
