"""One run of `tf-gnc tune`, in a process of its own.

As `compare_run`, with part of the training examples in the place of the test
examples, and a log of the displacement. That a run diverged is a result: it
leaves diverged.json and ends with 0.
"""

import json
import sys
from collections.abc import Sequence
from pathlib import Path

import tensorflow as tf
from rich.console import Console

from tf_gnc.cli import progress, startup
from tf_gnc.data import hold_out
from tf_gnc.experiments import Placement, RunConfig, prepare, train
from tf_gnc.experiments.run.building import load_images
from tf_gnc.experiments.run.displacement import DisplacementLog

# Under the name of tf-gnc, which tells tf_gnc to leave the import of
# TensorFlow to the command line, that can keep it quiet.
_START = """
import sys
sys.argv[0] = "tf-gnc"
from tf_gnc.cli import startup
with startup.quiet_start():
    from tf_gnc.cli import tune_run
sys.exit(tune_run.main(sys.argv[1:]))
"""


def command_line(
    config: RunConfig, holdout: float, run_dir: Path, command: str
) -> list[str]:
    """Returns the words that start a process with a run.

    Args:
        config: What to run.
        holdout: Share of the training examples that stand for the test
            examples; 0 for those.
        run_dir: Where; a run that was cut short there is taken up.
        command: What asked for the run, kept in its config.json.
    """
    task = {
        "config": config.to_dict(),
        "holdout": holdout,
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
    try:
        strategy = startup.start_tensorflow(config.threads, strategy="auto")
        placement = Placement(strategy, save_freq="auto", resume=True)
        images = load_images(config)
        if task["holdout"]:
            images = hold_out(images, task["holdout"], config.seed)
        prepared = prepare(
            config, task["run_dir"], task["command"], placement, images
        )
        log = DisplacementLog(prepared.files)
        try:
            with progress.show_progress(Console()) as callback:
                train(prepared, [log, callback])
        except FloatingPointError as error:
            log.write()
            epoch = len(log.displacements) + 1  # The one that has none.
            content = {"epoch": epoch, "message": str(error)}
            prepared.files.write_json("diverged.json", content)
            prepared.place.end()
    except (ValueError, OSError, tf.errors.ResourceExhaustedError) as error:
        print(" ".join(str(error).split()), file=sys.stderr)
        return 1
    return 0
