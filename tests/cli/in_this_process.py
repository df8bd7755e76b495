"""Runs of `tf-gnc compare` and its kin without processes of their own."""

import tensorflow as tf

from tf_gnc.cli.runs import run_many
from tf_gnc.experiments.run.task import RunTask, do_task


class InThisProcess:
    """Stands for the pool of processes; otherwise the runs are real."""

    stopped_by = None

    def __init__(self, command, jobs, cores, log_dir, listener):
        self._command, self._cores = command, len(cores)

    def run(self, names):
        for name in names:
            words = self._command(name, self._cores)
            do_task(RunTask.from_json(words[-1]), tf.distribute.get_strategy())


def use(monkeypatch):
    """Has commands run everything here, until the test is over."""
    monkeypatch.setattr(run_many, "Pool", InThisProcess)
    # It couldn't be undone for the tests that follow.
    monkeypatch.setattr(
        tf.config.experimental, "enable_op_determinism", lambda: None
    )
