"""Which rows each process trains on, for all kinds of data.

Functions that take a strategy and a folder are scenarios; see
tests/processes.py.
"""

import re

import keras
import numpy as np
import pytest
import tensorflow as tf

import tf_gnc
from tests import problems, processes
from tf_gnc.distribute import process_index, sharding

M, B, STEPS = 4, 8, 4


def _compiled(strategy, inputs=None, **arguments):
    with strategy.scope():
        model = problems.dense_network(inputs=inputs)
        model.compile(
            problems.sgd(),
            problems.cross_entropy(),
            metrics=["accuracy"],
            **{
                "noise": tf_gnc.GradientNoise(alpha=0.5),
                "num_workers": M,
                **arguments,
            },
        )
    return model


# Kinds of data.


def _batches(x, y):
    return [(x[i : i + B], y[i : i + B]) for i in range(0, len(x), B)]


class _PyDataset(keras.utils.PyDataset):
    def __init__(self, *data):
        super().__init__()
        self.batches = _batches(*data)

    def __len__(self):
        return len(self.batches)

    def __getitem__(self, index):
        return self.batches[index]


WEIGHTS = np.linspace(0.1, 2, B * STEPS).astype("float32")
CLASS_WEIGHTS = {0: 0.5, 1: 1.0, 2: 2.0}


def _kinds(x, y, strategy):
    """Arguments of `fit` by name, all of the same batches."""
    data = tf.data.Dataset.from_tensor_slices((x, y)).batch(
        B, drop_remainder=True
    )
    weighted = tf.data.Dataset.from_tensor_slices((x, y, WEIGHTS)).batch(
        B, drop_remainder=True
    )

    def generator():
        for _ in range(2):
            yield from _batches(x, y)

    def make_rows(begin, end):
        return data.map(lambda x, y: (x[begin:end], y[begin:end])).repeat()

    return {
        "arrays": {"x": x, "y": y, "batch_size": B},
        "dataset": {"x": data},
        "endless": {"x": data.repeat(), "steps_per_epoch": STEPS},
        "unknown_size": {"x": data.batch(1).unbatch().unbatch().batch(B)},
        "py_dataset": {"x": _PyDataset(x, y)},
        "generator": {"x": generator(), "steps_per_epoch": STEPS},
        "own_rows": {
            "x": sharding.make_own_rows(make_rows, B, strategy),
            "steps_per_epoch": STEPS,
        },
        "weighted_arrays": {
            "x": x,
            "y": y,
            "batch_size": B,
            "sample_weight": WEIGHTS,
        },
        "weighted_dataset": {"x": weighted},
        "classes_arrays": {
            "x": x,
            "y": y,
            "batch_size": B,
            "class_weight": CLASS_WEIGHTS,
        },
        "classes_dataset": {"x": data, "class_weight": CLASS_WEIGHTS},
    }


KINDS = [
    "arrays",
    "dataset",
    "endless",
    "unknown_size",
    "py_dataset",
    "generator",
    "own_rows",
    "weighted_arrays",
    "weighted_dataset",
    "classes_arrays",
    "classes_dataset",
]


def kinds(strategy, folder, names=KINDS):
    """One model for all, so that the step is seldom traced anew."""
    x, y = problems.vectors(B * STEPS)
    model = _compiled(strategy)
    memory = model.step_plan.memory
    variables = [*model.variables, *model.optimizer.variables]
    start = [v.numpy() for v in variables]
    results = {}
    data = _kinds(x, y, strategy)
    for name in names:
        for variable, value in zip(variables, start, strict=True):
            variable.assign(value)
        memory.reset(strategy)
        model.fit(epochs=2, shuffle=False, verbose=0, **data[name])
        results[name] = problems.float_weights(model)
    return results


class Nested(tf_gnc.GNCTrainStep, keras.Model):
    """Fed with a dictionary of a dense and a ragged tensor."""

    def __init__(self):
        super().__init__()
        self.first = keras.layers.Dense(4)
        self.last = keras.layers.Dense(problems.CLASSES)

    def call(self, inputs):
        sums = tf.reduce_sum(inputs["ragged"], axis=1)[:, tf.newaxis]
        hidden = self.first(inputs["x"])
        return self.last(tf.concat([hidden, sums], axis=1))


