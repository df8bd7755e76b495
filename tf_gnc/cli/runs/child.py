"""One of many runs, in a process of its own.

Takes a task, with the configuration itself, as JSON, so that whatever a
comparison or a search holds can be run.
"""

import sys
from collections.abc import Sequence

import tensorflow as tf

from tf_gnc.cli import progress
from tf_gnc.cli.tensorflow_start import start_tensorflow
from tf_gnc.experiments.run.task import RunTask, do_task

_START = """
import sys
from tf_gnc.cli.tensorflow_start import quiet_start
with quiet_start():
    from tf_gnc.cli.runs import child
sys.exit(child.main(sys.argv[1:]))
"""


def command_line(task: RunTask) -> list[str]:
    """Returns the words that start a process with a run."""
    # -P: nothing is imported from the current directory.
    return [sys.executable, "-P", "-c", _START, task.to_json()]


def main(arguments: Sequence[str]) -> int:
    """Runs the task that `command_line` has written; returns the exit code."""
    task = RunTask.from_json(arguments[0])
    try:
        strategy = start_tensorflow(task.config.threads, strategy="auto")
        with progress.show_progress(progress.Console()) as callback:
            do_task(task, strategy, [callback])
    except (ValueError, OSError, tf.errors.ResourceExhaustedError) as error:
        print(" ".join(str(error).split()), file=sys.stderr)
        return 1
    return 0
