"""Backs a run up while it trains, and takes it up again after a kill."""

import math
import os
import signal
import sys
import threading
import time
from typing import Any

import keras

from tf_gnc import _check, _keras_compat
from tf_gnc.callbacks import backup_read, backup_write, callback_state, snapshot
from tf_gnc.callbacks.base import StepCallback
from tf_gnc.distribute import collectives
from tf_gnc.distribute.strategies import is_chief
from tf_gnc.launch.addresses import RESTART_EXIT_CODE
from tf_gnc.step.control import control_of
from tf_gnc.step.fit_arguments import Resumable
from tf_gnc.store import Generation, open_store


class BackupAndRestore(Resumable, StepCallback):
    """Backs a run up as it trains; started again, it goes on from there.

    Run the same script again after a kill, a crash or a preemption: `fit`
    continues at the next batch, and ends with the weights of a run that was
    never killed; bit for bit on the same number of replicas, under
    `tf.config.experimental.enable_op_determinism()`.

    A backup holds weights, optimizer (its rate too), every worker's gradient of
    the step before (the noise), random states, the noise rule in force, epoch,
    step, metrics' counts and what other callbacks remember: the best so far.
    Any number of replicas that divides the workers can go on from it. One that
    is damaged is named in a warning, and the one before is used.

    On SIGTERM, the signal of preemption, all processes save at the end of the
    same step and exit with code 75, "restart me", which `tf-gnc launch` and
    cluster managers can act on.

    Arrays given to `fit` go on with the right batch of the right shuffle. So
    does a data set that is made with `first_step=backup.first_step()`, as
    `tf_gnc.data.training_dataset` can be. Any other begins anew, and its
    batches before that step are read and thrown away. Other callbacks see the
    batches of the epoch before that step again, without their training.

    When a run has ended its last backup stays, so that a kill before
    `model.save` loses nothing; `fit` then has nothing left to do. For a new
    run choose another directory.

    Args:
        directory: Where the backups lie, on a local or shared file system, or
            in a bucket, `gs://bucket/run` or `s3://bucket/run`; all processes
            must see it.
        save_freq: `"epoch"`, or a number of steps.
        keep: How many backups to keep.
        min_seconds: Leaves a backup out that would come sooner than this after
            the one before; the last one of a run is always written.
        required: Whether the run ends with an error if a backup can't be
            written. If not, a line says so and the next one is tried. A bucket
            that can't be reached is tried again for three minutes first.
            Default: on a disk yes, in a bucket no.

    Raises:
        ValueError: If an argument is out of its range; in `fit`, if the
            backup is of another model, optimizer, number of workers or rule.
        OSError: If the system refuses to write; or a bucket to be read.

    Example:
        >>> import tempfile
        >>> backup = BackupAndRestore(tempfile.mkdtemp(), save_freq=100)
        >>> backup.first_step()
        0
    """

    def __init__(
        self,
        directory: str | os.PathLike,
        save_freq: str | int = "epoch",
        keep: int = 2,
        min_seconds: float = 0.0,
        required: bool | None = None,
    ) -> None:
        super().__init__()
        if save_freq != "epoch":
            save_freq = _check.integer("save_freq", save_freq, minimum=1)
        self.save_freq = save_freq
        self.min_seconds = _check.real("min_seconds", min_seconds, minimum=0)
        self._last_save = -math.inf
        self._store = open_store(directory, keep)
        if required is None:
            required = not self._store.in_bucket
        self.required = _check.boolean("required", required)
        self._writer = backup_write.Writer(self._store, self.required)
        self._generation: Generation | None = None
        self._looked = False
        self._callbacks: list[keras.callbacks.Callback] = []
        self._settled: callback_state.State = ({}, {})
        self._data_begin_there = False
        self._seed: int | None = None
        self._sigterm: Any = None
        self._terminated = False
        self._resume = 0  # Batches to pass over.
        self._epoch = 0
        self._saved_at: int | None = None

    def first_step(self) -> int:
        """Returns the step, from 0, with whose batch a data set must begin.

        Asking says that the data set given to `fit` begins there.
        """
        self._data_begin_there = True
        if self._look() is None:
            return 0
        return self._generation.contents["position"]["data_step"]

    def open(self, model: keras.Model, callbacks: list) -> None:
        """Checks the newest backup against the model; `fit` calls this."""
        self.set_model(model)
        self._callbacks = callbacks
        strategy = model.distribute_strategy
        generation = self._look()
        backup_read.check_common(self._store, generation, strategy)
        if generation is not None:
            snapshot.check_identity(generation, model)
        if is_chief(strategy):
            self._store.prepare()

    def data_position(self, first_step: int, seed: int) -> tuple[int, int]:
        """Returns where arrays go on and how they are shuffled."""
        self._data_begin_there, self._seed = True, seed
        if self._generation is not None:
            position = self._generation.contents["position"]
            first_step = position["data_step"]
            if position["seed"] is not None:
                self._seed = position["seed"]
        return first_step, self._seed

    def on_train_begin(self, logs: dict | None = None) -> None:
        """Restores the newest backup, if there is one."""
        self._terminated, self._last_save = False, time.monotonic()
        self._saved_at = None
        if threading.current_thread() is threading.main_thread():
            self._sigterm = signal.signal(signal.SIGTERM, self._on_sigterm)
        self._settled = callback_state.capture(self._callbacks)
        if self._generation is None:
            return
        backup_read.check_steps(self._generation, self._steps_of_epoch())
        position = self._restore()
        epoch, self._resume = position["epoch"], position["batch"]
        if position["stopped"] and not self._resume:
            epoch = max(epoch, self.params["epochs"])
        _keras_compat.set_initial_epoch(self.model, epoch)
        self._saved_at = position["data_step"]
        self._say("Goes on")

    def on_epoch_begin(self, epoch: int, logs: dict | None = None) -> None:
        """Goes on in the middle of an epoch, if it is the one."""
        self._epoch = epoch
        if self._saved_at is None:
            self._saved_at = self._data_step(epoch, 0)
        if self._resume:
            # For the logs of the batches that are passed over.
            snapshot.restore_metrics(self._generation, self.model)
            control_of(self.model).skip_steps(
                self._resume, read_data=not self._data_begin_there
            )

    def on_train_batch_begin(
        self, batch: int, logs: dict | None = None
    ) -> None:
        """Tells the other processes of a SIGTERM."""
        if self._terminated:
            self.model.step_plan.signals.request_stop(
                self.model.distribute_strategy
            )

    def on_train_batch_end(self, batch: int, logs: dict | None = None) -> None:
        """Saves if it is time, or if the run is to stop here."""
        if control_of(self.model).is_skipping:
            # What other callbacks make of such batches doesn't count.
            self.model.stop_training = False
            if self._done(batch) >= self._resume:
                self._resume = 0
                position = self._restore()
                snapshot.restore_metrics(self._generation, self.model)
                self.model.stop_training = position["stopped"]
            return
        plan, strategy = self.model.step_plan, self.model.distribute_strategy
        stop = plan.signals.stop_agreed(strategy)
        step = self._data_step(self._epoch, self._done(batch))
        due = self.save_freq != "epoch" and (
            step // self.save_freq > self._saved_at // self.save_freq
        )
        if stop or (due and self._is_time()):
            self._save(self._epoch, self._done(batch))
        if stop:
            self._exit()

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        """Saves an epoch's end."""
        last = epoch + 1 >= self.params["epochs"] or self.model.stop_training
        due = self.save_freq == "epoch"
        if last or (due and self._is_time()):
            self._save(epoch + 1, 0)

    def on_train_end(self, logs: dict | None = None) -> None:
        """Stops if a SIGTERM came after the last step; all has been saved."""
        strategy = self.model.distribute_strategy
        if any(collectives.gather(strategy, int(self._terminated))):
            self._exit()

    def close(self) -> None:
        """Leaves SIGTERM to whoever had it before; `fit` calls this."""
        if self._sigterm is not None:
            signal.signal(signal.SIGTERM, self._sigterm)
            self._sigterm = None
        _keras_compat.set_initial_epoch(self.model, None)
        self._generation, self._looked = None, False
        self._data_begin_there, self._resume = False, 0

    def _look(self) -> Generation | None:
        """Finds the newest sound backup, once for each `fit`."""
        if not self._looked:
            self._generation = backup_read.newest(self._store)
            self._looked = True
        return self._generation

    def _is_time(self) -> bool:
        """Tells whether the last backup is old enough; all processes agree."""
        if not self.min_seconds:
            return True
        old = time.monotonic() - self._last_save >= self.min_seconds
        return bool(collectives.from_chief(self.model.distribute_strategy, old))

    def _restore(self) -> dict[str, Any]:
        """Puts back model and callbacks, and returns where the run was."""
        snapshot.restore(self._generation, self.model)
        snapshot.restore_callbacks(
            self._generation, self._callbacks, self._settled
        )
        return self._generation.contents["position"]

    def _done(self, batch: int) -> int:
        """Returns how many steps of the epoch were taken, given the last."""
        steps = self.params.get("steps")
        if hasattr(steps, "before"):  # Its last call may be a short one.
            return min(batch + 1, int(steps))
        return batch + 1

    def _data_step(self, epoch: int, batch: int) -> int:
        steps = self.params.get("steps")
        if not steps:
            return self._steps_taken()
        if hasattr(steps, "before"):  # Epochs differ.
            return steps.before(epoch) + batch
        return epoch * control_of(self.model).whole_calls(steps) + batch

    def _steps_of_epoch(self) -> float | None:
        """Returns how many steps an epoch has; a mean if epochs differ."""
        steps = self.params.get("steps")
        return float(steps) if hasattr(steps, "before") else steps

    def _save(self, epoch: int, batch: int) -> None:
        """Writes a backup, all processes together."""
        self._saved_at = self._data_step(epoch, batch)
        position = {
            "epoch": epoch,
            "batch": batch,
            "data_step": self._saved_at,
            "steps": self._steps_of_epoch(),
            "stopped": bool(self.model.stop_training),
            "seed": self._seed,
        }
        self._writer.save(
            self.model,
            self._steps_taken(),
            lambda: snapshot.contents(
                self.model, self._callbacks, self._settled, position
            ),
        )
        self._last_save = time.monotonic()

    def _on_sigterm(self, number: int, frame: Any) -> None:
        self._terminated = True

    def _say(self, what: str) -> None:
        if is_chief(self.model.distribute_strategy):
            print(
                f"{what} at step {self._steps_taken()}; the backups are in "
                f"{self._store.directory}.",
                file=sys.stderr,
                flush=True,
            )

    def _exit(self) -> None:
        """Ends the process; the backup has been written."""
        self._say("Stopped by SIGTERM")
        sys.exit(RESTART_EXIT_CODE)
