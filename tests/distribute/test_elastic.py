"""A run that is killed and taken up by other numbers of replicas.

Functions that take a strategy and a folder are scenarios; see
tests/processes.py.
"""

import contextlib
import io
import os

import numpy as np
import pytest
import tensorflow as tf

from tests import processes
from tests.callbacks import exact
from tf_gnc.distribute import num_processes

# The step after which a run is killed, by the processes: two, one, three.
KILLED = {2: 7, 1: 11, 3: None}


def _names(folder):
    return sorted(os.listdir(folder / "backup"))


def elastic(strategy, folder):
    options = {**exact.ELASTIC, "strategy": strategy}
    told = io.StringIO()
    with contextlib.redirect_stderr(told):
        found = exact.attempt(folder, KILLED[num_processes(strategy)], options)
    return found, told.getvalue(), _names(folder)


def go_on_alone(folder):
    """One life in this process, between those in several."""
    folder = folder / processes.name_of(elastic)
    killed, _, _ = elastic(tf.distribute.get_strategy(), folder)
    assert killed is None


def _attempt(folder, when, replicas):
    return exact.attempt(folder, when, {**exact.ELASTIC, "replicas": replicas})


def _assert_same_run(found, reference):
    for ours, theirs in zip(found[0], reference[0], strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(
        found[1]["loss"], reference[1]["loss"], rtol=1e-5
    )


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    return _attempt(tmp_path_factory.mktemp("calm"), None, 1)


def test_elastic__replicas_2_1_4__is_the_run(undisturbed, tmp_path):
    for when, replicas in ((3, 2), (7, 1)):
        assert _attempt(tmp_path, when, replicas) is None
    _assert_same_run(_attempt(tmp_path, None, 4), undisturbed)


def test_elastic__processes_2_1_3__is_the_run(
    undisturbed, two_processes, in_three_processes
):
    for found, _, names in two_processes[elastic]:
        assert found is None
        assert names[-1] == "step-000000000006"
    for found, _, _ in in_three_processes[elastic]:
        _assert_same_run(found, undisturbed)
    assert "Goes on at step 10" in in_three_processes[elastic][0][1]
