"""What a callback remembers, on its way through JSON and arrays."""

import collections
import json

import keras
import numpy as np
import pytest

from tf_gnc.callbacks import callback_state


class _Holder(keras.callbacks.Callback):
    def __init__(self, **values):
        super().__init__()
        vars(self).update(values)


class _Other(_Holder):
    pass


def _moved(callbacks, others):
    """Moves a state from one list of callbacks to another, as a backup does."""
    states, arrays = callback_state.capture(callbacks)
    text = json.dumps(states, allow_nan=False)
    callback_state.put_back(others, (json.loads(text), arrays))
    return states


@pytest.mark.parametrize(
    "value",
    [
        None, True, 3, -2**70, 0.1, float("inf"), -float("inf"), "text",
        [], (), {}, [1, (2.5, None), {"a": [True]}], {"x": {"y": (1,)}},
        {1: 0.5, 2: 0.25}, ("nested", [["deep"]]),
    ],
)  # fmt: skip
def test_state__plain_value__comes_back_as_it_was(value):
    holder = _Holder(value="its own")
    _moved([_Holder(value=value)], [holder])
    assert holder.value == value
    assert type(holder.value) is type(value)


def test_state__nan__comes_back():
    holder = _Holder(best=0.0)
    _moved([_Holder(best=float("nan"))], [holder])
    assert np.isnan(holder.best)


def test_state__numpy_number__comes_back_as_a_plain_one():
    holder = _Holder(best=0.0)
    _moved([_Holder(best=np.float32(0.1))], [holder])
    assert holder.best == float(np.float32(0.1))


@pytest.mark.parametrize("dtype", ["float32", "int64", "bool", "<U3"])
def test_state__arrays__come_back_as_copies(dtype):
    array = np.array([[0, 1], [1, 0]]).astype(dtype)
    holder = _Holder(weights=None)
    _moved([_Holder(weights=[array, (array,)])], [holder])
    for copy in (holder.weights[0], holder.weights[1][0]):
        np.testing.assert_array_equal(copy, array)
        assert copy.dtype == array.dtype
        assert not np.shares_memory(copy, array)
        assert copy.flags.writeable


@pytest.mark.parametrize(
    "value",
    [
        len, object(), {1, 2}, [1, object()], {"a": len}, {(1, 2): 3},
        np.array([None]), np.array([(1, 2)], "i4,i4"),
    ],
)  # fmt: skip
def test_state__anything_else__is_left_to_the_new_callback(value):
    holder = _Holder(value="its own", count=0)
    states = _moved([_Holder(value=value, count=3)], [holder])
    assert (holder.value, holder.count) == ("its own", 3)
    assert "value" not in states["_Holder-1"]


def test_state__counter_and_defaultdict__keep_their_kind():
    counts, lists = collections.Counter(), collections.defaultdict(list)
    holder = _Holder(counts=counts, lists=lists)
    _moved(
        [_Holder(counts=collections.Counter("aab"), lists={"x": [1]})],
        [holder],
    )
    holder.counts["c"] += 1
    holder.lists["y"].append(2)
    assert counts == {"a": 2, "b": 1, "c": 1}
    assert lists == {"x": [1], "y": [2]}


def test_state__two_of_a_kind_and_another__each_gets_its_own():
    new = [_Other(n=0), _Holder(n=0), _Holder(n=0)]
    _moved([_Holder(n=1), _Other(n=2), _Holder(n=3)], new)
    assert [callback.n for callback in new] == [2, 1, 3]


def test_state__callback_that_was_not_there__keeps_its_own():
    new = [_Holder(n=5), _Other(n=6)]
    _moved([_Holder(n=1)], new)
    assert [callback.n for callback in new] == [1, 6]


def test_state__names_in_backed_up__are_all_that_is_kept():
    class Choosy(_Holder):
        backed_up = ("kept",)

    new = Choosy(kept=0, other=0)
    _moved([Choosy(kept=1, other=1)], [new])
    assert (new.kept, new.other) == (1, 0)


def test_state__model_and_params__are_left_out():
    callback = _Holder(n=1)
    callback.set_params({"epochs": 3})
    callback.set_model(keras.Sequential())
    states, _ = callback_state.capture([callback])
    assert list(states["_Holder-1"]) == ["n"]


def test_state__min_delta__is_not_turned_twice():
    # Keras turns its sign with the first value that it sees, once an object.
    def seen(stopping):
        stopping.set_model(keras.Sequential())
        stopping.on_epoch_end(0, {"loss": 1.0})
        return stopping

    first = keras.callbacks.EarlyStopping("loss", mode="min", min_delta=0.5)
    first.on_train_begin()
    seen(first)
    second = keras.callbacks.EarlyStopping("loss", mode="min", min_delta=0.5)
    _moved([first], [second])
    assert second.best == 1.0
    seen(second)
    assert second.min_delta == first.min_delta == -0.5


def test_capture__what_has_not_changed__is_the_new_runs_own():
    before = keras.callbacks.EarlyStopping(patience=5)
    settled = callback_state.capture([before])
    before.wait, before.best = 3, 0.5
    kept = callback_state.capture([before], settled)
    assert set(kept[0]["EarlyStopping-1"]) == {"wait", "best"}
    after = keras.callbacks.EarlyStopping(patience=7)
    settled = callback_state.capture([after])
    after.stopped_epoch = 9  # what a batch that is passed over may leave
    callback_state.put_back([after], kept, settled)
    assert (after.wait, after.best) == (3, 0.5)
    assert (after.patience, after.stopped_epoch) == (7, 0)
