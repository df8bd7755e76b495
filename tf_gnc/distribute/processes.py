"""What the processes of a run tell each other outside the training step.

Every function here must be called by all processes, in the same order: each
waits for the others. With a single process all of them return at once.

Floor 2: may import from floors 0 and 1 and from this floor.
"""

import tensorflow as tf

from tf_gnc import _keras_compat


def from_chief(strategy: tf.distribute.Strategy, number: int) -> int:
    """Returns the number that the first process has passed.

    Args:
        strategy: The strategy of the run.
        number: Below 2**63 in size.
    """
    return gather(strategy, number)[0]


def barrier(strategy: tf.distribute.Strategy) -> None:
    """Waits until all processes have come to this call."""
    gather(strategy, 0)


def gather(strategy: tf.distribute.Strategy, number: int) -> list[int]:
    """Returns what each process has passed, in the order of the processes.

    Args:
        strategy: The strategy of the run.
        number: Below 2**63 in size.
    """
    if not _keras_compat.in_several_processes(strategy):
        return [number]

    @tf.function
    def share() -> tf.Tensor:
        mine = strategy.run(lambda: tf.constant([number], tf.int64))
        return strategy.gather(mine, axis=0)

    local = len(strategy.extended.worker_devices)
    return [int(n) for n in share().numpy()[::local]]
