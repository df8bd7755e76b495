"""What callbacks and checks of ours may do with the steps of a model.

It is kept apart from the model's own methods, which are the user's: callbacks
pass over steps and read their tables, the doctor takes steps without updates.
"""

import contextlib
import itertools
from collections.abc import Callable, Iterator
from typing import Any

import keras
import tensorflow as tf

from tf_gnc import _check

# What a dry step changes in the model, and puts back.
_CHANGED = (
    "_gnc_alpha",
    "_gnc_plan",
    "_gnc_rule",
    "steps_per_execution",
    "train_function",
)


class StepControl:
    """The control of one model's steps; `control_of` gives it.

    Attributes:
        update: Called in place of `optimizer.apply` by steps that are traced
            while it is set.
        left_in_epoch: How many steps the epoch still has, if its last call is
            to be a short one; None has all calls take `steps_per_execution`
            steps, as in stock Keras.
    """

    def __init__(self, model: keras.Model) -> None:
        self.model = model
        self.update: Callable[[list[tf.Tensor | None], Any], None] | None = None
        self.left_in_epoch: int | None = None
        self._keeps_table = False
        self._steps_left: int | None = None  # to be passed over
        self._reads_data = False
        self._logs: dict[str, Any] = {}

    def skip_steps(self, num_steps: int, read_data: bool) -> None:
        """Has `fit` pass over its next steps; for a resumed run.

        With `read_data` their batches are read and thrown away.

        Raises:
            ValueError: If a call would be passed over in part.
        """
        in_a_call = self.model.steps_per_execution
        if num_steps % in_a_call and num_steps != self.left_in_epoch:
            raise ValueError(
                "A resumed run must begin with a whole call, got "
                f"{num_steps} steps with steps_per_execution={in_a_call}. "
                "Use the `steps_per_execution` that the backup was made with."
            )
        self._steps_left, self._reads_data = num_steps, read_data
        self._logs = self.model.get_metrics_result()

    @property
    def is_skipping(self) -> bool:
        """Whether the call that `fit` has just made was passed over."""
        return self._steps_left is not None

    def pass_over(self, iterator: Any) -> dict[str, Any] | None:
        """Stands for a call of the training function, or returns None."""
        if not self._steps_left:
            self.end_skipping()
            return None
        steps = min(self.model.steps_per_execution, self._steps_left)
        self._steps_left -= steps
        for _ in range(steps if self._reads_data else 0):
            next(iterator, None)  # An epoch's last call may have fewer.
        return self._logs

    def batches_of_call(self, iterator: Any) -> Any:
        """Returns what the call reads of the data: fewer if it is short."""
        left = self.left_in_epoch
        if left is None or left >= self.model.steps_per_execution:
            return iterator
        return itertools.islice(iterator, left)

    def end_skipping(self) -> None:
        """Has `fit` take all further steps."""
        self._steps_left = None

    def whole_calls(self, num_steps: int) -> int:
        """Returns how many steps `fit` takes of endless data in place of some.

        It is more if the last call, of `steps_per_execution` steps, begins
        before them and ends after them.
        """
        in_a_call = self.model.steps_per_execution
        return -(-num_steps // in_a_call) * in_a_call

    @property
    def keeps_table(self) -> bool:
        """Whether each step leaves a table of its workers in the plan.

        Assigning puts it in force from the next step on, which is traced
        anew; the noise and its memory stay as they are. False at first.
        """
        return self._keeps_table

    @keeps_table.setter
    def keeps_table(self, value: bool) -> None:
        model = self.model
        value = _check.boolean("keeps_table", value)
        if value == self._keeps_table:
            return
        self._keeps_table = value
        if model._gnc_plan is not None:
            with tf.init_scope():
                model._gnc_plan.keep_table(value, model.distribute_strategy)
        if model.train_function is not None:
            model.make_train_function(force=True)

    @contextlib.contextmanager
    def own_plan(self, noise: bool = True) -> Iterator[None]:
        """Gives the model a plan of its own for a while, one step a call.

        Afterwards the model has its plan, rule and training function back,
        and `update` is None. With `noise=False` the plan has no rule.
        """
        model = self.model
        before = {name: getattr(model, name) for name in _CHANGED}
        try:
            model.steps_per_execution = 1
            model.train_function = None
            model._gnc_plan = None
            if not noise:
                model._set_noise(None)
            model.make_train_function()
            yield
        finally:
            self.update = None
            for name, value in before.items():
                setattr(model, name, value)


def control_of(model: keras.Model) -> StepControl:
    """Returns the control of a model's steps, the same each time."""
    control = getattr(model, "_gnc_control", None)
    if control is None or control.model is not model:
        control = model._gnc_control = StepControl(model)
    return control
