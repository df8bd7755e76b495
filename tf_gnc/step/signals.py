"""What replicas exchange beside gradients: faults, and requests to stop.

A step that goes wrong on one replica must not be taken by any, and all
processes of a run must stop at the same step or they wait for each other for
ever. So these few numbers travel in the step's only all-reduce. What came of
it is recorded on the device and raised by the host after the call, which works
under XLA and with `steps_per_execution` too.

Symbols   M, R, V  workers, replicas, workers per replica (tf_gnc.step.workers)
"""

import tensorflow as tf

from tf_gnc._keras_compat import on_this_replica
from tf_gnc.step import workers


class Signals:
    """The variables behind the signals of one model; make it under its scope.

    If it `checks_gradients`, one that isn't finite is a fault; if it
    `can_stop`, a request to stop is passed on to other processes.
    """

    def __init__(
        self,
        num_workers: int,
        num_replicas: int,
        checks_gradients: bool,
        can_stop: bool,
    ) -> None:
        self._num_workers = num_workers
        self._num_replicas = num_replicas
        self._per_replica = num_workers // num_replicas
        self.checks_gradients = checks_gradients
        self._can_stop = can_stop
        # Step (from 1), worker (from 1) and rows, on this replica and on all,
        # of the first fault; zeros for none.
        self._fault = workers.replica_variable([4], "int64")
        # Whether this process wishes to stop, and whether any did.
        self._stop = workers.replica_variable([2], "int64")

    def outgoing(
        self, culprit: tf.Tensor, num_rows: int | tf.Tensor, dtype: str
    ) -> tf.Tensor:
        """Returns what this replica adds to the all-reduced vector.

        The culprit is the global index of the replica's first worker whose
        gradient isn't finite, or -1. Counts are exact up to 2**24 in float32.
        """
        numbers = []
        if isinstance(num_rows, int):
            workers.check_batch(num_rows, self._per_replica, "a batch")
        if self._can_fail(num_rows):
            bad = (culprit >= 0) | (num_rows % self._per_replica != 0)
            bad |= self._earlier_fault()
            numbers = [bad, tf.maximum(culprit + 1, 0), num_rows]
        if self._can_stop:
            stop = tf.convert_to_tensor(on_this_replica(self._stop))
            numbers.append(stop[0])
        if not numbers:
            return tf.zeros([0], dtype)
        return tf.stack([tf.cast(n, dtype) for n in numbers])

    def incoming(
        self,
        mean: tf.Tensor,
        step: tf.Tensor,
        culprit: tf.Tensor,
        num_rows: int | tf.Tensor,
    ) -> tf.Tensor | None:
        """Records what all replicas said, and judges the step.

        A fault that is recorded already stays, and with it all further steps
        of the same `steps_per_execution` are faulty.

        It is given the mean over the replicas of what each got from
        `outgoing`, and how many steps were taken before.

        Returns:
            A boolean scalar, equal on all replicas: whether the step may be
            taken; None if it can't fail.
        """
        total = tf.cast(tf.round(mean * self._num_replicas), tf.int64)
        if self._can_stop:
            stop = on_this_replica(self._stop)
            agreed = tf.cast(total[-1] > 0, tf.int64)
            stop.assign(tf.stack([tf.convert_to_tensor(stop)[0], agreed]))
        if not self._can_fail(num_rows):
            return None
        num_rows = tf.cast(num_rows, tf.int64)
        num_bad, culprits, rows = total[0], total[1], total[2]
        bad = (num_bad > 0) | (rows != num_rows * self._num_replicas)
        # Another replica's culprit follows from the sum if there is one alone.
        other = tf.where(num_bad == 1, culprits, 0)
        culprit = tf.cast(culprit, tf.int64) + 1
        culprit = tf.where(culprit > 0, culprit, other)
        found = [tf.cast(step, tf.int64) + 1, culprit, num_rows, rows]
        earlier = self._earlier_fault()
        fault = on_this_replica(self._fault)
        fault.assign(tf.where(bad & ~earlier, tf.stack(found), fault))
        return ~bad

    def request_stop(self, strategy: tf.distribute.Strategy) -> None:
        """Makes `stop_agreed` true in all processes after their next step."""
        for component in strategy.experimental_local_results(self._stop):
            agreed = 0 if self._can_stop else 1
            component.assign(tf.constant([1, agreed], tf.int64))

    def stop_agreed(self, strategy: tf.distribute.Strategy) -> bool:
        """Tells whether any process has asked to stop; the same in all."""
        local = strategy.experimental_local_results(self._stop)
        return bool(local[0].numpy()[1])

    def raise_fault(self, strategy: tf.distribute.Strategy) -> None:
        """Raises what a step has recorded, and clears it.

        Raises:
            ValueError: If the workers couldn't share a batch evenly.
            FloatingPointError: If a worker's gradient wasn't finite.
        """
        local = strategy.experimental_local_results(self._fault)
        faults = [tuple(map(int, c.numpy())) for c in local]
        if not any(step for step, *_ in faults):
            return
        for component in local:
            component.assign(tf.zeros_like(component))
        step, culprit, _, num_rows = faults[0]
        where = f"in step {step - 1} (from 0) a batch"
        workers.check_batch(num_rows, self._num_workers, where)
        shares = [rows for _, _, rows, _ in faults]
        if any(rows * self._num_replicas != num_rows for rows in shares):
            raise ValueError(
                "Every replica needs the same number of rows, got "
                f"{where} of {num_rows} rows for {self._num_replicas} "
                f"replicas, {shares} of them on those of this process. Let "
                "the data set yield global batches and `fit` split them."
            )
        worker = f"worker {culprit - 1}" if culprit else "more than one worker"
        raise FloatingPointError(
            f"The gradient of {worker} (of {self._num_workers}, counted from "
            f"0) was not finite in step {step - 1}. The model's weights are "
            "those from before that step, and the noise memory has been "
            "emptied. Lower the learning rate or `alpha`, warm up for longer, "
            "or bound the noise with `GradientNoise(max_displacement=...)`."
        )

    def _can_fail(self, num_rows: int | tf.Tensor) -> bool:
        """Tells whether a step with such a batch may have a fault."""
        alone = self._num_workers == 1  # A single worker takes any batch.
        # Another process may know of another number.
        known = isinstance(num_rows, int) and not self._can_stop
        even_for_sure = known or alone
        return self.checks_gradients or not even_for_sure

    def _earlier_fault(self) -> tf.Tensor:
        return tf.convert_to_tensor(on_this_replica(self._fault))[0] != 0