def nested(strategy, folder):
    x, y = problems.vectors(B * STEPS)
    lengths = np.arange(B * STEPS) % 3
    inputs = {
        "x": x,
        "ragged": tf.RaggedTensor.from_row_lengths(
            np.linspace(0, 1, lengths.sum(), dtype="float32"), lengths
        ),
    }
    data = tf.data.Dataset.from_tensor_slices((inputs, y)).batch(B)
    with strategy.scope():
        model = Nested()
        model.compile(
            problems.sgd(),
            problems.cross_entropy(),
            noise=tf_gnc.GradientNoise(alpha=0.5),
            num_workers=M,
        )
        model(inputs)  # Keras can't build it without a call.
    model.fit(data, epochs=2, verbose=0)
    return model.get_weights()


def from_generator_unbuilt(strategy, folder):
    """A model that waits for its first batch, which must not get lost."""
    x, y = problems.vectors(B * STEPS)

    class Unbuilt(tf_gnc.GNCTrainStep, keras.Sequential):
        pass

    with strategy.scope():
        model = Unbuilt([keras.layers.Dense(problems.CLASSES)])
        model.compile(problems.sgd(), problems.cross_entropy(), num_workers=M)
    batches = (batch for batch in _batches(x, y))
    model.fit(batches, steps_per_epoch=STEPS, verbose=0)
    return model.get_weights()


def sparse(strategy, folder):
    x, y = problems.vectors(B * STEPS)
    model = _compiled(strategy, inputs=keras.Input((5,), sparse=True))
    x = tf.sparse.from_dense(np.where(x > 0, x, 0))
    model.fit(x, y, batch_size=B, shuffle=False, verbose=0)
    data = tf.data.Dataset.from_tensor_slices((x, y)).batch(B)
    model.fit(data, verbose=0)
    return problems.float_weights(model)


def _error_of_fit(strategy, data, noise="gnc", num_workers=M):
    """What a `fit` to batches raises."""
    noise = tf_gnc.GradientNoise(alpha=0.5) if noise == "gnc" else None
    model = _compiled(strategy, noise=noise, num_workers=num_workers)
    return processes.error_of(
        lambda: model.fit(data, steps_per_epoch=3, verbose=0)
    )


def _vectors(size):
    return tf.data.Dataset.from_tensor_slices(problems.vectors(size))


def differing(strategy, folder):
    x, y = problems.vectors(B)
    data = tf.data.Dataset.from_tensors((x + process_index(strategy), y))
    return _error_of_fit(strategy, data)


def uneven(strategy, folder):
    """A last batch that the workers can't share, by workers and rows."""
    return {
        case: _error_of_fit(
            strategy, _vectors(B + case[2]).batch(B), case[1], case[0]
        )
        for case in UNEVEN
    }


# Workers, noise, rows of the last batch; two workers are one per replica.
UNEVEN = [(M, "gnc", 2), (2, "gnc", 1), (2, "none", 3)]


def _own_batches(strategy, static):
    def make(context):
        size = 2 + 2 * context.input_pipeline_id
        return _vectors(64).repeat().batch(size, drop_remainder=static)

    return strategy.distribute_datasets_from_function(make)


def unequal(strategy, folder):
    return _error_of_fit(strategy, _own_batches(strategy, static=False))


def unequal_static(strategy, folder):
    data = _own_batches(strategy, static=True)
    return _error_of_fit(strategy, data, noise="none")


def strings(strategy, folder):
    words = [f"of {process_index(strategy)}" * 9] * 4
    return [
        processes.error_of(
            lambda data=data: sharding.check_same(data, strategy)
        )
        for data in (
            tf.data.Dataset.from_tensors((["a" * 99, "b"], [0, 1])),
            tf.data.Dataset.from_tensors(words),
        )
    ]


