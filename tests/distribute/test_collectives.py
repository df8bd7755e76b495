"""What processes tell each other outside the step.

Functions that take a strategy and a folder are scenarios; see
tests/processes.py.
"""

import atexit
import time

import pytest
import tensorflow as tf

from tests import problems
from tf_gnc.distribute import collectives, process_index

LARGE = 2**62


def talk(strategy, folder):
    index = process_index(strategy)
    return {
        "gather": collectives.gather(strategy, LARGE + index),
        "from_chief": collectives.from_chief(strategy, 5 + index),
        "all_well": collectives.barrier(strategy),
        "one_bad": collectives.barrier(strategy, good=index != 1),
    }


def waits(strategy, folder):
    """The first process comes late; the other must not pass before it."""
    if process_index(strategy) == 0:
        time.sleep(0.5)
        (folder / "came").touch()
    collectives.barrier(strategy)
    return (folder / "came").exists()


SCENARIOS = [talk, waits]

EXPECTED = {
    "gather": [LARGE, LARGE + 1],
    "from_chief": 5,
    "all_well": [],
    "one_bad": [1],
}


def test_gather__two_processes__all_hear_all_in_order(two_processes):
    assert two_processes[talk] == [EXPECTED, EXPECTED]


def test_gather__two_replicas_in_each__one_number_for_each(two_times_two):
    assert two_times_two[talk] == [EXPECTED, EXPECTED]


def test_barrier__one_comes_late__the_other_waits(two_processes):
    assert two_processes[waits] == [True, True]


@pytest.mark.parametrize("replicas", [1, 2])
def test_gather__one_process__is_its_own(replicas):
    with problems.mirrored(replicas):
        strategy = tf.distribute.get_strategy()
    assert collectives.gather(strategy, 3) == [3]
    assert collectives.from_chief(strategy, 3) == 3
    assert collectives.barrier(strategy) == []
    assert collectives.barrier(strategy, good=False) == [0]


def test_linger_at_exit__asked_twice__stays_once(monkeypatch):
    asked = []
    monkeypatch.setattr(atexit, "register", lambda *call: asked.append(call))
    collectives.linger_at_exit.cache_clear()
    collectives.linger_at_exit()
    collectives.linger_at_exit()
    assert asked == [(time.sleep, collectives._LINGER_SECONDS)]
    collectives.linger_at_exit.cache_clear()
