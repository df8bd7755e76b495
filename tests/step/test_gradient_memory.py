"""Each worker's remembered gradient, and the noise made of it."""

import numpy as np
import pytest
import tensorflow as tf

from tests import problems
from tf_gnc.step import workers
from tf_gnc.step.gradient_memory import GradientMemory, MemoryStep

P, STEPS = 3, 4


def _gradients(num_workers, steps=STEPS):
    """Gradients (steps, V, P), all different."""
    rng = np.random.default_rng(0)
    return rng.normal(size=(steps, num_workers, P)).astype("float32")


def _step(memory, gradients, *, parallel=1, valid=True, mean=None):
    """One step in the order that is asked for; returns its noise (V, P)."""
    num_workers = memory.workers_per_replica
    gradients = tf.convert_to_tensor(gradients)
    view = MemoryStep(memory)

    def work(worker, state):
        pending, noises = state
        noises = noises.write(
            worker, view.previous(worker) - view.previous_mean
        )
        # A little arithmetic, so that the workers have something to overlap.
        gradient = tf.gather(gradients, worker) * tf.ones([P])
        return view.remember(worker, gradient, pending), noises

    noises = tf.TensorArray(memory.mean.dtype, num_workers)
    pending, noises = workers.for_each(
        work, (view.pending, noises), num_workers, parallel
    )
    view.flush(pending)
    if mean is None:
        mean = tf.reduce_mean(gradients, axis=0)
    view.end(mean, tf.convert_to_tensor(valid))
    return noises.stack()


def _steps(memory, gradients, *, graph, parallel=1):
    """The noise of all steps (steps, V, P)."""

    def step(gradients):
        return _step(memory, gradients, parallel=parallel)

    if graph:
        step = tf.function(step, autograph=False)
    return np.stack([step(tf.constant(g)).numpy() for g in gradients])


def _noise_by_hand(gradients):
    """Zeros in the first step, then gradient minus mean of the step before.

    The memory is handed the mean and doesn't compute it, so this one is made
    in the same way, to the bit.
    """
    noise = np.zeros_like(gradients)
    for step in range(1, len(gradients)):
        mean = tf.reduce_mean(tf.constant(gradients[step - 1]), axis=0).numpy()
        for worker, gradient in enumerate(gradients[step - 1]):
            noise[step, worker] = gradient - mean
    return noise


CASES = [
    (num_workers, delay)
    for num_workers in range(1, 6)
    for delay in (0, 1, 3)
    if delay <= num_workers - 1
]


@pytest.mark.parametrize("graph", [True, False])
@pytest.mark.parametrize(("num_workers", "delay"), CASES)
def test_noise__any_delay__is_gradient_minus_mean_of_the_step_before(
    num_workers, delay, graph
):
    gradients = _gradients(num_workers)
    memory = GradientMemory(num_workers, P, "float32", "float32", delay)
    noise = _steps(memory, gradients, graph=graph, parallel=delay + 1)
    np.testing.assert_array_equal(noise, _noise_by_hand(gradients))
    np.testing.assert_array_equal(memory.gradients[:num_workers], gradients[-1])
    np.testing.assert_array_equal(
        memory.mean, tf.reduce_mean(gradients[-1], axis=0)
    )


@pytest.mark.parametrize("delay", [1, 3])
def test_noise__workers_share_a_mean__sums_to_zero(delay):
    gradients = _gradients(5)
    memory = GradientMemory(5, P, "float32", "float32", delay)
    noise = _steps(memory, gradients, graph=True, parallel=4)
    assert np.abs(noise[1:]).max() > 0.1
    # Each of 5 differences and the mean, times 5, are off by roundings.
    bound = 5 * 6 * np.finfo("float32").eps * np.abs(gradients).max()
    assert np.abs(noise.sum(axis=1)).max() <= bound


@pytest.mark.parametrize(
    ("delay", "undoable", "num_rows"),
    [(0, False, 5), (1, False, 6), (3, False, 6), (0, True, 10), (3, True, 11)],
)
def test_memory__gradients__are_held_once_or_twice_if_undoable(
    delay, undoable, num_rows
):
    memory = GradientMemory(5, P, "bfloat16", "float32", delay, undoable)
    assert memory.gradients.shape == (num_rows, P)
    assert memory.gradients.dtype == tf.bfloat16
    assert memory.mean.shape == (P,)
    assert memory.mean.dtype == tf.float32