def uneven_arrays(strategy, folder):
    """Of `uneven_evaluation` what isn't another kind of data."""
    x, y = problems.vectors(21)
    model = _compiled(strategy)
    weights = {"sample_weight": WEIGHTS[:21]}
    return {
        "evaluated": [model.evaluate(x, y, batch_size=8, verbose=0)],
        "weighted": model.evaluate(x, y, verbose=0, **weights),
        "predicted": [model.predict(x, batch_size=8, verbose=0)],
        "one_row": model.predict(x[:1], verbose=0),
    }


def uneven_evaluation(strategy, folder):
    x, y = problems.vectors(21)
    model = _compiled(strategy)
    data = tf.data.Dataset.from_tensor_slices((x, y)).batch(8)
    unknown = data.batch(1).unbatch().unbatch().batch(8)
    weights = {"sample_weight": WEIGHTS[:21]}
    return {
        "evaluated": [
            model.evaluate(x, y, batch_size=8, verbose=0),
            model.evaluate(data, verbose=0),
            model.evaluate(unknown, verbose=0),
            model.evaluate(_PyDataset(x, y), verbose=0),
        ],
        "weighted": model.evaluate(x, y, verbose=0, **weights),
        "predicted": [
            model.predict(x, batch_size=8, verbose=0),
            model.predict(data, verbose=0),
            model.predict(_PyDataset(x, y), verbose=0),
        ],
        "one_row": model.predict(x[:1], verbose=0),
    }


SCENARIOS = [
    kinds,
    nested,
    sparse,
    from_generator_unbuilt,
    differing,
    strings,
    uneven,
    unequal,
    unequal_static,
    uneven_evaluation,
]


def _alone(scenario):
    """What a scenario gives in this process, without a strategy."""
    keras.utils.set_random_seed(1)
    return scenario(tf.distribute.get_strategy(), None)


def _assert_same_run(results, expected):
    first, second = results
    for a, b in zip(first, second, strict=True):
        np.testing.assert_array_equal(a, b)
    assert problems.largest_difference(expected, first) < 1e-5


@pytest.fixture(scope="module")
def kinds_alone():
    # Arrays in one process are Keras's own doing.
    keras.utils.set_random_seed(1)
    names = ["arrays", "weighted_arrays", "classes_arrays"]
    return kinds(tf.distribute.get_strategy(), None, names)


@pytest.mark.parametrize("kind", KINDS)
def test_fit__kinds_of_data__two_processes_are_one_run(
    two_processes, kinds_alone, kind
):
    reference = {"weighted": "weighted_arrays", "classes": "classes_arrays"}
    reference = reference.get(kind.split("_")[0], "arrays")
    results = [result[kind] for result in two_processes[kinds]]
    _assert_same_run(results, kinds_alone[reference])


def test_kinds__weights__are_other_runs(kinds_alone):
    plain = kinds_alone["arrays"]
    for name in ("weighted_arrays", "classes_arrays"):
        assert problems.largest_difference(plain, kinds_alone[name]) > 1e-3


@pytest.mark.parametrize("scenario", [nested, sparse, from_generator_unbuilt])
def test_fit__unusual_inputs__two_processes_are_one_run(
    two_processes, scenario
):
    _assert_same_run(two_processes[scenario], _alone(scenario))


def test_fit__data_sets_that_differ__refused_in_all_processes(two_processes):
    first, second = two_processes[differing]
    assert first == second
    assert first[0] == "ValueError"
    assert re.search(r"\(checksums \[\d+, \d+\]\)", first[1])


def test_check_same__strings__are_compared_and_not_their_places(two_processes):
    same, different = zip(*two_processes[strings], strict=True)
    assert same == ((None, "no error"),) * 2
    assert [kind for kind, _ in different] == ["ValueError"] * 2


@pytest.mark.parametrize("case", UNEVEN)
def test_fit__uneven_last_batch__refused_in_all_processes(two_processes, case):
    num_workers, _, num_rows = case
    for result in two_processes[uneven]:
        kind, text = result[case]
        assert kind == "ValueError"
        assert f"of {num_rows} rows for {num_workers} workers" in text
        assert "in step 1 (from 0)" in text


@pytest.mark.parametrize("scenario", [unequal, unequal_static])
def test_fit__own_batches_of_two_sizes__refused_in_all_processes(
    two_processes, scenario
):
    for kind, text in two_processes[scenario]:
        assert kind == "ValueError"
        assert "same number of rows" in text


