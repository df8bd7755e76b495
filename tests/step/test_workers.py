"""Workers on replicas: how many, which rows, in what order."""

import re

import numpy as np
import pytest
import tensorflow as tf

from tests import problems
from tf_gnc import _batch, threads
from tf_gnc.step import workers


@pytest.mark.parametrize(
    ("num_workers", "num_replicas", "expected"),
    [(1, 1, 1), (256, 8, 32), (4, 4, 1), (np.int64(6), 2, 3)],
)
def test_per_replica__replicas_divide_workers__is_the_quotient(
    num_workers, num_replicas, expected
):
    assert workers.per_replica(num_workers, num_replicas) == expected


@pytest.mark.parametrize(
    ("num_workers", "num_replicas", "suggestion"),
    [(3, 2, 4), (9, 4, 8), (11, 4, 12), (1, 8, 8), (255, 8, 256)],
)
def test_per_replica__remainder__error_names_both_and_a_number_that_works(
    num_workers, num_replicas, suggestion
):
    with pytest.raises(ValueError) as caught:
        workers.per_replica(num_workers, num_replicas)
    message = str(caught.value)
    given = f"got num_workers={num_workers} with {num_replicas} replicas"
    assert given in message
    assert f"Use num_workers={suggestion}," in message
    assert workers.per_replica(suggestion, num_replicas) >= 1


@pytest.mark.parametrize("value", [0, -4, 2.0, True, "4", None], ids=repr)
def test_per_replica__no_positive_integer__error_holds_it(value):
    message = f"got num_workers={value!r}."
    with pytest.raises(ValueError, match=re.escape(message)):
        workers.per_replica(value, 1)


def test_check_batch__even_split__passes():
    assert workers.check_batch(12, 4, "a batch") is None
    assert workers.check_batch(4, 4, "a batch") is None


@pytest.mark.parametrize(
    ("num_rows", "num_workers", "suggestion"), [(10, 4, 8), (3, 4, 4)]
)
def test_check_batch__remainder__error_names_both_and_a_batch_that_works(
    num_rows, num_workers, suggestion
):
    with pytest.raises(ValueError) as caught:
        workers.check_batch(num_rows, num_workers, "in step 7 a batch")
    message = str(caught.value)
    given = f"got in step 7 a batch of {num_rows} rows for {num_workers} work"
    assert given in message
    assert f"Use a batch of {suggestion} rows" in message
    assert f"multiple of {num_workers})" in message
    workers.check_batch(suggestion, num_workers, "a batch")


@pytest.mark.parametrize(
    ("cores", "per_replica", "num_replicas", "expected"),
    [
        (8, 8, 1, 8),
        (8, 32, 1, 8),  # no more than cores
        (8, 3, 1, 3),  # no more than workers
        (8, 8, 2, 4),  # replicas share the cores
        (8, 8, 3, 2),
        (8, 8, 16, 2),  # four of the sixteen are on this machine
        (1, 8, 4, 1),  # at least one
    ],
)
def test_num_parallel__on_a_cpu__is_what_cores_and_workers_allow(
    monkeypatch, cores, per_replica, num_replicas, expected
):
    assert len(tf.config.list_logical_devices("CPU")) == 4
    monkeypatch.setattr(threads, "num_cores", lambda: cores)
    monkeypatch.setattr(
        tf.config.threading, "get_inter_op_parallelism_threads", lambda: 0
    )
    assert workers.num_parallel(per_replica, num_replicas) == expected
    monkeypatch.setattr(threads, "num_cores", lambda: 64)
    monkeypatch.setattr(
        tf.config.threading, "get_inter_op_parallelism_threads", lambda: cores
    )
    assert workers.num_parallel(per_replica, num_replicas) == expected


@pytest.mark.parametrize("accelerator", ["GPU", "TPU"])
def test_num_parallel__with_an_accelerator__is_one(accelerator, monkeypatch):
    monkeypatch.setattr(threads, "num_cores", lambda: 8)
    assert workers.num_parallel(8, 1) > 1
    monkeypatch.setattr(
        tf.config,
        "list_logical_devices",
        lambda kind: [kind] if kind in (accelerator, "CPU") else [],
    )
    assert workers.num_parallel(8, 1) == 1


# Rows.


def _all_kinds():
    """Twelve rows of every kind of leaf, nested."""
    ragged = tf.ragged.constant([[n] * (n % 4) for n in range(12)])
    return (
        {
            "image": tf.reshape(tf.range(12 * 6), [12, 2, 3]),
            "array": np.arange(12.0),
            "ragged": ragged,
        },
        [tf.range(12), None],
        None,
    )


@pytest.mark.parametrize("num_workers", [1, 3, 4, 12])
def test_rows__nested_batch__workers_rows_make_up_the_whole(num_workers):
    batch = _all_kinds()
    parts = [
        _batch.rows(batch, tf.constant(k), num_workers)
        for k in range(num_workers)
    ]
    size = 12 // num_workers
    for k, (x, (y, nothing), weight) in enumerate(parts):
        assert nothing is None
        assert weight is None
        assert x["image"].shape == (size, 2, 3)
        assert y.numpy().tolist() == list(range(k * size, (k + 1) * size))
    for name in ("image", "array", "ragged"):
        whole = tf.concat([x[name] for x, _, _ in parts], axis=0)
        expected = batch[0][name]
        if name == "ragged":
            assert whole.to_list() == expected.to_list()
        else:
            np.testing.assert_array_equal(whole, expected)


