"""Strategies by name and by environment; fakes stand in for hardware."""

import json
import os
import re
import signal
import subprocess
import sys
import textwrap

import pytest
import tensorflow as tf

from tf_gnc.distribute import (
    environment,
    is_chief,
    make_strategy,
    num_processes,
    process_index,
    strategies,
)
from tf_gnc.launch import addresses

HOSTS = ["a:1", "b:1", "c:1"]
ONE_NODE = {
    "SLURM_PROCID": "1",
    "SLURM_STEP_NUM_TASKS": "2",
    "SLURM_STEP_NODELIST": "node7",
    "SLURM_STEP_TASKS_PER_NODE": "2",
    "SLURM_JOB_ID": "203",
    "SLURMD_NODENAME": "node7",
}


@pytest.fixture(autouse=True)
def _empty_environment(monkeypatch):
    for name in list(os.environ):
        if name.startswith(("SLURM", "TPU_", "COLAB_", "TF_CONFIG")):
            monkeypatch.delenv(name)


@pytest.fixture
def made(monkeypatch):
    """What TensorFlow is asked for: (class name, arguments), in order."""
    calls = []

    def fake(name):
        def make(*args, **kwargs):
            calls.append((name, args, kwargs))
            return name

        return make

    for name in ("MultiWorkerMirroredStrategy", "MirroredStrategy"):
        monkeypatch.setattr(tf.distribute, name, fake(name))
    monkeypatch.setattr(tf.distribute, "TPUStrategy", fake("TPUStrategy"))
    monkeypatch.setattr(
        tf.distribute.cluster_resolver,
        "TPUClusterResolver",
        fake("TPUClusterResolver"),
    )
    monkeypatch.setattr(
        tf.config, "experimental_connect_to_cluster", fake("connect")
    )
    monkeypatch.setattr(
        tf.tpu.experimental, "initialize_tpu_system", fake("initialize")
    )
    return calls


@pytest.fixture
def gpus(monkeypatch):
    """Call it with a number to have as many GPUs; lists what is visible."""
    visible = []

    def set_gpus(count):
        visible[:] = [f"gpu{n}" for n in range(count)]

    def take(devices, kind):
        assert kind == "GPU"
        visible[:] = devices

    monkeypatch.setattr(
        tf.config,
        "get_visible_devices",
        lambda kind: list(visible) if kind == "GPU" else [],
    )
    monkeypatch.setattr(tf.config, "set_visible_devices", take)
    set_gpus.visible = visible
    return set_gpus


def _set_tf_config(monkeypatch, jobs, job="worker", index=0, **more):
    config = {"cluster": jobs, "task": {"type": job, "index": index}, **more}
    monkeypatch.setenv("TF_CONFIG", json.dumps(config))


def _resolver_and_options(made):
    ((name, (resolver, options), _),) = made
    assert name == "MultiWorkerMirroredStrategy"
    return resolver, options


def test_make_strategy__auto_with_nothing_special__is_the_default_strategy():
    assert make_strategy() is tf.distribute.get_strategy()
    assert make_strategy("none") is tf.distribute.get_strategy()


def test_make_strategy__auto_with_two_gpus__mirrors(made, gpus):
    gpus(1)
    assert make_strategy() is tf.distribute.get_strategy()
    gpus(2)
    assert make_strategy() == "MirroredStrategy"


@pytest.mark.parametrize("index", [1, "1"])
def test_make_strategy__tf_config_of_several__leaves_out_who_trains_not(
    index, made, gpus, monkeypatch
):
    jobs = {"ps": ["p:1"], "worker": HOSTS, "evaluator": ["e:1"]}
    _set_tf_config(monkeypatch, jobs, index=index, environment="cloud")
    gpus(2)
    assert make_strategy() == "MultiWorkerMirroredStrategy"
    resolver, options = _resolver_and_options(made)
    assert resolver.cluster_spec().as_dict() == {"worker": HOSTS}
    assert (resolver.task_type, resolver.task_id) == ("worker", 1)
    assert resolver.num_accelerators() == {"GPU": 2}
    assert options.implementation.value == "NCCL"


