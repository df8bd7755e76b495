"""One start of two processes for all that is to be seen there."""

import pytest

from tests import processes
from tests.distribute import (
    test_analysis,
    test_chief,
    test_collectives,
    test_probe_rows,
    test_recorded_run,
    test_several_processes,
    test_sharding,
)

MODULES = (test_several_processes, test_sharding, test_chief, test_collectives)


@pytest.fixture(scope="session")
def two_processes():
    scenarios = [s for module in MODULES for s in module.SCENARIOS]
    return processes.run(scenarios, num_processes=2)


@pytest.fixture(scope="session")
def two_that_measure():
    # Not with all other scenarios, which have a limit of time together.
    scenarios = [test_analysis.measures, *test_probe_rows.SCENARIOS]
    scenarios.append(test_recorded_run.recorded)
    return processes.run(scenarios, num_processes=2)


@pytest.fixture(scope="session")
def two_times_two():
    scenarios = [
        test_several_processes.switch,
        test_several_processes.shuffled,
        test_sharding.uneven_evaluation,
        test_collectives.talk,
    ]
    return processes.run(scenarios, num_processes=2, replicas=2)


@pytest.fixture(scope="session")
def in_four_processes():
    scenarios = [test_several_processes.shuffled]
    return processes.run(scenarios, num_processes=4)
