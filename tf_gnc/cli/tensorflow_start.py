"""Starts TensorFlow quietly, with the threads that the workers want.

TensorFlow's C++ side writes about CPU features and absent GPUs straight to
the process's standard error, some of it before any log level counts.

Imports TensorFlow late: its log level must be set before it is loaded.
"""

import contextlib
import os
import sys
import tempfile
from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import tensorflow as tf


@contextlib.contextmanager
def quiet_start(verbose: bool = False) -> Iterator[None]:
    """Holds back what is written to standard error in the meantime.

    If an exception leaves the block, everything is shown; with `verbose`
    nothing is held back.
    """
    if verbose:
        yield
        return
    # 2 hides information and warnings, not errors.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    sys.stderr.flush()
    with tempfile.TemporaryFile() as held, contextlib.ExitStack() as stack:
        try:
            original = os.dup(2)
        except OSError:  # There is no standard error to be quiet on.
            yield
            return
        stack.callback(os.close, original)
        os.dup2(held.fileno(), 2)
        try:
            yield
        except BaseException:
            held.seek(0)
            os.write(original, held.read())
            raise
        finally:
            sys.stderr.flush()
            os.dup2(original, 2)


def start_tensorflow(
    threads: int | None,
    verbose: bool = False,
    strategy: str = "none",
    logical_devices: int | None = None,
) -> "tf.distribute.Strategy":
    """Sets the threads, starts TensorFlow and returns the strategy.

    In a process where TensorFlow runs already (a notebook, a test) it keeps
    the threads it has; that is said only if somebody asked for a number.

    Raises:
        ValueError: If there can be no such strategy here.
    """
    import tensorflow as tf
    from absl import logging

    from tf_gnc.distribute import make_strategy
    from tf_gnc.threads import set_threads

    if not verbose:
        logging.set_verbosity(logging.ERROR)
    try:
        set_threads(threads)
    except RuntimeError:
        if threads is not None:
            print(
                f"tf-gnc: --threads={threads} comes too late: TensorFlow "
                "runs in this process already and keeps its threads.",
                file=sys.stderr,
            )
    with quiet_start(verbose):
        # Looks for GPUs, noisily, and starts nothing: a strategy that can't be
        # made then has nothing to show but its error.
        tf.config.list_physical_devices()
    with quiet_start(verbose):
        made = make_strategy(strategy, logical_devices=logical_devices)
        tf.config.list_logical_devices()
    return made
