"""The cluster as environment variables describe it: TF_CONFIG, Slurm, TPU."""

import dataclasses
import json
import os
from typing import Any

import tensorflow as tf

# The jobs whose tasks train, in the order of their replicas.
TRAINING_JOBS = ("chief", "worker")


@dataclasses.dataclass(frozen=True)
class Cluster:
    """Several processes, of which this is one."""

    jobs: dict[str, list[str]]  # each job's addresses, `host:port`
    task_type: str  # this process's job
    task_id: int  # its index in that job, from 0


def find_cluster() -> Cluster | None:
    """Returns the cluster that this process is in, None if it is alone.

    TF_CONFIG comes first, then Slurm; there it also makes visible to
    TensorFlow only this process's share of the machine's GPUs.
    """
    return _from_tf_config() or _from_slurm()


def tpu_name() -> str | None:
    """Returns what TPUClusterResolver calls the TPU, None if there is none."""
    name = os.environ.get("TPU_NAME")
    address = os.environ.get("COLAB_TPU_ADDR")
    if not name and address:
        name = f"grpc://{address.removeprefix('grpc://')}"
    # With a TPU in the machine itself, libtpu shows its cores as devices.
    if not name and tf.config.list_physical_devices("TPU"):
        name = "local"
    return name or None


def _from_tf_config() -> Cluster | None:
    """Returns the tasks that train; None if there is one or none."""
    text = os.environ.get("TF_CONFIG", "").strip()
    if not text:
        return None
    try:
        config = json.loads(text)
    except ValueError as error:
        raise _bad_tf_config(f"JSON, but {error}") from error
    if not isinstance(config, dict):
        raise _bad_tf_config("a JSON object")
    if not config.get("cluster"):
        return None
    jobs, task = config["cluster"], config.get("task")
    if not isinstance(jobs, dict) or not all(map(_is_hosts, jobs.values())):
        raise _bad_tf_config(
            "so that `cluster` maps jobs to lists of 'host:port'"
        )
    legal = (*TRAINING_JOBS, "ps", "evaluator")
    if set(jobs) - set(legal) or len(jobs.get("chief", ())) > 1:
        raise _bad_tf_config(
            f"so that `cluster` has no jobs but {', '.join(legal)}, with one "
            "chief at most"
        )
    if not isinstance(task, dict) or not {"type", "index"} <= set(task):
        raise _bad_tf_config("so that `task` has `type` and `index`")
    job, index = task["type"], str(task["index"])
    if job in ("ps", "evaluator"):
        raise ValueError(
            "TF_CONFIG must be that of a chief or worker, got a task of type "
            f"{job!r}. Training with tf_gnc has no use for such a process: "
            f"take {job!r} out of the job's description."
        )
    cluster = {j: jobs[j] for j in TRAINING_JOBS if jobs.get(j)}
    count = len(cluster.get(job, ())) if isinstance(job, str) else 0
    if not (index.isascii() and index.isdigit() and int(index) < count):
        raise _bad_tf_config("so that `task` is one of `cluster`")
    if sum(map(len, cluster.values())) < 2:
        return None
    return Cluster(cluster, job, int(index))


def _is_hosts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(v, str) for v in value)


def _bad_tf_config(needed: str) -> ValueError:
    text = os.environ["TF_CONFIG"]
    return ValueError(
        f"TF_CONFIG must be {needed}, got TF_CONFIG={text!r}. A good one is "
        '{"cluster": {"worker": ["host1:2222", "host2:2222"]}, '
        '"task": {"type": "worker", "index": 0}}; `tf-gnc launch` sets it.'
    )


def _from_slurm() -> Cluster | None:
    """Returns Slurm's tasks if there are several, and takes a share of GPUs."""
    environment = os.environ
    tasks = environment.get("SLURM_STEP_NUM_TASKS")
    tasks = tasks or environment.get("SLURM_NTASKS", "1")
    several = tasks.isdigit() and int(tasks) > 1
    if not several or "SLURM_PROCID" not in environment:
        return None
    job_id = environment.get("SLURM_JOB_ID", "0")
    try:
        resolver = tf.distribute.cluster_resolver.SlurmClusterResolver(
            # Two jobs may share a node.
            port_base=12_000 + 100 * (int(job_id) % 200),
            # It can't do without GPUs, so it is told of one for each task.
            gpus_per_node=2**16,
            gpus_per_task=1,
            auto_set_gpu=False,
        )
        addresses = resolver.cluster_spec().as_dict()["worker"]
        _, index = resolver.get_task_info()
    except (RuntimeError, ValueError) as error:
        raise ValueError(
            "Slurm has several tasks, but doesn't say where they run "
            f"({error}). Start the script with `srun`, once for all tasks; or "
            "use the strategy 'none' for this process alone."
        ) from error
    host = addresses[index].rpartition(":")[0]
    node = environment.get("SLURMD_NODENAME", host)
    if node != host:
        raise ValueError(
            f"Slurm's task {index} must run on {host}, the nodes taken in "
            f"alphabetical order, got SLURMD_NODENAME={node}. Start `srun` "
            "with --distribution=block on nodes whose numbers have the same "
            "number of digits, or set TF_CONFIG instead."
        )
    here = sum(a.rpartition(":")[0] == host for a in addresses)
    gpus = tf.config.get_visible_devices("GPU")
    # Slurm may have bound each task to its own already.
    if "SLURM_GPUS_PER_TASK" not in environment and len(gpus) >= here > 1:
        share = len(gpus) // here
        first = share * int(environment.get("SLURM_LOCALID", index % here))
        tf.config.set_visible_devices(gpus[first : first + share], "GPU")
    return Cluster({"worker": addresses}, "worker", index)