def test_noise__bfloat16_memory__rounds_gradients_but_not_mean():
    memory = GradientMemory(2, 2, "bfloat16", "float32")
    # bfloat16 has 8 bits: 1 + 2**-7 is there, 1 + 2**-8 is a tie and goes to
    # the even neighbour, 1, and what lies beyond the tie goes up.
    gradients = [
        [1 + 2**-7, 1 + 2**-8],
        [1 + 2**-8 + 2**-12, -3.0],
    ]
    mean = tf.constant([2**-20, 2**-20])
    view = MemoryStep(memory)
    for worker, gradient in enumerate(gradients):
        view.remember(tf.constant(worker), tf.constant(gradient), ())
    view.end(mean, tf.constant(True))
    view = MemoryStep(memory)
    noise = [
        view.previous(tf.constant(worker)) - view.previous_mean
        for worker in (0, 1)
    ]
    assert noise[0].dtype == tf.float32
    assert noise[0].numpy().tolist() == [1 + 2**-7 - 2**-20, 1 - 2**-20]
    assert noise[1].numpy().tolist() == [
        1 + 2**-7 - 2**-20,
        float(np.float32(-3 - 2**-20)),
    ]


@pytest.mark.parametrize("graph", [True, False])
@pytest.mark.parametrize("delay", [0, 1, 3])
def test_end__undoable__an_invalid_step_is_as_if_it_had_never_been(
    delay, graph
):
    good = _gradients(5)
    bad = np.full((5, P), np.nan, "float32")
    sequence = [(good[0], True), (bad, False), (bad, False), (good[1], True)]
    sequence += [(bad, False), (good[2], True), (good[3], True)]
    memory = GradientMemory(5, P, "float32", "float32", delay, undoable=True)

    def step(gradients, valid):
        return _step(memory, gradients, parallel=delay + 1, valid=valid)

    if graph:
        step = tf.function(step, autograph=False)
    noise = [step(g, tf.constant(valid)).numpy() for g, valid in sequence]
    by_hand = _noise_by_hand(good)
    # An invalid step reads the noise of the one that it will be repeated as.
    for ours, nth in zip(noise, [0, 1, 1, 1, 2, 2, 3], strict=True):
        np.testing.assert_array_equal(ours, by_hand[nth])


def test_end__not_undoable__an_invalid_step_keeps_the_mean_only():
    first, second = _gradients(2, steps=2)
    memory = GradientMemory(2, P, "float32", "float32")
    _step(memory, first)
    mean = memory.mean.numpy()
    _step(memory, second, valid=False)
    np.testing.assert_array_equal(memory.mean, mean)
    np.testing.assert_array_equal(memory.gradients, second)
    _step(memory, second, valid=True)
    assert np.all(memory.mean.numpy() != mean)


def test_end__mean_of_another_dtype__is_stored_in_the_memorys():
    memory = GradientMemory(1, P, "float32", "float32")
    _step(memory, _gradients(1)[0], mean=tf.ones([P], tf.float64))
    assert memory.mean.numpy().tolist() == [1.0] * P


@pytest.mark.parametrize("undoable", [False, True])
def test_reset__after_steps__the_next_has_no_noise(undoable):
    gradients = _gradients(3)
    memory = GradientMemory(3, P, "float32", "float32", 1, undoable)
    before = _steps(memory, gradients, graph=False)
    memory.reset(tf.distribute.get_strategy())
    assert not np.any(memory.gradients.numpy())
    after = _steps(memory, gradients, graph=False)
    assert not np.any(after[0])
    assert np.any(before[1])
    np.testing.assert_array_equal(after, before)


@pytest.mark.parametrize("undoable", [False, True])
def test_memory__two_replicas__each_remembers_its_own_workers(undoable):
    with problems.mirrored(2):
        strategy = tf.distribute.get_strategy()
        memory = GradientMemory(3, P, "float32", "float32", 1, undoable)
    gradients = tf.constant(_gradients(6))  # (steps, M, P)

    @tf.function(autograph=False)
    def step(gradients):
        def on_each(gradients):
            context = tf.distribute.get_replica_context()
            first = 3 * context.replica_id_in_sync_group
            return _step(
                memory,
                gradients[first : first + 3],
                parallel=2,
                mean=tf.reduce_mean(gradients, axis=0),
            )

        return strategy.run(on_each, args=(gradients,))

    noise = [
        np.concatenate(strategy.experimental_local_results(step(g)))
        for g in gradients
    ]
    np.testing.assert_array_equal(noise, _noise_by_hand(gradients.numpy()))
    memory.reset(strategy)
    noise = strategy.experimental_local_results(step(gradients[0]))
    assert not np.any(np.concatenate(noise))
