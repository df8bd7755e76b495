"""What is settled before `fit`, in one process."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests import problems
from tf_gnc.step import fit_arguments


def _arguments(**arguments):
    x, y = problems.vectors(10)
    return {"x": x, "y": y, **arguments}


@pytest.mark.parametrize(
    ("arguments", "sizes"),
    [
        (_arguments(), [10]),
        (_arguments(batch_size=5), [5]),
        (_arguments(batch_size=4), [4, 2]),
        (_arguments(batch_size=4, steps_per_epoch=2), [4]),
        (_arguments(batch_size=4, steps_per_epoch=3), [4, 2]),
        (_arguments(batch_size=4, validation_split=0.2), [4]),
        (
            _arguments(batch_size=4, validation_split=0.2, validation_data=1),
            [4, 2],
        ),
        ({"x": {"a": np.zeros([6, 1]), "b": np.zeros([6, 2])}}, [6]),
        ({"x": [None, np.zeros([6, 1])], "batch_size": 4}, [4, 2]),
        ({"x": np.zeros([0, 1])}, []),
        ({"x": None}, []),
        ({"x": (batch for batch in [])}, []),
    ],
)
def test_batch_sizes__arrays__full_ones_and_the_last(arguments, sizes):
    assert fit_arguments.batch_sizes(arguments) == sizes


def test_batch_sizes__data_sets__only_what_they_say():
    data = tf.data.Dataset.from_tensor_slices(problems.vectors(10))
    known = data.batch(4, drop_remainder=True)
    assert fit_arguments.batch_sizes({"x": known}) == [4]
    assert fit_arguments.batch_sizes({"x": data.batch(4)}) == []


@pytest.mark.parametrize("replicas", [1, 2])
def test_batch_sizes__distributed_data__are_not_guessed(replicas):
    with problems.mirrored(replicas):
        strategy = tf.distribute.get_strategy()
    data = tf.data.Dataset.from_tensor_slices(problems.vectors(8)).batch(4)
    distributed = strategy.experimental_distribute_dataset(data)
    assert fit_arguments.batch_sizes({"x": distributed}) == []


def _model(num_workers=4):
    model = problems.dense_network()
    model.compile("sgd", problems.cross_entropy(), num_workers=num_workers)
    return model


def test_prepare__one_process_without_backups__changes_nothing():
    arguments = _arguments(batch_size=5, callbacks=[keras.callbacks.History()])
    before = dict(arguments)
    assert fit_arguments.prepare(_model(5), arguments) == []
    assert arguments.keys() == before.keys()
    assert all(arguments[name] is before[name] for name in before)


def test_prepare__batch_that_workers_cannot_share__refused():
    with pytest.raises(ValueError, match="a batch of 5 rows for 4 workers"):
        fit_arguments.prepare(_model(), _arguments(batch_size=5))
    with pytest.raises(ValueError, match="a batch of 2 rows for 4 workers"):
        fit_arguments.prepare(_model(), _arguments(batch_size=4))


def test_prepare__two_that_take_a_run_up__refused():
    arguments = _arguments(
        batch_size=4,
        steps_per_epoch=2,
        callbacks=[fit_arguments.Resumable(), [fit_arguments.Resumable()]],
    )
    with pytest.raises(ValueError, match="a single BackupAndRestore, got 2"):
        fit_arguments.prepare(_model(), arguments)


@pytest.mark.parametrize("devices", [1, 2])
def test_fit__generator_on_mirrored_replicas__no_batch_is_lost(devices):
    x, y = problems.vectors(32)
    batches = [(x[i : i + 8], y[i : i + 8]) for i in range(0, 32, 8)]
    with problems.mirrored(devices):
        model = problems.dense_network()
        problems.trained(model, x, y, epochs=1, batch_size=8, num_workers=4)
        other = problems.dense_network()
        other.compile(problems.sgd(), problems.cross_entropy(), num_workers=4)
    other.fit((b for b in batches), steps_per_epoch=4, verbose=0)
    difference = problems.largest_difference(
        problems.float_weights(model), problems.float_weights(other)
    )
    assert difference < 1e-6


def test_fit__fails__lets_go_of_a_run_that_was_taken_up():
    class Counted(fit_arguments.Resumable, keras.callbacks.Callback):
        closed = 0

        def open(self, model, callbacks):
            self.opened_with = callbacks

        def data_position(self, first_step, seed):
            return first_step, seed

        def on_train_begin(self, logs=None):
            raise RuntimeError("from a callback")

        def close(self):
            self.closed += 1

    callback, other = Counted(), keras.callbacks.Callback()
    with pytest.raises(RuntimeError, match="from a callback"):
        _model().fit(
            *problems.vectors(8),
            batch_size=4,
            callbacks=[callback, other],
            verbose=0,
        )
    assert callback.closed == 1
    assert callback.opened_with[0] is other
