"""How all processes of a run write a backup together."""

import contextlib
import sys
import warnings
from collections.abc import Callable, Iterator

import keras

from tf_gnc import _files
from tf_gnc.callbacks import callback_state, snapshot
from tf_gnc.distribute import collectives
from tf_gnc.distribute.strategies import is_chief, num_processes
from tf_gnc.store import Store

# What a process comes to; the worst of all of them counts.
_DONE, _REFUSED, _FAILED = range(3)


class Writer:
    """Writes a run's backups, all processes together.

    If a backup isn't `required`, a system that refuses to write it is told of
    in a line.
    """

    def __init__(self, store: Store, required: bool) -> None:
        self.store, self.required = store, required
        self._refused = False  # The last time.

    def save(
        self,
        model: keras.Model,
        step: int,
        make_contents: Callable[[], callback_state.State],
    ) -> None:
        """Writes a backup; all processes must call it.

        Warns of an old backup that can't be removed; it is tried again next
        time. `make_contents` returns what `snapshot.contents` does.
        """
        # Who has waited in vain doesn't wait at each of the next ones too.
        hurry = self._refused and not self.required
        with _files.patience(0) if hurry else contextlib.nullcontext():
            self._refused = self._save(model, step, make_contents)

    def _save(
        self,
        model: keras.Model,
        step: int,
        make_contents: Callable[[], callback_state.State],
    ) -> bool:
        """Returns whether some process was refused."""
        strategy = model.distribute_strategy
        part = self._parts(model, step, make_contents)
        for _ in range(3):
            error, grade = None, _DONE
            try:
                next(part)
            except Exception as caught:
                # First the others must hear of it, or they wait for ever.
                error = caught
                refused = isinstance(error, OSError) and not self.required
                grade = _REFUSED if refused else _FAILED
            grades = collectives.gather(strategy, grade)
            if max(grades) == _REFUSED:
                _say_refused(error, step)
                return True
            if error is not None:
                raise error
            if max(grades) == _FAILED:
                raise RuntimeError(
                    f"The backup of step {step} failed in process "
                    f"{grades.index(_FAILED)}, which says why. The one before "
                    "is intact."
                )
        return False

    def _parts(
        self,
        model: keras.Model,
        step: int,
        make_contents: Callable[[], callback_state.State],
    ) -> Iterator[None]:
        """Does what may be done before all have come as far."""
        strategy = model.distribute_strategy
        chief = is_chief(strategy)
        kept, arrays = make_contents()
        if chief:
            self.store.begin(step)
        yield
        draft = self.store.open_draft(step)
        snapshot.write(draft, model, arrays)
        yield
        if chief:
            _, problems = draft.seal(num_processes(strategy), kept)
            for problem in problems:
                warnings.warn(f"An old backup stays: {problem}", stacklevel=6)
        yield


def _say_refused(error: Exception | None, step: int) -> None:
    """Says why there is no backup, in the processes that know."""
    if error is not None:
        print(
            f"Without a backup of step {step}, training goes on: "
            f"{error.strerror or error}.",
            file=sys.stderr,
            flush=True,
        )
