"""Which backup a run goes on from, and whether it can."""

import warnings
import zlib

import tensorflow as tf

from tf_gnc.distribute import collectives
from tf_gnc.store import Generation, Store


def newest(store: Store) -> Generation | None:
    """Returns the newest sound backup; warns of those that aren't."""
    generation, problems = store.latest()
    for problem in problems:
        warnings.warn(f"A backup can't be used: {problem}", stacklevel=5)
    spoilt = [p for p in problems if ".draft-" not in p]
    if generation is None and spoilt:
        raise ValueError(
            "There are backups, but none that can be used, got: "
            f"{' '.join(spoilt)} To begin anew, choose another directory or "
            "move them out of the way."
        )
    return generation


def check_common(
    store: Store,
    generation: Generation | None,
    strategy: tf.distribute.Strategy,
) -> None:
    """Checks that all processes, which must call it, found the same backup."""
    name = "" if generation is None else generation.path.name
    digests = collectives.gather(strategy, zlib.crc32(name.encode()))
    if len(set(digests)) > 1:
        raise ValueError(
            "All processes must see the same backups, got the newest in "
            f"'{store.directory}' as {name or 'none'!r} in this process and "
            "another one elsewhere. Use a directory that they share."
        )


def check_steps(generation: Generation, steps: int | None) -> None:
    """Checks that an epoch is as long as it was; None if unknown."""
    before = generation.contents["position"]["steps"]
    if before != steps:
        raise ValueError(
            "A run must go on with epochs of the same length, got "
            f"{steps} steps an epoch with a backup of {before}, "
            f"{generation.path}. Use the same batch size and data, or choose "
            "another directory."
        )
