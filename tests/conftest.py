"""Four logical CPUs stand in for devices; files run side by side."""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ.setdefault("MPLBACKEND", "agg")

import pytest

# These share what a few processes have done together; see their conftest.
TOGETHER = [
    f"tests/distribute/test_{name}.py"
    for name in (
        "several_processes",
        "cluster_check",
        "sharding",
        "chief",
        "collectives",
        "analysis",
        "probe_rows",
        "recorded_run",
        "elastic",
    )
]

# Begun first, so that no worker is left alone with one of them at the end.
SLOWEST = TOGETHER + [
    f"tests/{name}.py"
    for name in (
        "callbacks/test_backup",
        "test_kill",
        "cli/test_on_ray",
        "cli/test_compare",
        "experiments/loggers/test_loggers",
        "step/test_train_step",
        "test_keras_compat",
        "test_notebooks",
        "distribute/test_strategies",
        "cli/test_analyze",
        "test_docs",
    )
]


def _file_of(nodeid):
    return nodeid.split("::")[0]


def pytest_configure(config):
    """Makes the logical CPUs, where tests run."""
    if getattr(config.option, "dist", "no") != "no":
        return  # it only hands out tests: spared the start of TensorFlow
    import tensorflow as tf

    if hasattr(config, "workerinput"):
        # The workers have the cores among them already.
        tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.set_logical_device_configuration(
        tf.config.list_physical_devices("CPU")[0],
        [tf.config.LogicalDeviceConfiguration() for _ in range(4)],
    )


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers(config):
    """A worker per core; none for a single file, which is quicker alone."""
    files = {_file_of(argument) for argument in config.args}
    if len(files) == 1 and files.pop().endswith(".py"):
        return 0
    return len(os.sched_getaffinity(0))


def pytest_collection_modifyitems(items):
    """Puts the slowest files first; each file's tests keep their order."""
    rank = {file: n for n, file in enumerate(SLOWEST)}
    items.sort(key=lambda item: rank.get(_file_of(item.nodeid), len(rank)))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """Gives whole files to the workers: a module's fixtures are made once."""
    from xdist.scheduler import LoadScopeScheduling

    class ByFile(LoadScopeScheduling):
        def _split_scope(self, nodeid):
            file = _file_of(nodeid)
            return "together" if file in TOGETHER else file

    config.option.loadscopereorder = False
    return ByFile(config, log)


@pytest.fixture(autouse=True)
def _fresh_keras():
    """Same random weights in every test, and no policy left by another."""
    import keras

    keras.utils.set_random_seed(1)
    yield
    keras.config.set_dtype_policy("float32")
    keras.backend.clear_session(free_memory=False)


@pytest.fixture(scope="session")
def digits_dir(tmp_path_factory):
    """A directory with the digits prepared, instead of the user's own."""
    from tf_gnc import data

    path = tmp_path_factory.mktemp("digits")
    data.load("digits", path)
    return str(path)