@pytest.mark.parametrize(
    ("asked", "num_gpus", "expected"),
    [("auto", 0, "RING"), ("ring", 2, "RING"), ("nccl", 1, "NCCL")],
)
def test_make_strategy__communication__fits_the_hardware(
    asked, num_gpus, expected, made, gpus, monkeypatch
):
    _set_tf_config(monkeypatch, {"worker": HOSTS})
    gpus(num_gpus)
    make_strategy("multi_worker", communication=asked)
    _, options = _resolver_and_options(made)
    assert options.implementation.value == expected


def test_make_strategy__tf_config_of_our_launcher__is_understood(
    made, monkeypatch
):
    monkeypatch.setenv("TF_CONFIG", addresses.tf_config(HOSTS, 2))
    make_strategy()
    resolver, _ = _resolver_and_options(made)
    assert resolver.cluster_spec().as_dict() == {"worker": HOSTS}
    assert resolver.task_id == 2


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{}",
        '{"cluster": {}, "task": {"type": "worker", "index": 0}}',
        '{"cluster": {"chief": ["a:1"]}, "task": {"type": "chief", "index":0}}',
    ],
)
def test_make_strategy__tf_config_with_one_task__acts_as_not_set(
    text, made, monkeypatch
):
    monkeypatch.setenv("TF_CONFIG", text)
    assert make_strategy() is tf.distribute.get_strategy()
    with pytest.raises(ValueError, match="`tf-gnc launch` or `srun`"):
        make_strategy("multi_worker")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "must be JSON, but Expecting property name"),
        ("[]", "must be a JSON object"),
        ('{"cluster": ["a:1"]}', "`cluster` maps jobs to lists"),
        ('{"cluster": {"worker": "a:1"}}', "`cluster` maps jobs to lists"),
        ('{"cluster": {"master": ["a:1"]}}', "no jobs but chief, worker"),
        ('{"cluster": {"chief": ["a:1", "b:1"]}}', "one chief at most"),
        ('{"cluster": {"worker": ["a:1", "b:1"]}}', "`task` has `type`"),
        (
            '{"cluster": {"worker": ["a:1", "b:1"]}, "task": ["worker", 0]}',
            "`task` has `type`",
        ),
        (
            '{"cluster": {"worker": ["a:1", "b:1"]}, '
            '"task": {"type": "worker", "index": 2}}',
            "`task` is one of `cluster`",
        ),
        (
            '{"cluster": {"worker": ["a:1", "b:1"]}, '
            '"task": {"type": "chief", "index": 0}}',
            "`task` is one of `cluster`",
        ),
        (
            '{"cluster": {"worker": ["a:1", "b:1"]}, '
            '"task": {"type": ["worker"], "index": 0}}',
            "`task` is one of `cluster`",
        ),
    ],
)
def test_make_strategy__malformed_tf_config__error_says_what_is_wrong(
    text, message, made, monkeypatch
):
    monkeypatch.setenv("TF_CONFIG", text)
    for name in ("auto", "multi_worker"):
        with pytest.raises(ValueError, match=message) as info:
            make_strategy(name)
        assert f"got TF_CONFIG={text!r}" in str(info.value)
    assert made == []


@pytest.mark.parametrize("job", ["ps", "evaluator"])
def test_make_strategy__task_that_does_not_train__error_names_it(
    job, monkeypatch
):
    _set_tf_config(monkeypatch, {"chief": ["a:1"], job: ["b:1"]}, job)
    with pytest.raises(ValueError, match=f"got a task of type '{job}'"):
        make_strategy()


def test_make_strategy__slurm_step_with_gpus__takes_its_share(
    made, gpus, monkeypatch
):
    for name, value in {**ONE_NODE, "SLURM_LOCALID": "1"}.items():
        monkeypatch.setenv(name, value)
    gpus(4)
    assert make_strategy() == "MultiWorkerMirroredStrategy"
    resolver, options = _resolver_and_options(made)
    assert resolver.cluster_spec().as_dict() == {
        "worker": ["node7:12300", "node7:12301"]
    }
    assert (resolver.task_type, resolver.task_id) == ("worker", 1)
    assert gpus.visible == ["gpu2", "gpu3"]
    assert resolver.num_accelerators() == {"GPU": 2}
    assert options.implementation.value == "NCCL"


