"""One start of so many processes for all that is to be seen there."""

import pytest

from tests import processes
from tests.distribute import (
    test_analysis,
    test_chief,
    test_cluster_check,
    test_collectives,
    test_elastic,
    test_probe_rows,
    test_recorded_run,
    test_several_processes,
    test_sharding,
)

MODULES = (
    test_several_processes,
    test_sharding,
    test_chief,
    test_cluster_check,
    test_collectives,
    test_probe_rows,
)


@pytest.fixture(scope="session")
def shared_folder(tmp_path_factory):
    """What the two processes leave there is taken up by others."""
    return tmp_path_factory.mktemp("shared")


@pytest.fixture(scope="session")
def two_processes(shared_folder):
    scenarios = [s for module in MODULES for s in module.SCENARIOS]
    scenarios += [test_analysis.measures, test_recorded_run.recorded]
    scenarios.append(test_elastic.elastic)
    return processes.run(scenarios, num_processes=2, shared=shared_folder)


@pytest.fixture(scope="session")
def two_times_two():
    scenarios = [
        test_several_processes.switch,
        test_several_processes.shuffled,
        test_sharding.uneven_arrays,
        test_collectives.talk,
    ]
    return processes.run(scenarios, num_processes=2, replicas=2)


@pytest.fixture(scope="session")
def in_three_processes(two_processes, shared_folder):
    test_elastic.go_on_alone(shared_folder)
    scenarios = [test_several_processes.shuffled, test_elastic.elastic]
    return processes.run(scenarios, num_processes=3, shared=shared_folder)
