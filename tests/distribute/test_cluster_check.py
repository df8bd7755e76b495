"""`doctor.cluster` where all is well, and where a process is another.

Functions that take a strategy and a folder are scenarios; see
tests/processes.py.
"""

import functools
from unittest import mock

import numpy as np
import pytest
import tensorflow as tf

import tf_gnc
from tests import problems
from tf_gnc.distribute import process_index
from tf_gnc.doctor import cluster


def _said(strategy):
    report = cluster.check_cluster(strategy)
    names = [check.name for check in report.checks]
    return report.ok, names, cluster.sentence(report, strategy)


def ready(strategy, folder):
    return _said(strategy)


def _in_process_1(strategy, name, value):
    """Has the check use something else there."""
    there = process_index(strategy) == 1
    value = value if there else getattr(cluster, name)
    with mock.patch.object(cluster, name, value):
        return _said(strategy)


def other_noise(strategy, folder):
    other = functools.partial(tf_gnc.GradientNoise, center=False)
    return _in_process_1(strategy, "GradientNoise", other)


def no_model(strategy, folder):
    return _in_process_1(strategy, "_network", lambda: 1 / 0)


def other_software(strategy, folder):
    other = {**cluster.software(), "Keras": "3.9", "the code of tf_gnc": "x"}
    return _in_process_1(strategy, "software", lambda: other)


SCENARIOS = [ready, other_noise, no_model, other_software]


def test_check__two_processes__are_ready(two_processes):
    for said in two_processes[ready]:
        ok, names, sentence = said
        assert ok, sentence
        assert names == ["software", "alone", "together"]
        assert sentence == (
            "Ready: 2 processes with 2 replicas in all train as one."
        )


@pytest.mark.parametrize(
    ("scenario", "last", "sentence"),
    [
        (other_noise, "alone", "process 1 computed other weights than process "
         "0, each by itself"),
        (no_model, "alone", "training failed in process 1"),
        (other_software, "software", "not the same as in process 0: Keras of "
         "process 1"),
    ],
)  # fmt: skip
def test_check__one_process_is_another__all_say_which(
    two_processes, scenario, last, sentence
):
    for ok, names, said in two_processes[scenario]:
        assert not ok and names[-1] == last
        assert said.startswith(f"Not ready: {sentence}"), said
    here = two_processes[other_software][0][2]
    assert "the code of tf_gnc of process 1." in here
    assert "ZeroDivisionError" in two_processes[no_model][1][2]


def test_check__replicas_that_are_not_summed__are_not_ready(monkeypatch):
    with problems.mirrored(2):
        strategy = tf.distribute.get_strategy()
    assert _said(strategy)[0]
    monkeypatch.setattr(
        tf.distribute.ReplicaContext,
        "all_reduce",
        lambda self, op, value, options=None: value,
    )
    ok, names, sentence = _said(strategy)
    assert not ok and names[-1] == "together"
    assert "Sums over the devices are wrong" in sentence


def test_far__rows__are_those_beyond_the_tolerance_or_nan():
    rows = np.array([[0.0, 0.0], [9e-4, 0.0], [-2e-3, 0.0], [np.nan, 0.0]])
    assert cluster._far(rows, 1.0) == [2, 3]
