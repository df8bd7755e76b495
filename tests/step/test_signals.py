"""What replicas tell each other, on one and on two replicas."""

import pytest
import tensorflow as tf

from tests import problems
from tf_gnc.step import workers
from tf_gnc.step.signals import Signals

EVERY_REPLICAS = pytest.mark.parametrize("replicas", [1, 2])


class Run:
    """Four workers on some replicas, and steps of signals alone."""

    def __init__(self, replicas, checks_gradients=True, can_stop=False):
        with problems.mirrored(replicas):
            self.strategy = tf.distribute.get_strategy()
            self.signals = Signals(4, replicas, checks_gradients, can_stop)
        self.replicas = replicas

    def step(self, number=0, culprits=None, num_rows=None, static=None):
        """Takes a step; returns what each replica makes of it.

        Args:
            number: Steps before it.
            culprits: By replica.
            num_rows: By replica, unknown to the trace.
            static: Rows of each replica, known to the trace.
        """
        culprits = tf.constant(culprits or [-1] * self.replicas)
        num_rows = tf.constant(num_rows or [8] * self.replicas)

        def on_each():
            context = tf.distribute.get_replica_context()
            replica = context.replica_id_in_sync_group
            culprit, rows = culprits[replica], static or num_rows[replica]
            said = self.signals.outgoing(culprit, rows, "float32")
            mean = workers.mean_over_replicas(said) if said.shape[0] else said
            step = tf.constant(number)
            valid = self.signals.incoming(mean, step, culprit, rows)
            return tf.constant(-1) if valid is None else tf.cast(valid, "int32")

        result = tf.function(lambda: self.strategy.run(on_each))()
        local = self.strategy.experimental_local_results(result)
        return [int(valid) for valid in local]

    def raise_fault(self):
        self.signals.raise_fault(self.strategy)

    def stop_agreed(self):
        return self.signals.stop_agreed(self.strategy)


@EVERY_REPLICAS
def test_incoming__all_well__is_valid_and_raises_nothing(replicas):
    run = Run(replicas)
    assert run.step() == [1] * replicas
    run.raise_fault()


@EVERY_REPLICAS
def test_incoming__nothing_can_go_wrong__is_none(replicas):
    run = Run(replicas, checks_gradients=False)
    assert run.step(static=8) == [-1] * replicas


@EVERY_REPLICAS
def test_incoming__other_processes__might_have_other_rows(replicas):
    run = Run(replicas, checks_gradients=False, can_stop=True)
    assert run.step(static=8) == [1] * replicas


@EVERY_REPLICAS
def test_raise_fault__last_replicas_worker__is_named_by_all_and_cleared(
    replicas,
):
    run = Run(replicas)
    culprits = [-1] * (replicas - 1) + [3]
    assert run.step(6, culprits) == [0] * replicas
    components = run.strategy.experimental_local_results(run.signals._fault)
    assert {tuple(c.numpy()[:2]) for c in components} == {(7, 4)}
    with pytest.raises(FloatingPointError, match=r"worker 3 \(of 4.*in step 6"):
        run.raise_fault()
    run.raise_fault()
    assert run.step(7) == [1] * replicas


def test_raise_fault__a_culprit_on_each_replica__names_this_ones():
    run = Run(2)
    assert run.step(0, [1, 2]) == [0, 0]
    with pytest.raises(FloatingPointError, match="worker 1 "):
        run.raise_fault()


def test_raise_fault__two_culprits_elsewhere__says_more_than_one():
    with problems.mirrored(4):
        strategy = tf.distribute.get_strategy()
    run = Run.__new__(Run)
    run.strategy, run.replicas = strategy, 4
    with strategy.scope():
        run.signals = Signals(4, 4, checks_gradients=True, can_stop=False)
    assert run.step(0, [-1, -1, 2, 3]) == [0] * 4
    with pytest.raises(FloatingPointError, match="more than one worker"):
        run.raise_fault()


@EVERY_REPLICAS
def test_incoming__step_after_a_fault__is_not_taken_and_hides_nothing(replicas):
    run = Run(replicas)
    run.step(3, [2] + [-1] * (replicas - 1))
    assert run.step(4) == [0] * replicas
    assert run.step(5, [0] + [-1] * (replicas - 1)) == [0] * replicas
    with pytest.raises(FloatingPointError, match="worker 2 .* in step 3"):
        run.raise_fault()


@EVERY_REPLICAS
def test_raise_fault__rows_that_workers_cannot_share__names_the_batch(replicas):
    run = Run(replicas)
    num_rows = [8] * (replicas - 1) + [5]
    assert run.step(2, num_rows=num_rows) == [0] * replicas
    total = sum(num_rows)
    match = rf"in step 2 \(from 0\) a batch of {total} rows for 4 workers"
    with pytest.raises(ValueError, match=match):
        run.raise_fault()


def test_raise_fault__replicas_with_other_rows__names_both():
    run = Run(2)
    assert run.step(0, num_rows=[2, 6]) == [0, 0]
    match = r"8 rows for 2 replicas, \[2, 6\]"
    with pytest.raises(ValueError, match=match):
        run.raise_fault()


def test_outgoing__static_rows_that_workers_cannot_share__refused_at_once():
    with pytest.raises(ValueError, match="a batch of 5 rows for 4 workers"):
        Run(1).step(static=5)


# The wish to stop.


@EVERY_REPLICAS
def test_request_stop__one_process__is_agreed_at_once(replicas):
    run = Run(replicas)
    assert not run.stop_agreed()
    run.signals.request_stop(run.strategy)
    assert run.stop_agreed()


@EVERY_REPLICAS
def test_request_stop__several_processes__is_agreed_after_a_step(replicas):
    run = Run(replicas, can_stop=True)
    run.step(static=8)
    assert not run.stop_agreed()
    run.signals.request_stop(run.strategy)
    assert not run.stop_agreed()
    run.step(static=8)
    assert run.stop_agreed()


def test_request_stop__on_another_replica_only__all_agree():
    run = Run(2, can_stop=True)
    local = run.strategy.experimental_local_results(run.signals._stop)
    local[1].assign([1, 0])  # as another process's request would be
    run.step(static=8)
    assert [component.numpy()[1] for component in local] == [1, 1]


@EVERY_REPLICAS
def test_request_stop__in_a_step_with_a_fault__both_are_told(replicas):
    run = Run(replicas, can_stop=True)
    run.signals.request_stop(run.strategy)
    run.step(0, [1] + [-1] * (replicas - 1))
    assert run.stop_agreed()
    with pytest.raises(FloatingPointError, match="worker 1 "):
        run.raise_fault()
