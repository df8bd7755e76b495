"""Threads for workers that run side by side on a CPU."""

import numbers
import os

import tensorflow as tf


def num_cores() -> int:
    """Returns the number of cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def set_threads(num_threads: int | None = None) -> None:
    """Sets TensorFlow's threads: one worker on each core. Call it first.

    Workers are independent until their gradients are averaged. On a CPU it is
    faster to run one worker on each core (inter-op threads = cores, intra-op
    threads = 1), as this call arranges, than to spread each worker's
    operations over all cores, TensorFlow's default. See docs/speed.md
    for what `benchmarks/step_cost.py` measured.

    It changes nothing on a GPU or TPU except for what runs on the host.

    Args:
        num_threads: Number of cores to use; None for all that the process may
            use.

    Raises:
        ValueError: If `num_threads` is not a positive integer.
        RuntimeError: If TensorFlow has started already, with other settings.
            It reads the numbers of threads once, when the first operation
            runs or the first logical device is listed.

    Example:
        ```python
        import tf_gnc

        tf_gnc.set_threads()  # first, before data sets, models or strategies
        ```
    """
    if num_threads is None:
        num_threads = num_cores()
    if (
        not isinstance(num_threads, numbers.Integral)
        or isinstance(num_threads, bool)
        or num_threads < 1
    ):
        raise ValueError(
            "`num_threads` must be a positive whole number or None, got "
            f"num_threads={num_threads!r}."
        )
    threading = tf.config.threading
    try:
        threading.set_inter_op_parallelism_threads(int(num_threads))
        threading.set_intra_op_parallelism_threads(1)
    except RuntimeError as error:
        raise RuntimeError(
            "`tf_gnc.set_threads` came too late: TensorFlow has started with "
            f"{threading.get_inter_op_parallelism_threads()} inter-op and "
            f"{threading.get_intra_op_parallelism_threads()} intra-op threads "
            "(0 means its own choice), and can't change them. Call it "
            "first in your script, before any tensor, data set, model or "
            "strategy is made."
        ) from error