@pytest.mark.parametrize("num_gpus", [0, 1])
def test_make_strategy__slurm_step__leaves_what_the_task_sees(
    num_gpus, made, gpus, monkeypatch
):
    for name, value in ONE_NODE.items():
        monkeypatch.setenv(name, value)
    gpus(num_gpus)
    make_strategy()
    resolver, _ = _resolver_and_options(made)
    assert resolver.num_accelerators().get("GPU", 0) == num_gpus


def test_make_strategy__slurm_has_bound_the_gpus__takes_all(
    made, gpus, monkeypatch
):
    for name, value in {**ONE_NODE, "SLURM_GPUS_PER_TASK": "2"}.items():
        monkeypatch.setenv(name, value)
    gpus(2)
    make_strategy()
    resolver, _ = _resolver_and_options(made)
    assert resolver.num_accelerators() == {"GPU": 2}


@pytest.mark.parametrize(
    "variables",
    [
        {"SLURM_NTASKS": "8"},  # a login shell
        {"SLURM_NTASKS": "1", "SLURM_PROCID": "0"},
        # One task of its own inside a larger job.
        {"SLURM_NTASKS": "8", "SLURM_PROCID": "0", "SLURM_STEP_NUM_TASKS": "1"},
    ],
)
def test_make_strategy__slurm_without_several_tasks__is_the_default(
    variables, monkeypatch
):
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert make_strategy() is tf.distribute.get_strategy()


def test_make_strategy__slurm_job_without_srun__error_says_srun(monkeypatch):
    monkeypatch.setenv("SLURM_NTASKS", "2")
    monkeypatch.setenv("SLURM_PROCID", "0")
    with pytest.raises(ValueError, match="SLURM_STEP_NUM_TASKS.*with `srun`"):
        make_strategy()


def test_make_strategy__slurm_task_on_another_node__error_names_both(
    monkeypatch,
):
    # Alphabetically n10 comes before n9, and Slurm counts the other way.
    for name, value in {
        **ONE_NODE,
        "SLURM_PROCID": "0",
        "SLURM_STEP_NODELIST": "n[9-10]",
        "SLURM_STEP_TASKS_PER_NODE": "1(x2)",
        "SLURMD_NODENAME": "n9",
    }.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ValueError, match="run on n10.*SLURMD_NODENAME=n9"):
        make_strategy()


def test_make_strategy__tf_config_and_slurm__tf_config_decides(
    made, monkeypatch
):
    for name, value in ONE_NODE.items():
        monkeypatch.setenv(name, value)
    _set_tf_config(monkeypatch, {"worker": HOSTS})
    make_strategy()
    resolver, _ = _resolver_and_options(made)
    assert resolver.cluster_spec().as_dict() == {"worker": HOSTS}


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({"TPU_NAME": "mine"}, "mine"),
        ({"TPU_NAME": "local", "COLAB_TPU_ADDR": "1.2.3.4:8"}, "local"),
        ({"COLAB_TPU_ADDR": "1.2.3.4:8"}, "grpc://1.2.3.4:8"),
        ({"COLAB_TPU_ADDR": "grpc://1.2.3.4:8"}, "grpc://1.2.3.4:8"),
    ],
)
@pytest.mark.parametrize("name", ["auto", "tpu"])
def test_make_strategy__tpu_in_the_environment__is_started_in_order(
    name, variables, expected, made, monkeypatch
):
    for variable, value in variables.items():
        monkeypatch.setenv(variable, value)
    assert make_strategy(name) == "TPUStrategy"
    resolver = "TPUClusterResolver"
    assert made == [
        (resolver, (), {"tpu": expected}),
        ("connect", (resolver,), {}),
        ("initialize", (resolver,), {}),
        ("TPUStrategy", (resolver,), {}),
    ]


def test_make_strategy__tpu_in_the_machine__is_local(made, monkeypatch):
    monkeypatch.setattr(
        tf.config, "list_physical_devices", lambda kind: [kind] * 8
    )
    assert make_strategy() == "TPUStrategy"
    assert made[0][2] == {"tpu": "local"}


