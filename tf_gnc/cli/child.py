"""One run of `tf-gnc compare`, in a process of its own.

Takes the configuration itself, as JSON, so that whatever a plan holds can be
run. That a run diverged is a result: it leaves diverged.json and ends with 0.
"""

import json
import sys
from collections.abc import Sequence
from pathlib import Path

import keras
import tensorflow as tf
from rich.console import Console

from tf_gnc.cli import progress, startup
from tf_gnc.experiments import Placement, RunConfig, prepare, train

# Under the name of tf-gnc, which tells tf_gnc to leave the import of
# TensorFlow to the command line, that can keep it quiet.
_START = """
import sys
sys.argv[0] = "tf-gnc"
from tf_gnc.cli import startup
with startup.quiet_start():
    from tf_gnc.cli import child
sys.exit(child.main(sys.argv[1:]))
"""


def command_line(config: RunConfig, run_dir: Path, command: str) -> list[str]:
    """Returns the words that start a process with a run.

    Args:
        config: What to run.
        run_dir: Where; a run that was cut short there is taken up.
        command: What asked for the run, kept in its config.json.
    """
    task = {
        "config": config.to_dict(),
        "run_dir": str(run_dir),
        "command": command,
    }
    # -P: the current directory is no place to import from.
    return [sys.executable, "-P", "-c", _START, json.dumps(task)]


def main(arguments: Sequence[str]) -> int:
    """Runs it and returns the exit code.

    Args:
        arguments: One word of JSON, as `command_line` makes it.
    """
    task = json.loads(arguments[0])
    config = RunConfig.from_dict(task["config"])
    epoch = _Epoch()
    try:
        strategy = startup.start_tensorflow(config.threads, strategy="auto")
        placement = Placement(strategy, save_freq="auto", resume=True)
        prepared = prepare(config, task["run_dir"], task["command"], placement)
        try:
            with progress.show_progress(Console()) as callback:
                train(prepared, [epoch, callback])
        except FloatingPointError as error:
            content = {"epoch": epoch.number, "message": str(error)}
            prepared.files.write_json("diverged.json", content)
            prepared.place.end()
    except (ValueError, OSError, tf.errors.ResourceExhaustedError) as error:
        print(" ".join(str(error).split()), file=sys.stderr)
        return 1
    return 0


class _Epoch(keras.callbacks.Callback):
    """Knows which epoch it is, counted from 1."""

    backed_up = ()  # see tf_gnc.callbacks.callback_state
    number = 1

    def on_epoch_begin(self, epoch: int, logs: dict | None = None) -> None:
        """Keeps the number."""
        self.number = epoch + 1
