"""Which `tf.distribute` strategy: by name, or by what the machine offers."""

from collections.abc import Mapping, Sequence

import tensorflow as tf

from tf_gnc import _check
from tf_gnc.distribute import collectives
from tf_gnc.distribute.environment import (
    TRAINING_JOBS,
    Cluster,
    find_cluster,
    tpu_name,
)
from tf_gnc.distribute.logical import split_device

STRATEGIES = ("auto", "none", "one_device", "mirrored", "multi_worker", "tpu")
COMMUNICATIONS = ("auto", "ring", "nccl")


def make_strategy(
    name: str = "auto",
    *,
    devices: Sequence[str] | None = None,
    communication: str = "auto",
    logical_devices: int | None = None,
) -> tf.distribute.Strategy:
    """Returns a distribution strategy; call it before any TensorFlow operation.

    `"auto"` is the first of these that applies: `"multi_worker"` if TF_CONFIG
    names several tasks (as Vertex AI, Kubeflow and `tf-gnc launch` have it),
    or if Slurm's `srun` has started several; `"tpu"` if there is one;
    `"mirrored"` if there are several GPUs; `"none"`. A TF_CONFIG with a single
    task counts as none.

    Args:
        name: `"auto"`; `"none"`, TensorFlow's default strategy;
            `"one_device"`; `"mirrored"`, all GPUs of this machine, or the
            `devices`; `"multi_worker"`, all devices of all processes;
            `"tpu"`, the one that TPU_NAME or COLAB_TPU_ADDR names, or else
            that of this machine.
        devices: For `"mirrored"`, such as `["GPU:0", "GPU:1"]`, and for
            `"one_device"`, such as `["CPU:0"]`; there the default is the first
            GPU, or the CPU.
        communication: How the processes of `"multi_worker"` reduce:
            `"nccl"`, `"ring"`, or `"auto"`, which is NCCL if there are GPUs.
        logical_devices: Divides this process's GPU, or its CPU if it has none,
            into so many replicas, each with its share of the memory; with
            `"auto"` and `"mirrored"`.

    Raises:
        ValueError: If an argument, the environment or the hardware doesn't
            allow it; the message says which, and what to do.
        RuntimeError: If TensorFlow has started too early for several
            processes, or a TPU doesn't start.

    Example:
        >>> make_strategy("one_device", devices=["CPU:0"]).num_replicas_in_sync
        1
    """
    name = _check.choice("name", name, STRATEGIES)
    _check.choice("communication", communication, COMMUNICATIONS)
    if devices is not None and name not in ("mirrored", "one_device"):
        raise ValueError(
            "`devices` must be None unless the strategy is 'mirrored' or "
            f"'one_device', got devices={devices!r} with name={name!r}."
        )
    if logical_devices is not None:
        if devices is not None or name not in ("auto", "mirrored"):
            raise ValueError(
                "`logical_devices` goes with 'auto' and 'mirrored', without "
                f"`devices`, got logical_devices={logical_devices} with "
                f"name={name!r} and devices={devices!r}."
            )
        name, devices = "mirrored", split_device(logical_devices)
    if communication != "auto" and name not in ("auto", "multi_worker"):
        raise ValueError(
            "`communication` must be 'auto' unless the strategy is "
            f"'multi_worker', got communication={communication!r} with "
            f"name={name!r}."
        )
    cluster = find_cluster() if name in ("auto", "multi_worker") else None
    if name == "auto":
        name = "multi_worker" if cluster else _on_this_machine()
    if name == "multi_worker":
        return _multi_worker(cluster, communication)
    if name == "mirrored":
        return _mirrored(devices)
    if name == "one_device":
        return _one_device(devices)
    return _tpu() if name == "tpu" else tf.distribute.get_strategy()


def process_index(strategy: tf.distribute.Strategy) -> int:
    """Returns this process's index in the strategy, 0 if it is alone.

    Replicas are in the same order.
    """
    jobs = _jobs(strategy)
    resolver = strategy.cluster_resolver
    if not jobs or resolver.task_type == "chief":
        return 0
    return len(jobs.get("chief", ())) + resolver.task_id


def num_processes(strategy: tf.distribute.Strategy) -> int:
    """Returns how many processes a strategy's replicas live in."""
    jobs = _jobs(strategy)
    return sum(len(jobs.get(job, ())) for job in TRAINING_JOBS) or 1


def is_chief(strategy: tf.distribute.Strategy) -> bool:
    """Tells whether this process is the one that writes and prints."""
    return process_index(strategy) == 0


def _jobs(strategy: tf.distribute.Strategy) -> Mapping[str, Sequence[str]]:
    """Returns the addresses by job; none if there is a single process.

    One process drives all of a TPU's hosts, so those don't count.
    """
    if not isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy):
        return {}
    return strategy.cluster_resolver.cluster_spec().as_dict()


def _on_this_machine() -> str:
    if tpu_name():
        return "tpu"
    several = len(tf.config.get_visible_devices("GPU")) > 1
    return "mirrored" if several else "none"


