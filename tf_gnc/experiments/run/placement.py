"""Where a run happens: its strategy, its directory, its backups.

None of this decides what comes out of a run. With several processes the first
one, the chief, owns the directory; each of the others writes the same files to
a temporary one that is thrown away, so that all of them do the same things.
"""

import dataclasses
import os
import tempfile
from collections.abc import Mapping
from typing import Any

import tensorflow as tf

from tf_gnc import _files
from tf_gnc.callbacks import BackupAndRestore
from tf_gnc.distribute import collectives
from tf_gnc.distribute.strategies import is_chief, num_processes
from tf_gnc.experiments.config import RunConfig
from tf_gnc.experiments.loggers.record import Record
from tf_gnc.experiments.loggers.run_log import LogTo
from tf_gnc.experiments.run.directory import RunFiles, new_run_dir
from tf_gnc.experiments.run.recording import Recording

# Has a row {"step": n} for each time that the run was taken up.
_RESUMED = "resumed.jsonl"


@dataclasses.dataclass(frozen=True)
class Placement:
    """Where a run is to happen, and how it is kept.

    Attributes:
        strategy: Holds the model.
        save_freq: When to back the run up: `"auto"` (as epochs end, but not
            twice within 30 seconds), `"epoch"`, a number of steps, or None for
            never.
        resume: Whether to take up a run in the same directory, if there is
            one.
        recording: What is measured and kept on the way; another one may be
            chosen when a run is taken up.
        backup_required: Whether the run ends if a backup can't be written;
            None for `BackupAndRestore`'s default.
        log_to: Where the numbers go beside the run's directory; the first
            process writes there alone.
    """

    strategy: tf.distribute.Strategy
    save_freq: str | int | None = None
    resume: bool = False
    recording: Recording = Recording()
    backup_required: bool | None = None
    log_to: LogTo = LogTo()


class Workspace:
    """What one run writes to. Making it only looks; `claim` is for good.

    `directory` is the run's, by default a new one in `runs`; `files` are where
    this process writes. `summary` is what came out, if the run has ended
    before. Raises as `RunFiles`, and a ValueError if the run to be taken up is
    another.
    """

    def __init__(
        self,
        config: RunConfig,
        run_dir: str | os.PathLike | None,
        placement: Placement,
    ) -> None:
        self.placement, self.strategy = placement, placement.strategy
        self.is_chief = is_chief(self.strategy)
        if run_dir is None:
            # When `tf-gnc launch` began, the same in all processes.
            stamp = os.environ.get("TF_GNC_LAUNCHED")
            if num_processes(self.strategy) > 1 and not stamp:
                raise ValueError(
                    "`run_dir` must be given (--run_dir) with several "
                    "processes, so that all of them use the same directory."
                )
            run_dir = new_run_dir(config.dataset, config.method, stamp)
        self.directory = _files.as_path(run_dir)
        placement.log_to.check(self.directory)
        if not self.is_chief:
            self._temporary = tempfile.TemporaryDirectory(prefix="tf-gnc-")
            run_dir = self._temporary.name  # Removed with this object.
        self.files = RunFiles(run_dir, placement.resume)
        self.summary: dict[str, Any] | None = None
        self._has_begun = False
        if placement.resume and self.is_chief:
            about = _files.read_json(self.files.path("config.json"))
            if about is not None:
                differences = config.differences(about["config"])
                self.files.refuse_other_settings(differences)

    def claim(self, about: Mapping[str, Any]) -> None:
        """Takes the directory; writes config.json, if it isn't there."""
        self.files.claim()
        path = self.files.path("config.json")
        self._has_begun = path.exists()
        if not self._has_begun:
            _files.write_json(path, about)
        summary = self.directory / "summary.json"
        if collectives.from_chief(self.strategy, summary.exists()):
            self.summary = _files.read_json(summary)

    def backups(self) -> list[BackupAndRestore]:
        """Returns the callback that backs the run up, if it is to be."""
        save_freq = self.placement.save_freq
        if save_freq is None:
            return []
        folder = self.directory / "backup"
        how = {"save_freq": save_freq}
        if save_freq == "auto":
            how = {"min_seconds": 30.0}
        required = self.placement.backup_required
        return [BackupAndRestore(folder, required=required, **how)]

    def records(self) -> list[Record]:
        """Returns the run in other places, if it is to be there."""
        if not self.is_chief or not self.placement.log_to.names:
            return []
        about = _files.read_json(self.files.path("config.json"))
        return self.placement.log_to.records(self.directory, about)

    def note_start(self, step: int) -> None:
        """Keeps the step at which a run that had begun before is taken up."""
        if self._has_begun:
            _files.append_row(self.files.path(_RESUMED), {"step": step})

    def resumed_steps(self) -> list[int]:
        """Returns the steps at which the run was taken up, the chief's in all.

        To be called after a step of training, by when the chief has written.
        """
        rows = _files.read_rows(self.directory / _RESUMED, "step")
        return [row["step"] for row in rows]

    def end(self) -> None:
        """Removes what a run needs no more once its results are there."""
        collectives.barrier(self.strategy)
        if self.is_chief:
            _files.remove_tree(self.files.path("backup"), ignore_errors=True)
            self.files.path(_RESUMED).unlink(missing_ok=True)
            if self.files.owner:
                self.files.owner.give_back()
