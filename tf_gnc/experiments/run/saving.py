"""Models that a run keeps: as it goes, and at its end."""

import warnings

import keras

from tf_gnc import _files
from tf_gnc.distribute import chief
from tf_gnc.distribute.strategies import is_chief
from tf_gnc.layers.fuse import has_own_call
from tf_gnc.step.train_step import GNCTrainStep

CHECKPOINTS = "checkpoints"
"""The folder of a run's directory that holds them."""


def save_model(model: keras.Model, path: _files.AnyPath) -> None:
    """Saves a model, the first process whole or not at all."""
    if is_chief(model.distribute_strategy):
        _files.write(path, model.save)
    else:  # All take part; what they write is thrown away.
        model.save(path)


def save_result(model: GNCTrainStep, path: _files.AnyPath) -> None:
    """Saves what a run has trained, for those who don't have tf_gnc.

    That is a stock Keras model, not compiled. A model with a `call` of its
    own is the user's code and is saved as it is, and so is one whose layers
    can't be put together anew.
    """
    plain = None
    if not has_own_call(model):
        try:
            plain = model.to_keras()
        except (TypeError, ValueError) as error:
            warnings.warn(
                f"{path.name} needs tf_gnc to be loaded, since the model "
                f"can't be made anew from its layers: {error}",
                stacklevel=2,
            )
    if plain is None:
        save_model(model, path)
    elif is_chief(model.distribute_strategy):
        _files.write(path, plain.save)
    else:  # All read the weights.
        with chief.writable(path, model.distribute_strategy) as own:
            plain.save(own)


class Checkpoints(keras.callbacks.Callback):
    """Keeps the whole model as `epoch-0010.keras` and so on, all of them.

    The directory is made with the first.
    """

    backed_up = ()  # see tf_gnc.callbacks.callback_state

    def __init__(self, directory: _files.AnyPath, every: int) -> None:
        super().__init__()
        self._directory, self._every = directory, every

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        """Saves if it is time."""
        if (epoch + 1) % self._every:
            return
        self._directory.mkdir(parents=True, exist_ok=True)
        path = self._directory / f"epoch-{epoch + 1:04}.keras"
        save_model(self.model, path)
