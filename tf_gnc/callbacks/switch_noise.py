"""Callbacks that change the noise during `fit`: the rule or its coefficient."""

import inspect
import math
import warnings
from collections.abc import Callable

import keras

from tf_gnc import _check, _keras_compat
from tf_gnc.callbacks.base import StepCallback, check_one_step_a_call
from tf_gnc.noise.rule import NoiseRule
from tf_gnc.step.compile_checks import check_fit, check_rule


class SwitchNoise(StepCallback):
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
        check_rule(noise)
        self.noise = noise

    def on_train_begin(self, logs: dict | None = None) -> None:
        """Rejects a switch that the run would never reach."""
        epochs = self.params.get("epochs")
        if epochs is not None and self.epoch >= epochs:
            raise ValueError(
                "`SwitchNoise` must switch within the run, got "
                f"epoch={self.epoch} with epochs={epochs} (counted from 0). "
                f"Use an epoch from 0 to {epochs - 1}."
            )
        _check_now(self.noise, self.model)

    def on_epoch_begin(self, epoch: int, logs: dict | None = None) -> None:
        """Switches if the epoch has come and the rule isn't in force yet."""
        if epoch >= self.epoch and self.model.noise_rule != self.noise:
            self.model.noise_rule = self.noise


def _check_now(noise: NoiseRule | None, model: keras.Model) -> None:
    """Raises a ValueError if a rule doesn't fit, not only as it is switched."""
    if noise is not None and _keras_compat.is_built(model):
        plan = model.step_plan
        check_fit(noise, plan.num_workers, model, plan.layout)


class SwitchNoiseOnDrop(StepCallback):
    r"""Puts another rule in force once a measured number has dropped.

    Experimental, and not in the paper, which switches at a fixed epoch
    because similarity to the full gradient (Fig. 3 b) and the spread of the
    displaced models' losses (Fig. 4 b, c) drop in the later part of training.
    This watches such a number, in the epoch's logs: a `Probe` before this
    callback puts `probe_similarity_total` and `probe_loss_spread_std` there.

    The rule changes with the epoch after the one at whose end the number has
    been below `share` times its highest value so far for `patience` epochs.
    Epochs without the number, or with NaN, don't count.

    Args:
        noise: The new rule, or None for plain data-parallel SGD.
        monitor: Name in the epoch's logs of a number that is above 0.
        share: Of the highest value; above 0, at most 1.
        patience: Epochs in succession, at least 1.
        start_epoch: Epochs, counted from 0, before this one aren't looked at:
            during the warm-up numbers move for other reasons.

    Raises:
        ValueError: If an argument is outside its range.

    Example:
        >>> switch = SwitchNoiseOnDrop(
        ...     RandomNoise(alpha=2.0), "probe_similarity_total", share=0.5)
        >>> switch.switched
        False
    """

    def __init__(
        self,
        noise: NoiseRule | None,
        monitor: str,
        share: float = 0.5,
        patience: int = 1,
        start_epoch: int = 0,
    ) -> None:
        super().__init__()
        check_rule(noise)
        self.noise = noise
        self.monitor = monitor
        self.share = _check.real("share", share, above=0, maximum=1)
        self.patience = _check.integer("patience", patience, minimum=1)
        self.start_epoch = _check.integer("start_epoch", start_epoch, minimum=0)
        self.highest = -math.inf
        self.low_epochs = 0
        self.switched = False

    def on_train_begin(self, logs: dict | None = None) -> None:
        """Rejects a rule that doesn't fit the model."""
        _check_now(self.noise, self.model)

    def on_epoch_begin(self, epoch: int, logs: dict | None = None) -> None:
        """Switches if it is time and the rule isn't in force yet."""
        if self.switched and self.model.noise_rule != self.noise:
            self.model.noise_rule = self.noise

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        """Looks at the number."""
        value = (logs or {}).get(self.monitor)
        if self.switched or epoch < self.start_epoch:
            return
        if value is None or math.isnan(value):
            return
        if value >= self.share * self.highest:
            self.low_epochs = 0
        else:
            self.low_epochs += 1
        self.highest = max(self.highest, float(value))
        self.switched = self.low_epochs >= self.patience

    def on_train_end(self, logs: dict | None = None) -> None:
        """Warns if there was nothing to look at."""
        epochs = self.params.get("epochs")
        if self.highest == -math.inf and (epochs or 0) > self.start_epoch:
            warnings.warn(
                f"`monitor` must be a number in the epoch's logs, got "
                f"monitor={self.monitor!r}, which none of them had: the rule "
                "was never switched. A tf_gnc.callbacks.Probe before this "
                "callback puts it there.",
                stacklevel=2,
            )


class AlphaSchedule(StepCallback):
    """Sets the noise's coefficient at the start of every epoch, or step.

    Not in the paper, whose alpha is constant. Nothing is traced anew.

    Args:
        schedule: Takes the epoch, counted from 0, and the coefficient in
            force, or the epoch alone; returns the coefficient for the epoch,
            a number of 0 or more.
        unit: `"epoch"`, or `"step"` for a schedule of the steps taken so far.

    Raises:
        ValueError: If `schedule` is not callable or `unit` unknown; in `fit`,
            if it returns something else, or if steps are to be counted and
            `steps_per_execution` is above 1.

    Example:
        >>> ramp = AlphaSchedule(lambda epoch: 0.1 * min(1, epoch / 10))
    """

    def __init__(
        self,
        schedule: Callable[[int, float], float] | Callable[[int], float],
        unit: str = "epoch",
    ) -> None:
        super().__init__()
        self.unit = _check.choice("unit", unit, ("epoch", "step"))
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

    def on_train_begin(self, logs: dict | None = None) -> None:
        """Refuses steps that it isn't asked about."""
        if self.unit == "step":
            check_one_step_a_call(self.model, type(self).__name__)

    def on_epoch_begin(self, epoch: int, logs: dict | None = None) -> None:
        """Sets the epoch's coefficient."""
        if self.unit == "epoch":
            self._set(epoch)

    def on_train_batch_begin(
        self, batch: int, logs: dict | None = None
    ) -> None:
        """Sets the step's coefficient."""
        if self.unit == "step":
            self._set(self._steps_taken())

    def _set(self, count: int) -> None:
        alpha = (self.model.noise_alpha,) if self._takes_alpha else ()
        self.model.noise_alpha = self.schedule(count, *alpha)

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        """Adds the coefficient in force to the epoch's logs."""
        if logs is not None:
            logs["alpha"] = self.model.noise_alpha