def test_make_strategy__tpu_does_not_start__error_keeps_the_reason(
    made, monkeypatch
):
    monkeypatch.setenv("TPU_NAME", "mine")

    def fail(resolver):
        raise tf.errors.NotFoundError(None, None, "no cores here")

    monkeypatch.setattr(tf.tpu.experimental, "initialize_tpu_system", fail)
    with pytest.raises(RuntimeError, match="'mine' did not .*no cores here"):
        make_strategy("tpu")


def test_make_strategy__logical_cpus__mirrors_in_groups_of_any_size():
    for count in (2, 3):
        devices = [f"/device:cpu:{n}" for n in range(count)]
        strategy = make_strategy("mirrored", devices=devices)
        assert strategy.num_replicas_in_sync == count

        @tf.function
        def total(strategy=strategy):
            def one():
                context = tf.distribute.get_replica_context()
                mine = context.replica_id_in_sync_group + 1
                return context.all_reduce("SUM", tf.cast(mine, tf.float32))

            return strategy.experimental_local_results(strategy.run(one))

        assert [int(n) for n in total()] == [count * (count + 1) // 2] * count
        assert (process_index(strategy), num_processes(strategy)) == (0, 1)


def test_make_strategy__mirrored_cpus__reduces_without_collectives(made):
    make_strategy("mirrored", devices=["CPU:0", "CPU:1"])
    ((_, (devices,), options),) = made
    assert devices == ["CPU:0", "CPU:1"]
    assert isinstance(
        options["cross_device_ops"], tf.distribute.ReductionToOneDevice
    )


@pytest.mark.parametrize("devices", [None, ["CPU:2"]])
def test_make_strategy__one_device__runs_there(devices):
    strategy = make_strategy("one_device", devices=devices)
    assert isinstance(strategy, tf.distribute.OneDeviceStrategy)
    (device,) = strategy.extended.worker_devices
    assert device.endswith((devices or ["CPU:0"])[0])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {"name": "mirored"},
            "'auto', 'none', 'one_device', 'mirrored', 'multi_worker', 'tpu', "
            "got name='mirored'",
        ),
        ({"communication": "mpi"}, "got communication='mpi'"),
        (
            {"name": "mirrored", "communication": "ring"},
            "got communication='ring' with name='mirrored'",
        ),
        ({"devices": ["CPU:0"]}, "with name='auto'"),
        ({"name": "mirrored"}, "needs a GPU, and there is none"),
        ({"name": "tpu"}, "needs a TPU, and there is none"),
        (
            {"name": "mirrored", "devices": ["CPU:0", "CPU:9"]},
            "CPU:0, CPU:1, CPU:2, CPU:3, got devices=['CPU:0', 'CPU:9']. For "
            "several CPUs call tf.config.set_logical_device_configuration",
        ),
        ({"name": "mirrored", "devices": []}, "got devices=[]"),
        ({"name": "mirrored", "devices": "CPU:0"}, "got devices='CPU:0'"),
        ({"name": "mirrored", "devices": ["CPU:0"] * 2}, "different devices"),
        (
            {"name": "one_device", "devices": ["CPU:0", "CPU:1"]},
            "Use 'mirrored' for several",
        ),
    ],
)
def test_make_strategy__bad_argument_or_hardware__error_says_what_to_do(
    arguments, message
):
    with pytest.raises(ValueError, match=re.escape(message)):
        make_strategy(**arguments)


def test_make_strategy__nccl_without_gpus__error(monkeypatch):
    _set_tf_config(monkeypatch, {"worker": HOSTS})
    with pytest.raises(ValueError, match="got communication='nccl'"):
        make_strategy(communication="nccl")


def test_make_strategy__cluster_after_tensorflow_started__says_call_it_first(
    monkeypatch,
):
    tf.constant(1)
    _set_tf_config(monkeypatch, {"worker": ["127.0.0.1:1", "127.0.0.1:2"]})
    with pytest.raises(RuntimeError, match="Call `make_strategy` first"):
        make_strategy("multi_worker")


