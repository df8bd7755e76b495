"""How all processes of a run write a backup together.

Knows neither when to save nor what is saved.
"""

import warnings
from collections.abc import Callable, Mapping
from typing import Any

import keras
import numpy as np

from tf_gnc.callbacks import snapshot
from tf_gnc.distribute import collectives
from tf_gnc.distribute.strategies import is_chief, num_processes
from tf_gnc.store import Store

Contents = tuple[Mapping[str, Any], Mapping[str, np.ndarray]]


def save(
    store: Store,
    model: keras.Model,
    step: int,
    make_contents: Callable[[], Contents],
) -> None:
    """Writes a backup; all processes must call it.

    Warns of an old backup that can't be removed; it is tried again next time.

    Args:
        store: Where to.
        model: In training.
        step: Steps taken.
        make_contents: Returns what `snapshot.contents` does.

    Raises:
        RuntimeError: If another process couldn't do its part.
        OSError: If the system refuses to write.
    """
    strategy = model.distribute_strategy
    chief = is_chief(strategy)
    kept, arrays, draft = {}, {}, None

    def begin() -> None:
        nonlocal kept, arrays
        kept, arrays = make_contents()
        if chief:
            store.begin(step)

    def write() -> None:
        nonlocal draft
        draft = store.open_draft(step)
        snapshot.write(draft, model, arrays)

    def seal() -> None:
        if chief:
            _, problems = draft.seal(num_processes(strategy), kept)
            for problem in problems:
                warnings.warn(f"An old backup stays: {problem}", stacklevel=5)

    for act in (begin, write, seal):
        error = None
        try:
            act()
        except Exception as caught:
            # First the others must hear of it, or they wait for ever.
            error = caught
        failed = collectives.barrier(strategy, error is None)
        if error is not None:
            raise error
        if failed:
            raise RuntimeError(
                f"The backup of step {step} failed in process {failed[0]}, "
                "which says why. The one before is intact."
            )
