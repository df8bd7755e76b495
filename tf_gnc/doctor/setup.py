"""Which devices a model's workers use, and the memory of their noise.

Computed before any step, so that a run that can't fit is found out first.

Symbols   V, P  workers per replica, number of trainable scalars
"""

import contextlib
import dataclasses
import math
import pathlib

import keras
import tensorflow as tf

from tf_gnc import threads
from tf_gnc.distribute.strategies import num_processes
from tf_gnc.doctor.report import Check
from tf_gnc.step import workers
from tf_gnc.step.first_pass import Groups
from tf_gnc.step.plan import dtype_of
from tf_gnc.step.train_step import GNCTrainStep


@dataclasses.dataclass(frozen=True)
class Setup:
    """Which devices a model's workers use.

    Attributes:
        strategy: Name of the strategy's class.
        num_replicas: In sync, over all processes.
        num_processes: Tasks of the cluster.
        num_workers: M, the paper's workers.
        workers_per_replica: V.
        side_by_side: How many of them a replica runs at a time.
        num_cores: Cores that this process may use.
        inter_op_threads: Of TensorFlow; 0 is its own choice.
        intra_op_threads: Of TensorFlow; 0 is its own choice.
    """

    strategy: str
    num_replicas: int
    num_processes: int
    num_workers: int
    workers_per_replica: int
    side_by_side: int
    num_cores: int
    inter_op_threads: int
    intra_op_threads: int


@dataclasses.dataclass(frozen=True)
class MemoryForecast:
    """What the noise will hold on each replica, in numbers and bytes.

    Attributes:
        workers_per_replica: V.
        num_weights: P.
        dtype: Dtype of the remembered gradients; None if the rule needs none.
        copies: 2 with loss scaling, which must be able to take a step back.
        first_pass: Of a rule with two passes, how many vectors of P numbers
            the first keeps for the second, while a step lasts.
        first_dtype: Their dtype.
    """

    workers_per_replica: int
    num_weights: int
    dtype: str | None
    copies: int
    first_pass: int = 0
    first_dtype: str = "float32"

    @property
    def num_bytes(self) -> int:
        """V x P x bytes of the dtype x copies, and `first_pass_bytes`."""
        if self.dtype is None:
            return self.first_pass_bytes
        numbers = self.copies * self.workers_per_replica * self.num_weights
        return self.first_pass_bytes + numbers * tf.as_dtype(self.dtype).size

    @property
    def first_pass_bytes(self) -> int:
        """first_pass x P x bytes of the dtype."""
        numbers = self.first_pass * self.num_weights
        return numbers * tf.as_dtype(self.first_dtype).size

    @property
    def text(self) -> str:
        """The bytes in words."""
        return _bytes(self.num_bytes)


def setup_of(model: GNCTrainStep) -> Setup:
    """Returns which devices the workers of a compiled model use."""
    strategy = model.distribute_strategy
    replicas = strategy.num_replicas_in_sync
    per_replica = workers.per_replica(model.num_workers, replicas)
    threading = tf.config.threading
    return Setup(
        strategy=type(strategy).__name__.lstrip("_"),
        num_replicas=replicas,
        num_processes=num_processes(strategy),
        num_workers=model.num_workers,
        workers_per_replica=per_replica,
        side_by_side=workers.num_parallel(per_replica, replicas),
        num_cores=threads.num_cores(),
        inter_op_threads=threading.get_inter_op_parallelism_threads(),
        intra_op_threads=threading.get_intra_op_parallelism_threads(),
    )


def memory_forecast(
    model: GNCTrainStep, workers_per_replica: int | None = None
) -> MemoryForecast:
    """Returns the memory that a built and compiled model's noise will take.

    Under the model's strategy, or with so many workers on a replica.
    """
    rule = model.noise_rule
    per_replica = workers_per_replica or setup_of(model).workers_per_replica
    groups = Groups.of(rule, model.num_workers, per_replica)
    scales = isinstance(
        model.optimizer, keras.mixed_precision.LossScaleOptimizer
    )
    return MemoryForecast(
        workers_per_replica=per_replica,
        num_weights=sum(
            math.prod(v.shape) for v in model.trainable_variables
        ),
        dtype=rule.noise_dtype if rule and "previous" in rule.needs else None,
        copies=2 if scales else 1,
        first_pass=groups.means + groups.gradients,
        first_dtype=dtype_of(model.trainable_variables),
    )


def check_memory(model: GNCTrainStep) -> Check:
    """Checks that the machine has enough memory for the noise.

    On GPUs and TPUs, whose free memory TensorFlow doesn't tell, it only says
    how much that is.
    """
    need, free = memory_forecast(model), free_memory_bytes()
    message = f"the noise takes {need.text} on each replica"
    if need.dtype is not None:
        message += (
            f" ({need.workers_per_replica} workers x {need.num_weights:,} "
            f"weights in {need.dtype}{', twice' if need.copies == 2 else ''})"
        )
    if need.first_pass:
        message += (
            f", {_bytes(need.first_pass_bytes)} of it between two passes "
            f"({need.first_pass} vectors of {need.num_weights:,} weights in "
            f"{need.first_dtype})"
        )
    elif model.noise_rule and model.noise_rule.takes_two_passes:
        message += ": of the first pass one worker's gradient at a time stays"
    devices = tf.config.list_logical_devices()
    if free is None or any(d.device_type in ("GPU", "TPU") for d in devices):
        return Check("memory", True, f"{message}.")
    setup = setup_of(model)
    here = setup.num_replicas // setup.num_processes
    ok = need.num_bytes * here <= free
    message += f"; {_bytes(free)} are free for {here}."
    if not ok:
        message += (
            " Use fewer workers, noise_dtype='bfloat16', a smaller model or "
            "more machines."
        )
    return Check("memory", ok, message)


def free_memory_bytes() -> int | None:
    """Returns the memory that this process may still take; None if unknown."""
    free = []
    with contextlib.suppress(OSError, ValueError, StopIteration):
        lines = pathlib.Path("/proc/meminfo").read_text().splitlines()
        line = next(x for x in lines if x.startswith("MemAvailable:"))
        free.append(1024 * int(line.split()[1]))
    with contextlib.suppress(OSError, ValueError):  # A container's limit.
        group = pathlib.Path("/sys/fs/cgroup")
        limit = int((group / "memory.max").read_text())
        used = int((group / "memory.current").read_text())
        free.append(max(0, limit - used))
    return min(free, default=None)


def _bytes(count: int) -> str:
    """Returns, for instance, "12.3 MB"."""
    size, units = float(count), ["B", "kB", "MB", "GB", "TB"]
    while size >= 1000 and len(units) > 1:
        size /= 1000
        units.pop(0)
    return f"{size:.3g} {units[0]}"
