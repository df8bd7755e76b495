"""What callbacks and checks of ours may do with the steps of a model.

It is kept apart from the model's own methods, which are the user's: callbacks
pass over steps and read their tables, the doctor takes steps without updates.
"""

import contextlib
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
    """

    def __init__(self, model: keras.Model) -> None:
        self.model = model
        self.update: Callable[[list[tf.Tensor | None], Any], None] | None = None
        self._keeps_table = False
        self._calls_left: int | None = None
        self._reads = 0
        self._logs: dict[str, Any] = {}

    def skip_steps(self, num_steps: int, read_data: bool) -> None:
        """Has `fit` pass over its next steps; for a resumed run.

        With `read_data` their batches are read and thrown away.

        Raises:
            ValueError: If a call would be passed over in part.
        """
        in_a_call = self.model.steps_per_execution
        calls, rest = divmod(num_steps, in_a_call)
        if rest:
            raise ValueError(
                "A resumed run must begin with a whole call, got "
                f"{num_steps} steps with steps_per_execution={in_a_call}. "
                "Use the `steps_per_execution` that the backup was made with."
            )
        self._calls_left = calls
        self._reads = in_a_call if read_data else 0
        self._logs = self.model.get_metrics_result()

    @property
    def is_skipping(self) -> bool:
        """Whether the call that `fit` has just made was passed over."""
        return self._calls_left is not None

    def pass_over(self, iterator: Any) -> dict[str, Any] | None:
        """Stands for a call of the training function, or returns None."""
        if not self._calls_left:
            self.end_skipping()
            return None
        self._calls_left -= 1
        for _ in range(self._reads):
            next(iterator, None)  # An epoch's last call may have fewer.
        return self._logs

    def end_skipping(self) -> None:
        """Has `fit` take all further steps."""
        self._calls_left = None

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
