"""What a run came to, in one row.

Knows a run's configuration and its log; it neither trains nor writes.
"""

import dataclasses
from typing import Any

from tf_gnc.experiments.config import RunConfig
from tf_gnc.experiments.run import environment
from tf_gnc.experiments.run.metrics import MetricsLog


@dataclasses.dataclass(frozen=True)
class Summary:
    """What came out of a run; None stands for a number that isn't finite.

    Attributes:
        dataset: The data set's name.
        model: The model's name.
        method: The method's name.
        seed: The run's seed.
        epochs: Passes over the training data.
        batch_size: Examples per update.
        num_workers: The paper's M.
        num_replicas: The devices that carried the workers.
        val_accuracy: On the test data, after the last epoch.
        best_val_accuracy: On the test data, after the best epoch.
        train_loss: Mean over the batches of the last epoch.
        seconds: From the first step to the last file, tracing included.
        examples_per_second: Of training alone. The first epoch, in which
            TensorFlow traces the step, is left out if there are others.
        peak_memory_bytes: The most memory that the process has ever held.
    """

    dataset: str
    model: str
    method: str
    seed: int
    epochs: int
    batch_size: int
    num_workers: int
    num_replicas: int
    val_accuracy: float | None
    best_val_accuracy: float | None
    train_loss: float | None
    seconds: float
    examples_per_second: float
    peak_memory_bytes: int | None

    def to_dict(self) -> dict[str, Any]:
        """Returns all values as JSON can hold them."""
        return dataclasses.asdict(self)


def summarize(
    config: RunConfig,
    log: MetricsLog,
    *,
    num_replicas: int,
    steps_per_epoch: int,
    seconds: float,
) -> Summary:
    """Returns the summary of a run that has just ended.

    Args:
        config: What was run.
        log: Its rows and times, of one epoch at least.
        num_replicas: The devices that carried the workers.
        steps_per_epoch: Updates in one pass over the training data.
        seconds: How long it took in all.
    """
    measured = log.training_seconds[1:] or log.training_seconds
    examples = len(measured) * steps_per_epoch * config.batch_size
    accuracies = [row["val_accuracy"] for row in log.rows]
    return Summary(
        dataset=config.dataset,
        model=config.model,
        method=config.method,
        seed=config.seed,
        epochs=config.epochs,
        batch_size=config.batch_size,
        num_workers=config.num_workers,
        num_replicas=num_replicas,
        val_accuracy=accuracies[-1],
        best_val_accuracy=max(
            (a for a in accuracies if a is not None), default=None
        ),
        train_loss=log.rows[-1]["loss"],
        seconds=seconds,
        examples_per_second=examples / sum(measured),
        peak_memory_bytes=environment.peak_memory_bytes(),
    )