@pytest.mark.parametrize("size", [12, None])
def test_rows__in_a_graph__shape_is_as_static_as_the_batch(size):
    specs = [
        tf.TensorSpec([size, 5], tf.float32),
        tf.TensorSpec([size], tf.int32),
        tf.RaggedTensorSpec([size, None], tf.float32),
    ]

    @tf.function(input_signature=specs, autograph=False)
    def call(x, y, ragged):
        taken = _batch.rows((x, y, ragged), tf.constant(2), 3)
        static = None if size is None else 4
        assert taken[0].shape.as_list() == [static, 5]
        assert taken[1].shape.as_list() == [static]
        return taken

    def batch(rows):
        x = tf.reshape(tf.range(rows * 5.0), [rows, 5])
        y = tf.range(rows)
        ragged = tf.ragged.constant([[float(n)] * n for n in range(rows)])
        return x, y, ragged

    for rows in (12,) if size else (12, 6):
        given = batch(rows)
        x, y, ragged = call(*given)
        last = slice(2 * rows // 3, None)
        np.testing.assert_array_equal(x, given[0][last])
        np.testing.assert_array_equal(y, given[1][last])
        assert ragged.to_list() == given[2].to_list()[last]


@pytest.mark.parametrize(
    "data",
    [
        tf.zeros([6, 2]),
        np.zeros(6),
        {"a": None, "b": tf.zeros([6])},
        (None, [tf.ragged.constant([[1], [], [2, 3], [], [], [4]])]),
    ],
    ids=["dense", "numpy", "none_first", "ragged"],
)
def test_num_rows__known_batch__is_their_number(data):
    assert int(_batch.num_rows(data)) == 6


def test_num_rows__in_a_graph__int_if_known_and_tensor_if_not():
    @tf.function(autograph=False)
    def call(x):
        rows = _batch.num_rows(x)
        kinds.append(type(rows))
        return tf.convert_to_tensor(rows)

    kinds = []
    ragged = tf.RaggedTensorSpec([None, None], tf.float32)
    unknown = tf.TensorSpec([None, 2], tf.float32)
    known = tf.TensorSpec([6, 2], tf.float32)
    functions = [
        call.get_concrete_function(s) for s in (known, unknown, ragged)
    ]
    assert kinds[0] is int
    assert all(issubclass(kind, tf.Tensor) for kind in kinds[1:])
    for function in functions[:2]:
        assert function(tf.zeros([6, 2])) == 6
    assert functions[2](tf.ragged.constant([[1.0], []])) == 2


# The loop.


def _horner(worker, state):
    """Not commutative: tells the order in which the workers were added."""
    total, seen = state
    return total * 10 + worker + 1, seen.write(worker, worker)


@pytest.mark.parametrize("graph", [True, False])
@pytest.mark.parametrize(
    ("num_workers", "total"), [(1, 1), (2, 12), (5, 12345)]
)
def test_for_each__any_number__passes_the_state_in_order(
    num_workers, total, graph
):
    def run(parallel):
        seen = tf.TensorArray(tf.int32, num_workers)
        total, seen = workers.for_each(
            _horner, (tf.constant(0), seen), num_workers, parallel
        )
        return total, seen.stack()

    if graph:
        run = tf.function(run, autograph=False)
    for parallel in (1, 4):
        result, seen = run(parallel)
        assert int(result) == total
        assert seen.numpy().tolist() == list(range(num_workers))


def test_for_each__in_a_graph__body_is_traced_once_for_any_number():
    def num_calls(num_workers):
        calls = []

        def body(worker, state):
            calls.append(worker)
            return state + 1

        @tf.function(autograph=False)
        def run():
            return workers.for_each(body, tf.constant(0), num_workers, 2)

        assert int(run()) == num_workers
        return len(calls)

    assert [num_calls(n) for n in (1, 2, 3, 50)] == [1, 1, 1, 1]


def test_for_each__several_at_a_time__same_bits_as_one_at_a_time():
    rng = np.random.default_rng(0)
    matrices = tf.constant(rng.normal(size=(16, 40, 40)), tf.float32)

    @tf.function(autograph=False)
    def run(parallel):
        def body(worker, total):
            matrix = tf.gather(matrices, worker)
            for _ in range(5):
                matrix = tf.tanh(matrix @ matrix)
            return total + matrix  # rounds differently in another order

        return workers.for_each(body, tf.zeros([40, 40]), 16, parallel)

    expected = run(1).numpy()
    assert np.abs(expected).max() > 1
    for _ in range(10):
        np.testing.assert_array_equal(run(8), expected)


@pytest.mark.parametrize("replicas", [1, 2, 4])
def test_mean_over_replicas__a_vector_each__is_their_mean(replicas):
    with problems.mirrored(replicas):
        strategy = tf.distribute.get_strategy()

    @tf.function(autograph=False)
    def run():
        def on_each():
            context = tf.distribute.get_replica_context()
            replica = tf.cast(context.replica_id_in_sync_group, tf.float32)
            return workers.mean_over_replicas(tf.stack([replica, -2.0]))

        return strategy.run(on_each)

    for result in strategy.experimental_local_results(run()):
        # 0, 1, ..., R - 1 are (R - 1) / 2 in the mean.
        assert result.numpy().tolist() == [(replicas - 1) / 2, -2.0]
