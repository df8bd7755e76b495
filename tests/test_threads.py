"""Numbers of threads: in time, too late, wrong."""

import os
import pathlib
import re
import subprocess
import sys
import textwrap

import numpy as np
import pytest
import tensorflow as tf

import tf_gnc
from tf_gnc import threads

ROOT = pathlib.Path(__file__).parent.parent


@pytest.mark.parametrize(
    "value", [0, -1, 2.0, True, False, "2", np.float64(2)], ids=repr
)
def test_set_threads__bad_number__error_holds_it(value):
    message = f"got num_threads={value!r}."
    with pytest.raises(ValueError, match=re.escape(message)):
        tf_gnc.set_threads(value)


def test_set_threads__tensorflow_runs_already__says_too_late_with_numbers():
    tf.constant(1)  # starts it, if no other test has
    inter = tf.config.threading.get_inter_op_parallelism_threads()
    intra = tf.config.threading.get_intra_op_parallelism_threads()
    message = (
        "came too late: TensorFlow has started with "
        f"{inter} inter-op and {intra} intra-op threads"
    )
    with pytest.raises(RuntimeError, match=re.escape(message)):
        tf_gnc.set_threads(inter + 7)
    # Refused means untouched.
    assert tf.config.threading.get_inter_op_parallelism_threads() == inter
    assert tf.config.threading.get_intra_op_parallelism_threads() == intra


def test_set_threads__in_time__is_in_force_and_may_be_repeated():
    script = """
        import keras, tf_gnc  # as the README's example
        from sklearn.datasets import load_digits

        import tensorflow as tf
        tf.config.list_physical_devices()  # lists devices, starts nothing
        tf_gnc.set_threads()
        from tf_gnc import threads
        from tf_gnc.step import workers
        get = tf.config.threading
        print(get.get_inter_op_parallelism_threads() == threads.num_cores())
        tf_gnc.set_threads(3)  # still in time
        tf.constant(1)
        print(get.get_inter_op_parallelism_threads())
        print(get.get_intra_op_parallelism_threads())
        tf_gnc.set_threads(3)  # nothing to change
        print(workers.num_parallel(8, 1))
        try:
            tf_gnc.set_threads(2)
        except RuntimeError as error:
            print(error)
    """
    result = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)],
        cwd=ROOT,
        env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "2"},
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert result.returncode == 0, result.stderr
    default, inter, intra, parallel, error = result.stdout.splitlines()
    assert (default, inter, intra, parallel) == ("True", "3", "1", "3")
    assert "3 inter-op and 1 intra-op threads" in error


def test_num_cores__process_bound_to_some_cores__counts_those(monkeypatch):
    monkeypatch.setattr(
        os, "sched_getaffinity", lambda pid: {0, 3, 5}, raising=False
    )
    monkeypatch.setattr(os, "cpu_count", lambda: 64)
    assert threads.num_cores() == 3


@pytest.mark.parametrize(("count", "expected"), [(64, 64), (None, 1)])
def test_num_cores__system_without_affinity__counts_all(
    monkeypatch, count, expected
):
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: count)
    assert threads.num_cores() == expected