def _assert_exact(results):
    expected = _alone(uneven_arrays)
    for result in results:
        for name in ("evaluated", "predicted"):
            for values in result[name]:
                np.testing.assert_allclose(
                    values, expected[name][0], rtol=1e-5, atol=1e-6
                )
        for name in ("weighted", "one_row"):
            np.testing.assert_allclose(
                result[name], expected[name], rtol=1e-5, atol=1e-6
            )


def test_evaluate_predict__uneven_last_batch__exact(two_processes):
    _assert_exact(two_processes[uneven_evaluation])


def test_evaluate_predict__uneven_on_four_replicas__exact(two_times_two):
    _assert_exact(two_times_two[uneven_arrays])


# In one process.


def _values(dataset, number=None):
    batches = dataset if number is None else dataset.take(number)
    return [batch.tolist() for batch in batches.as_numpy_iterator()]


def test_indices__each_pass__is_a_permutation_of_its_own():
    batches = _values(sharding.indices(10, 4, True, seed=3), 6)
    assert [len(batch) for batch in batches] == [4, 4, 2] * 2
    first, second = sum(batches[:3], []), sum(batches[3:], [])
    assert sorted(first) == sorted(second) == list(range(10))
    assert first != second
    assert first != list(range(10))


def test_indices__seed__decides():
    def order(seed):
        return _values(sharding.indices(10, 5, True, seed), 4)

    assert order(3) == order(3)
    assert order(3) != order(4)


@pytest.mark.parametrize("num_examples", [8, 10])
@pytest.mark.parametrize("first_step", [1, 2, 3, 7])
def test_indices__first_step__goes_on_as_the_whole_run(
    num_examples, first_step
):
    whole = _values(sharding.indices(num_examples, 4, True, 5), 12)
    rest = sharding.indices(num_examples, 4, True, 5, first_step)
    assert _values(rest, 12 - first_step) == whole[first_step:]


def test_indices__any__have_no_end_and_a_known_size_if_even():
    even, uneven = (sharding.indices(n, 4, True, 0) for n in (8, 10))
    for data in (even, uneven):
        assert data.cardinality() == tf.data.INFINITE_CARDINALITY
    assert even.element_spec.shape == [4]
    assert uneven.element_spec.shape == [None]


def test_examples_of__nested_arrays__are_looked_up():
    arrays = {"a": np.arange(5), "b": (np.arange(10).reshape(5, 2),)}
    found = sharding.examples_of(arrays)(tf.constant([3, 0], tf.int64))
    assert found["a"].numpy().tolist() == [3, 0]
    assert found["b"][0].numpy().tolist() == [[6, 7], [0, 1]]


def _of_replicas(distributed, number):
    strategy = distributed._strategy
    return [
        [v.numpy().tolist() for v in strategy.experimental_local_results(batch)]
        for batch, _ in zip(distributed, range(number), strict=False)
    ]


def test_share__two_replicas__each_has_the_next_rows():
    with problems.mirrored(2):
        strategy = tf.distribute.get_strategy()
    data = tf.data.Dataset.range(14).batch(6)
    shared = sharding.keep_own_rows(data, strategy)
    assert _of_replicas(shared, 3) == [
        [[0, 1, 2], [3, 4, 5]],
        [[6, 7, 8], [9, 10, 11]],
        [[12], [13]],
    ]
    loaded = sharding.keep_own_rows(data, strategy, lambda chosen: chosen * 10)
    assert _of_replicas(loaded, 1) == [[[0, 10, 20], [30, 40, 50]]]


@pytest.mark.parametrize("strategy", [None, tf.distribute.get_strategy()])
def test_deal_out__one_process__is_all_rows(strategy):
    asked = []

    def make_rows(begin, end):
        asked.append((begin, end))
        return tf.data.Dataset.range(begin, end)

    assert _values(sharding.make_own_rows(make_rows, 3, strategy)) == [0, 1, 2]
    assert asked == [(0, 3)]


def test_check_same__one_process__is_content():
    data = tf.data.Dataset.from_tensors(problems.vectors(4))
    sharding.check_same(data, tf.distribute.get_strategy())
