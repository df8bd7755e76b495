r"""Measures a run while it trains, into a file, the logs and TensorBoard."""

import math
import os
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import tensorflow as tf

from tf_gnc import _check, _files
from tf_gnc.callbacks import measures as named
from tf_gnc.callbacks import probe_rows
from tf_gnc.callbacks.base import StepCallback
from tf_gnc.distribute.strategies import is_chief
from tf_gnc.step.control import control_of

# What `tf.summary.scalar` says of a number; it needs TensorBoard installed,
# which may be on another machine.
_SCALAR = tf.compat.v1.SummaryMetadata(
    plugin_data={"plugin_name": "scalars"}, data_class="DATA_CLASS_SCALAR"
)


class Probe(StepCallback):
    r"""Measures noise, losses and gradients as a model trains.

    Cheap measures are made inside the compiled step, of the step just taken,
    at a fraction of a millisecond and three norms for each worker:

    - `noise_norm`: mean over the workers of :math:`\|\omega_i\|`, the noise
      before any scaling: Eq. 4's for GNC, Eq. 5's :math:`u_i / \|u_i\|`
      filter by filter for RNC, 0 without a rule.
    - `relative_displacement`: mean of :math:`\|x_i - x\| / \|x\|`, with x the
      clean weights before the update.
    - `layer_displacement`: the same of each variable by itself, in the rows
      alone.
    - `gradient_cosine`: mean of :math:`\cos(g_i, \tilde g)`, each worker's
      counted by its :math:`\|g_i\|`: 1 if all are equal, :math:`1 / \sqrt{M}`
      if they are orthogonal and equally long, 0 if they cancel out.
    - `loss_spread`: min, max, standard deviation and mean of the workers'
      losses :math:`f(d_i; x_i)`.
    - `gradient_noise_scale`: McCandlish et al. (2018), arXiv:1812.06162, A.1,
      in examples, from the workers' gradients (b examples each) and their mean
      (M b). None where noise drowns the gradient, so that the estimate of
      :math:`|G|^2` isn't above 0. With alpha > 0 the gradients are taken at
      displaced weights and their spread is that of the displacements too. An
      epoch's number is the ratio of the mean estimates, as the source advises.

    Full measures are made between steps, of the weights and noise that the
    coming step has, by the function of that name in `tf_gnc.analysis`:
    `similarity`, `spectrum`, `sharpness`, `smoothness`, `landscape`. They cost
    as much as many steps; training goes on as if they had not been made.

    All at the steps `every`, `2 * every`, ... of the optimizer's count. With
    `steps_per_execution` above 1, at the end of the call in which such a step
    fell; the cheap measures are then those of the call's last step. A step
    that `mixed_float16` skips isn't counted; one that isn't finite has None
    for its cheap measures and `"valid": false`.

    Rows: a line of `directory/probe.jsonl` each, `{"step": n, "epoch": e,
    measure: value, ...}`, the epoch counted from 1. A run that
    `BackupAndRestore` takes up again has each row once. A file of another run
    is renamed to `probe-1.jsonl`, never overwritten.

    Logs: each number's mean over the epoch as `probe_<name>`, parts as
    `probe_loss_spread_std`; numbers for each layer stand in the rows alone.
    NaN if there was none in this epoch. The logs of a step that was measured
    have its numbers by the same names. Callbacks that read the logs
    (`CSVLogger`, `EarlyStopping`) must come after this one in the list.

    In several processes all measure together and the first one writes.

    Args:
        measures: Names, or a dict from names to keyword arguments of the
            functions in `tf_gnc.analysis`: `{"sharpness": {"eigenvalues": 2}}`.
        every: Steps from one measurement to the next; or a dict of measures,
            each with its own, 1 for those not in it.
        batch: A global batch, `(x, y)` or `(x, y, sample_weight)`, for full
            measures; in several processes the same whole batch in each. Or a
            function that takes the number of steps so far and returns the
            batch of the coming one, as the paper measures (A.6). (A step that
            loss scaling has skipped isn't counted.)
        dataset: The training set in batches, for `similarity`.
        directory: Where the rows go, `gs://bucket/run` and `s3://bucket/run`
            too; None for logs alone. To a bucket they are sent every few
            seconds and as an epoch ends.
        log_dir: Where TensorBoard reads the same numbers by step, or None.
            No other probe's, since it reads the file of one writer.
        within: Ranges of steps outside of which nothing is measured, such as
            `[range(50, 60)]`; None for no limit. Or a dict of measures, each
            with its own ranges; those not in it have no limit.

    Raises:
        ValueError: If a measure is unknown or lacks an argument, or if `every`
            is below 1; in `fit`, if the model can't be measured.
        NotADirectoryError: In `fit`, if `directory` is a file.
        OSError: In `fit`, if the system refuses to write.

    Example:
        >>> probe = Probe(["noise_norm", "loss_spread"], every=10)
        >>> list(probe.measures)
        ['noise_norm', 'loss_spread']
    """

    backed_up = ("_seen", "_sums", "_unsent")  # see callback_state

    def __init__(
        self,
        measures: str | Iterable[str] | Mapping[str, Mapping[str, Any]],
        every: int | Mapping[str, int] = 1,
        batch: Any = None,
        dataset: Any = None,
        directory: str | os.PathLike | None = None,
        log_dir: str | os.PathLike | None = None,
        within: Sequence[range] | Mapping[str, Sequence[range]] | None = None,
    ) -> None:
        super().__init__()
        self.measures = named.arguments(measures, batch, dataset)
        self.every = {
            name: _check.integer("every", steps, minimum=1)
            for name, steps in self._by_measure("every", every, 1).items()
        }
        self.within = self._by_measure("within", within, None)
        self.directory, self.log_dir = directory, log_dir
        self._cheap = [name for name in self.measures if name in named.CHEAP]
        self._rows: _files.AnyPath | None = None
        # What an object in a bucket lacks of them, and when it was last sent.
        self._unsent: list[Mapping[str, Any]] = []
        self._sent_at = -math.inf
        self._writer: tf.summary.SummaryWriter | None = None
        self._turned_on = self._took_up = False
        self._before = self._epoch = 0
        self._seen: int | None = None  # The optimizer's count.
        # By name, a sum and what to divide it by.
        self._sums: dict[str, list[float]] = {}

    def on_train_begin(self, logs: dict | None = None) -> None:
        """Has the step make its measures, if any are wanted."""
        if "gradient_noise_scale" in self._cheap and self.model.num_workers < 2:
            raise ValueError(
                "The measure 'gradient_noise_scale' compares workers and "
                "needs 2 or more, got num_workers=1. Compile the model with "
                "`num_workers=`, or leave the measure out."
            )
        if is_chief(self.model.distribute_strategy):
            if self.directory is not None:
                self._rows = probe_rows.rows_file(self.directory)
            if self.log_dir is not None:
                path = os.fspath(self.log_dir)
                self._writer = tf.summary.create_file_writer(path)
        self._took_up = False
        control = control_of(self.model)
        if self._cheap and not control.keeps_table:
            control.keeps_table = self._turned_on = True

    def on_epoch_begin(self, epoch: int, logs: dict | None = None) -> None:
        """Begins the epoch's means."""
        self._epoch = epoch
        self._sums = {name: [0.0, 0.0] for name in self._sums}

    def on_train_batch_begin(
        self, batch: int, logs: dict | None = None
    ) -> None:
        """Notes the count, and at first looks at the rows of earlier runs."""
        self._before = self._steps_taken()
        # Here, because a backup has been restored and no probe has written.
        if not self._took_up and self._rows is not None:
            same_run = self._seen == self._before
            probe_rows.take_up(self._rows, self._before, same_run)
        self._took_up = True

    def on_train_batch_end(self, batch: int, logs: dict | None = None) -> None:
        """Measures if it is time."""
        if control_of(self.model).is_skipping:
            return
        step = self._seen = self._steps_taken()
        due = {n: a for n, a in self.measures.items() if self._is_due(n, step)}
        if not due:
            return
        row = {"step": step, "epoch": self._epoch + 1}
        if cheap := [name for name in self._cheap if name in due]:
            row |= self._measure_step(cheap)
        row |= named.take_full(self.model, due, step)
        numbers: dict[str, float] = {}
        for name in due:
            numbers |= named.scalars(name, row[name])
        for name, number in numbers.items():
            if name != "gradient_noise_scale":
                self._add(name, number, 1)
            if logs is not None:  # For the callbacks after this one.
                logs[f"probe_{name}"] = number
        if self._rows is not None:
            self._write(row)
        if self._writer is not None:
            with self._writer.as_default(step=step):
                for name, number in numbers.items():
                    tf.summary.write(f"probe_{name}", number, metadata=_SCALAR)

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        """Adds the epoch's means to its logs."""
        self._send()
        if logs is not None:
            for name, (total, weight) in self._sums.items():
                mean = total / weight if weight > 0 else math.nan
                logs[f"probe_{name}"] = mean
        if self._writer is not None:
            self._writer.flush()

    def on_train_end(self, logs: dict | None = None) -> None:
        """Leaves the step as it was."""
        self._send()
        if self._writer is not None:
            self._writer.close()
            self._writer = None
        if self._turned_on:
            control_of(self.model).keeps_table = self._turned_on = False

    def _by_measure(self, name: str, value: Any, default: Any) -> dict:
        """Returns what an argument is for each measure."""
        if not isinstance(value, Mapping):
            return dict.fromkeys(self.measures, value)
        for measure in value:
            _check.choice(name, measure, [*self.measures])
        return {**dict.fromkeys(self.measures, default), **value}

    def _is_due(self, name: str, step: int) -> bool:
        every, within = self.every[name], self.within[name]
        if step // every == self._before // every:
            return False
        return within is None or any(step in steps for steps in within)

    def _measure_step(self, cheap: Sequence[str]) -> dict[str, Any]:
        """Returns these cheap measures of the last step."""
        written = self.model.step_plan.table
        table = written and written.read(self.model.distribute_strategy)
        if table is None:
            raise ValueError(
                "The cheap measures are made by `GNCTrainStep.train_step`, "
                "got a model whose steps leave none: it has a `train_step` of "
                "its own, or no trainable weights. Leave out "
                f"{', '.join(self._cheap)}."
            )
        if not table.valid:
            return {"valid": False, **dict.fromkeys(cheap)}
        if "gradient_noise_scale" in cheap:
            gradient, noise = named.gradient_and_noise(table)
            if math.isfinite(gradient) and math.isfinite(noise):
                self._add("gradient_noise_scale", noise, gradient)
        return {name: named.as_json(named.CHEAP[name](table)) for name in cheap}

    def _write(self, row: Mapping[str, Any]) -> None:
        if not _files.is_bucket(self._rows):
            _files.append_row(self._rows, row)
            return
        self._unsent.append(row)
        waited = time.monotonic() - self._sent_at
        if waited >= probe_rows.SECONDS_BETWEEN_UPLOADS:
            self._send()

    def _send(self) -> None:
        if self._unsent and self._rows is not None:
            self._unsent = probe_rows.send(self._rows, self._unsent)
            self._sent_at = time.monotonic()

    def _add(self, name: str, number: float, weight: float) -> None:
        total = self._sums.setdefault(name, [0.0, 0.0])
        total[0] += number
        total[1] += weight
