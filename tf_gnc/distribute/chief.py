"""Only one process writes files: what the others do instead.

Saving a model reads variables that live on all replicas, which takes all
processes, so all of them save; but only the chief, the first one, writes where
it was told to. The others write to a temporary directory and throw it away.
"""

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf

from tf_gnc.distribute.strategies import is_chief

# They write files of their own, and take no part in anything collective.
_WRITERS = (
    keras.callbacks.CSVLogger,
    keras.callbacks.ProgbarLogger,
    keras.callbacks.RemoteMonitor,
    keras.callbacks.TensorBoard,
)


@contextlib.contextmanager
def writable(
    path: str | os.PathLike, strategy: tf.distribute.Strategy
) -> Iterator[str | os.PathLike]:
    """Yields the path to which this process must write instead of `path`."""
    if is_chief(strategy):
        yield path
        return
    with tempfile.TemporaryDirectory(prefix="tf-gnc-") as folder:
        # Keras goes by the end of the name.
        yield os.path.join(folder, Path(os.fspath(path)).name)


def only_one_writes(
    arguments: dict[str, Any],
    callbacks: list[Any] | keras.callbacks.CallbackList,
    strategy: tf.distribute.Strategy,
) -> None:
    """Removes what would write or print, in all processes but the chief.

    Changes `arguments`, those of `fit` by name, and the callbacks among them.
    """
    in_list = isinstance(callbacks, keras.callbacks.CallbackList)
    callbacks = callbacks.callbacks if in_list else callbacks
    for callback in callbacks:
        if isinstance(callback, keras.callbacks.BackupAndRestore):
            raise ValueError(
                "`keras.callbacks.BackupAndRestore` writes the same files "
                "from all processes at once and doesn't know the noise. Use "
                "`tf_gnc.callbacks.BackupAndRestore(directory)`."
            )
    if is_chief(strategy):
        return
    arguments["verbose"] = 0
    callbacks[:] = [c for c in callbacks if not isinstance(c, _WRITERS)]
    if not in_list:
        arguments["callbacks"] = callbacks
