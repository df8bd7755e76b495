"""Whether the processes of a strategy train as one process does.

A small network is trained alone in each process and then by all together.
GNC's promise is that the weights are the same; where they aren't, the checks
before say which process is another.
"""

import hashlib
import pathlib
import platform
import zlib
from collections.abc import Sequence

import keras
import numpy as np
import tensorflow as tf

from tf_gnc import _keras_compat
from tf_gnc.distribute import collectives
from tf_gnc.distribute.strategies import num_processes
from tf_gnc.doctor.report import Check, Report
from tf_gnc.layers import BatchNormalization
from tf_gnc.noise import GradientNoise
from tf_gnc.optimizers import MomentumSGD
from tf_gnc.step.train_step import GNCModel

STEPS = 12
TOLERANCE = 1e-3
"""Of how far training has moved the weights. Rounding makes some 1e-6."""

_CLASSES = 4
_PACKAGE = pathlib.Path(__file__).parents[1]


def check_cluster(strategy: tf.distribute.Strategy) -> Report:
    """Trains alone and on all devices of a strategy, and compares.

    Call it in all processes. A dozen steps of GNC with batch normalization and
    momentum on random pictures, from the same weights, alone with TensorFlow's
    default strategy. All processes return the same report, but for errors that
    one of them has met, which it alone can tell.

    Returns:
        The checks up to the first that fails: the same software in all
        processes, the same weights when each trains alone, all processes at
        the same weights after training together, and those the weights of
        training alone, to `TOLERANCE` of the distance that they have moved.

    Example:
        >>> report = check_cluster(tf.distribute.get_strategy())
        >>> report.ok
        True
    """
    checks = []
    for check in (_software, _alone_and_together):
        checks += check(strategy)
        if not checks[-1].ok:
            break
    return Report(tuple(checks))


def software() -> dict[str, str]:
    """Returns what must be the same in all processes, by name."""
    digest = hashlib.sha256()
    for path in sorted(_PACKAGE.rglob("*.py")):
        digest.update(path.relative_to(_PACKAGE).as_posix().encode())
        digest.update(path.read_bytes())
    return {
        "Python": platform.python_version(),
        "TensorFlow": tf.__version__,
        "Keras": keras.version(),
        "NumPy": np.__version__,
        "the code of tf_gnc": digest.hexdigest(),
    }


def _software(strategy: tf.distribute.Strategy) -> list[Check]:
    found = []
    for name, value in software().items():
        marks = collectives.gather(strategy, zlib.crc32(value.encode()))
        others = [i for i, mark in enumerate(marks) if mark != marks[0]]
        if others:
            here = "" if "code" in name else f" (here it is {value})"
            found.append(f"{name} of {_processes(others)}{here}")
    if not found:
        return [Check("software", True, "the same in all processes")]
    message = (
        f"not the same as in process 0: {'; '.join(found)}. Install the same "
        "versions and the same tf_gnc on all machines"
    )
    return [Check("software", False, message)]


def _alone_and_together(strategy: tf.distribute.Strategy) -> list[Check]:
    start, alone, problem = np.zeros(0), np.zeros(0), None
    try:
        start, alone = _train(tf.distribute.get_strategy(), strategy)
    except Exception as error:  # Whatever it is, the others wait.
        problem = f"{type(error).__name__}: {error}"
    failed = collectives.barrier(strategy, problem is None)
    if failed:
        message = f"training failed in {_processes(failed)}"
        message += f": {problem}" if problem else ", which says why"
        return [Check("alone", False, message)]
    # Only what all processes hold alike decides, or they would part here.
    rows = collectives.gather_rows(strategy, np.stack([start, alone]))
    start, alone = rows[0]
    moved = np.abs(alone - start).max()
    apart = _far(rows[:, 1] - alone, moved)
    if apart:
        message = (
            f"{_processes(apart)} computed other weights than process 0, each "
            "by itself. Look for other processors or libraries there, or for "
            "code that was changed while it ran"
        )
        return [Check("alone", False, message)]
    checks = [Check("alone", True, f"{STEPS} steps, the same weights in all")]
    _, together = _train(strategy, strategy)
    rows = collectives.gather_rows(strategy, together)
    apart = _far(rows - rows[0], 0.0)
    if apart:
        message = (
            f"after training together {_processes(apart)} and process 0 hold "
            "different weights. The all-reduce gives different results: try "
            "another `communication`"
        )
        return [*checks, Check("together", False, message)]
    difference = np.abs(rows[0] - alone).max() / moved
    message = (
        f"the weights differ from those of one process by {difference:.1e} of "
        "the way that training went"
    )
    ok = bool(difference < TOLERANCE)
    if not ok:
        message += (
            f"; {TOLERANCE:g} is allowed. Sums over the devices are wrong or "
            "of low precision: run it on one machine, then on two, to see "
            "where it begins"
        )
    return [*checks, Check("together", ok, message)]


def _far(rows: np.ndarray, moved: float) -> list[int]:
    """Returns which rows have an element too far from 0, or NaN."""
    near = np.abs(rows).max(1) <= TOLERANCE * moved
    return [int(row) for row in np.flatnonzero(~near)]


def _train(
    strategy: tf.distribute.Strategy, of_all: tf.distribute.Strategy
) -> tuple[np.ndarray, np.ndarray]:
    """Returns all weights before and after some steps, as vectors.

    The number of workers follows from the replicas of `of_all`.
    """
    replicas = of_all.num_replicas_in_sync
    workers = replicas * -(-8 // replicas)
    size = 4 * workers
    _keras_compat.set_random_seed(0)
    rng = np.random.default_rng(0)
    x = rng.normal(size=(STEPS * size, 6, 6, 1)).astype("float32")
    y = rng.integers(_CLASSES, size=STEPS * size)
    with strategy.scope():
        model = _network()
        model.compile(
            MomentumSGD(0.1, 0.9),
            keras.losses.SparseCategoricalCrossentropy(from_logits=True),
            noise=GradientNoise(1.0),
            num_workers=workers,
        )
    start = _vector(model.weights)
    model.fit(x, y, batch_size=size, shuffle=False, verbose=0)
    return start, _vector(model.weights)


def _network() -> GNCModel:
    inputs = keras.Input((6, 6, 1))
    h = keras.layers.Conv2D(8, 3, activation="tanh")(inputs)
    h = keras.layers.Flatten()(BatchNormalization()(h))
    return GNCModel(inputs, keras.layers.Dense(_CLASSES)(h))


def _vector(variables: Sequence[keras.Variable]) -> np.ndarray:
    return np.concatenate([v.numpy().ravel() for v in variables])


def _processes(indices: Sequence[int]) -> str:
    word = "process" if len(indices) == 1 else "processes"
    return f"{word} {', '.join(map(str, indices))}"


def sentence(report: Report, strategy: tf.distribute.Strategy) -> str:
    """Returns the report in one sentence: ready, or what to do."""
    if not report.ok:
        return f"Not ready: {report.checks[-1].message}."
    processes = num_processes(strategy)
    replicas = strategy.num_replicas_in_sync
    return (
        f"Ready: {processes} process{'es' * (processes > 1)} with {replicas} "
        f"replica{'s' * (replicas > 1)} in all train as one."
    )