def _multi_worker(
    cluster: Cluster | None, communication: str
) -> tf.distribute.Strategy:
    if cluster is None:
        raise ValueError(
            "The strategy 'multi_worker' needs a cluster of several processes, "
            "got neither a TF_CONFIG with more than one task nor a Slurm step "
            "with more than one. Start the script with `tf-gnc launch` or "
            "`srun`, set TF_CONFIG for each process, or use 'auto'."
        )
    num_gpus = len(tf.config.get_visible_devices("GPU"))
    if communication == "nccl" and not num_gpus:
        raise ValueError(
            "`communication` must be 'auto' or 'ring' on a machine without "
            "GPUs, got communication='nccl'."
        )
    if communication == "auto":
        communication = "nccl" if num_gpus else "ring"
    options = tf.distribute.experimental
    try:
        made = tf.distribute.MultiWorkerMirroredStrategy(
            # TensorFlow's own reader of TF_CONFIG would wait for parameter
            # servers and evaluators too.
            tf.distribute.cluster_resolver.SimpleClusterResolver(
                tf.train.ClusterSpec(cluster.jobs),
                task_type=cluster.task_type,
                task_id=cluster.task_id,
                num_accelerators={"GPU": num_gpus} if num_gpus else {},
                rpc_layer="grpc",
            ),
            options.CommunicationOptions(
                implementation=options.CommunicationImplementation(
                    communication.upper()
                )
            ),
        )
    except RuntimeError as error:
        if "program startup" not in str(error):
            raise
        raise RuntimeError(
            "A strategy for several processes must be made before TensorFlow "
            "starts, but an operation has run or devices have been listed "
            "already. Call `make_strategy` first in your script, right after "
            "`tf_gnc.set_threads`."
        ) from error
    collectives.take_sigterm_back()
    return made


def _mirrored(devices: Sequence[str] | None) -> tf.distribute.Strategy:
    if devices is None and not tf.config.get_visible_devices("GPU"):
        raise ValueError(
            "The strategy 'mirrored' needs a GPU, and there is none. Use "
            "'none', or name the devices, devices=['CPU:0', 'CPU:1']."
        )
    if devices is None:
        return tf.distribute.MirroredStrategy()
    names = _present(devices)
    on_cpu = names[0].startswith("CPU")
    on_one = on_cpu or len(tf.config.get_visible_devices("GPU")) == 1
    return tf.distribute.MirroredStrategy(
        names,
        # TensorFlow's own choice for CPUs can't have groups of two sizes in a
        # process, and NCCL refuses two devices on one GPU.
        cross_device_ops=(
            tf.distribute.ReductionToOneDevice() if on_one else None
        ),
    )


def _one_device(devices: Sequence[str] | None) -> tf.distribute.Strategy:
    if devices is None:
        gpu = tf.config.get_visible_devices("GPU")
        devices = ["GPU:0" if gpu else "CPU:0"]
    names = _present(devices)
    if len(names) > 1:
        raise ValueError(
            "The strategy 'one_device' needs one device, got "
            f"devices={devices!r}. Use 'mirrored' for several."
        )
    return tf.distribute.OneDeviceStrategy(names[0])


def _present(devices: Sequence[str]) -> list[str]:
    """Returns the devices as "CPU:0" or "GPU:0", if all of them exist."""
    present = [
        ":".join(device.name.split(":")[-2:])
        for device in tf.config.list_logical_devices()
    ]
    listed = [] if isinstance(devices, str) else list(devices)
    names = [str(d).upper().split("/")[-1] for d in listed]
    names = [n.removeprefix("DEVICE:") for n in names]
    if not names or len(set(names)) < len(names):
        raise ValueError(
            "`devices` must be a list of one or more different devices, got "
            f"devices={devices!r}."
        )
    if set(names) - set(present) or len({n.split(":")[0] for n in names}) > 1:
        raise ValueError(
            "`devices` must be of one kind and among those of this process, "
            f"{', '.join(present)}, got devices={devices!r}. For several CPUs "
            "call tf.config.set_logical_device_configuration before "
            "TensorFlow starts, with one tf.config.LogicalDeviceConfiguration "
            "for each."
        )
    return names


def _tpu() -> tf.distribute.Strategy:
    name = tpu_name()
    if name is None:
        raise ValueError(
            "The strategy 'tpu' needs a TPU, and there is none: neither "
            "TPU_NAME nor COLAB_TPU_ADDR is set, and this machine has no TPU "
            "that TensorFlow sees. Set TPU_NAME (to 'local' on a TPU VM, with "
            "the package tensorflow-tpu installed), or use 'auto'."
        )
    try:
        resolver = tf.distribute.cluster_resolver.TPUClusterResolver(tpu=name)
        tf.config.experimental_connect_to_cluster(resolver)
        tf.tpu.experimental.initialize_tpu_system(resolver)
    except (
        ImportError,
        OSError,
        RuntimeError,
        ValueError,
        tf.errors.OpError,
    ) as error:
        raise RuntimeError(
            f"The TPU {name!r} did not start: {error} Check that TPU_NAME is "
            "its name, its grpc://host:port, or 'local' on a TPU VM, and that "
            "no other process uses it."
        ) from error
    return tf.distribute.TPUStrategy(resolver)
