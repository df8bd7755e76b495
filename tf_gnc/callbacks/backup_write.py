"""How all processes of a run write a backup together."""

import warnings
from collections.abc import Callable, Iterator

import keras

from tf_gnc.callbacks import callback_state, snapshot
from tf_gnc.distribute import collectives
from tf_gnc.distribute.strategies import is_chief, num_processes
from tf_gnc.store import Store


def save(
    store: Store,
    model: keras.Model,
    step: int,
    make_contents: Callable[[], callback_state.State],
) -> None:
    """Writes a backup; all processes must call it.

    Warns of an old backup that can't be removed; it is tried again next time.
    `make_contents` returns what `snapshot.contents` does.
    """
    strategy = model.distribute_strategy
    chief = is_chief(strategy)

    def parts() -> Iterator[None]:
        kept, arrays = make_contents()
        if chief:
            store.begin(step)
        yield
        draft = store.open_draft(step)
        snapshot.write(draft, model, arrays)
        yield
        if chief:
            _, problems = draft.seal(num_processes(strategy), kept)
            for problem in problems:
                warnings.warn(f"An old backup stays: {problem}", stacklevel=5)
        yield

    part = parts()
    for _ in range(3):
        error = None
        try:
            next(part)
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