@pytest.mark.parametrize(
    ("jobs", "task", "expected"),
    [
        ({"chief": ["a:1"], "worker": HOSTS[1:]}, ("chief", 0), (0, 3)),
        ({"chief": ["a:1"], "worker": HOSTS[1:]}, ("worker", 0), (1, 3)),
        ({"chief": ["a:1"], "worker": HOSTS[1:]}, ("worker", 1), (2, 3)),
        ({"worker": HOSTS}, ("worker", 0), (0, 3)),
        ({"worker": HOSTS}, ("worker", 2), (2, 3)),
    ],
)
def test_process_index__task_of_a_cluster__counts_the_chief_first(
    jobs, task, expected, monkeypatch
):
    class Fake:
        cluster_resolver = tf.distribute.cluster_resolver.SimpleClusterResolver(
            tf.train.ClusterSpec(jobs), task_type=task[0], task_id=task[1]
        )

    monkeypatch.setattr(tf.distribute, "MultiWorkerMirroredStrategy", Fake)
    assert (process_index(Fake()), num_processes(Fake())) == expected
    assert is_chief(Fake()) == (expected[0] == 0)


@pytest.mark.parametrize("name", ["none", "one_device"])
def test_process_index__single_process__is_the_chief_of_one(name):
    strategy = make_strategy(name)
    assert (process_index(strategy), num_processes(strategy)) == (0, 1)
    assert is_chief(strategy)


def test_lists__of_names__are_those_that_are_checked():
    assert strategies.STRATEGIES[0] == strategies.COMMUNICATIONS[0] == "auto"
    assert environment.TRAINING_JOBS == ("chief", "worker")


TWO_PROCESSES = """
    import sys
    sys.argv = ["tf-gnc"]  # so that tf_gnc imports no more than is asked for
    import tensorflow as tf
    from tf_gnc.distribute import is_chief, make_strategy, num_processes
    from tf_gnc.distribute import process_index

    strategy = make_strategy()

    @tf.function
    def share():
        def mine():
            context = tf.distribute.get_replica_context()
            index = context.replica_id_in_sync_group
            return context.all_reduce("SUM", index + 1), index
        return strategy.run(mine)

    total, replica = share()
    options = strategy.extended._communication_options
    print(int(total), int(replica), process_index(strategy),
          num_processes(strategy), is_chief(strategy),
          options.implementation.value)
"""


def test_make_strategy__two_real_processes__meet_in_the_order_of_replicas():
    first, second = addresses.free_ports(2)
    jobs = {
        "chief": [f"127.0.0.1:{first}"],
        "worker": [f"127.0.0.1:{second}"],
        # Listens nowhere, and must not be waited for.
        "evaluator": ["127.0.0.1:1"],
    }
    processes = []
    try:
        for job in ("chief", "worker"):
            config = {"cluster": jobs, "task": {"type": job, "index": 0}}
            processes.append(
                subprocess.Popen(
                    [sys.executable, "-c", textwrap.dedent(TWO_PROCESSES)],
                    env={
                        **os.environ,
                        "TF_CONFIG": json.dumps(config),
                        "TF_CPP_MIN_LOG_LEVEL": "2",
                        "CUDA_VISIBLE_DEVICES": "",
                    },
                    stdout=subprocess.PIPE,
                    stderr=subprocess.PIPE,
                    text=True,
                )
            )
        said = [process.communicate(timeout=120) for process in processes]
    finally:
        for process in processes:
            process.kill()
            process.wait()
    for process, (_, err) in zip(processes, said, strict=True):
        assert process.returncode == 0, err
    assert said[0][0].split() == ["3", "0", "0", "2", "True", "RING"]
    assert said[1][0].split() == ["3", "1", "1", "2", "False", "RING"]


def test_take_sigterm_back__pythons_own_handler__is_in_force_again():
    source = (
        "import ctypes, os, signal\n"
        "from tf_gnc.distribute import collectives\n"
        "ctypes.CDLL(None).signal(signal.SIGTERM, ctypes.c_void_p(1))\n"
        "os.kill(os.getpid(), signal.SIGTERM)\n"
        "print('ignored', flush=True)\n"
        "collectives.take_sigterm_back()\n"
        "os.kill(os.getpid(), signal.SIGTERM)\n"
        "print('ignored again')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", source],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.stdout == "ignored\n", done.stderr
    assert done.returncode == -signal.SIGTERM
