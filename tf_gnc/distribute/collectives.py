"""Messages between the processes of a run, outside the training step.

Every function here must be called by all processes, in the same order: each
waits for the others. With a single process all of them return at once.
"""

import atexit
import functools
import signal
import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from tf_gnc import _keras_compat

_LINGER_SECONDS = 2.0


def gather(strategy: tf.distribute.Strategy, number: int) -> list[int]:
    """Returns each process's 64-bit number, in the order of the processes."""
    return [int(n) for n in gather_rows(strategy, np.int64(number))]


def gather_rows(strategy: tf.distribute.Strategy, row: Any) -> np.ndarray:
    """Returns each process's array, of one shape, as the rows of another."""
    rows = np.asarray(row)[np.newaxis]
    if not _keras_compat.in_several_processes(strategy):
        return rows
    local = len(strategy.extended.worker_devices)
    return _gather_function(strategy)(tf.constant(rows)).numpy()[::local]


def from_chief(strategy: tf.distribute.Strategy, number: int) -> int:
    """Returns the first process's number."""
    return gather(strategy, number)[0]


def barrier(strategy: tf.distribute.Strategy, good: bool = True) -> list[int]:
    """Waits until all processes have come here; returns those not `good`."""
    answers = gather(strategy, int(good))
    return [process for process, fine in enumerate(answers) if not fine]


@functools.cache  # once is enough
def linger_at_exit() -> None:
    """Keeps this process alive for a moment after its last line.

    What a collective sends is fetched by the others. A process that ends as
    soon as it has fetched its own share takes away what another is about to
    fetch, which then fails with "Socket closed" at the very end of its run.
    """
    atexit.register(time.sleep, _LINGER_SECONDS)


def take_sigterm_back() -> None:
    """Gives SIGTERM back to Python's handler, which mostly ends the process.

    TensorFlow's runtime for several processes takes the signal for itself and
    then does nothing with it, so that the process could not be ended by it.
    """
    if threading.current_thread() is threading.main_thread():
        handler = signal.getsignal(signal.SIGTERM)
        if handler is not None:
            signal.signal(signal.SIGTERM, handler)


@functools.cache  # Each new function would be traced anew.
def _gather_function(strategy: tf.distribute.Strategy) -> Callable:
    @tf.function
    def gather_on_all(rows: tf.Tensor) -> tf.Tensor:
        mine = strategy.run(lambda: tf.identity(rows))
        return strategy.gather(mine, axis=0)

    return gather_on_all
