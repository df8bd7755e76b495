"""What a comparison's runs came to, method by method, in numbers.

Knows nothing of how numbers are shown.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from tf_gnc.experiments.compare.comparison import Result
from tf_gnc.experiments.compare.plan import Plan
from tf_gnc.experiments.compare.statistics import (
    Difference,
    Spread,
    paired_difference,
    spread,
)


@dataclasses.dataclass(frozen=True)
class Column:
    """What all runs of a method came to.

    Attributes:
        method: Its name.
        results: One for each seed.
        accuracy: Test accuracy after the last epoch.
        best: Test accuracy after each run's best epoch.
        loss: Training loss of the last epoch.
        seconds: Of a run.
        difference: Of the test accuracy to the baseline's, paired by seed;
            None for the baseline itself.
    """

    method: str
    results: Sequence[Result]
    accuracy: Spread
    best: Spread
    loss: Spread
    seconds: Spread
    difference: Difference | None


def make_columns(
    plan: Plan, results: Mapping[tuple[str, int], Result]
) -> list[Column]:
    """Returns what each method came to.

    Args:
        plan: What was compared.
        results: By method and seed.
    """

    def numbers(method: str, name: str) -> list[float | None]:
        return [results[method, seed].number(name) for seed in plan.seeds]

    baseline = numbers(plan.baseline, "val_accuracy")
    columns = []
    for method in plan.methods:
        own = [results[method, seed] for seed in plan.seeds]
        accuracies = numbers(method, "val_accuracy")
        difference = None
        if method != plan.baseline:
            difference = paired_difference(accuracies, baseline)
        columns.append(
            Column(
                method,
                own,
                accuracy=spread(accuracies),
                best=spread(numbers(method, "best_val_accuracy")),
                loss=spread(numbers(method, "train_loss")),
                seconds=spread([result.seconds for result in own]),
                difference=difference,
            )
        )
    return columns


def machines(results: Sequence[Result]) -> list[dict[str, Any]]:
    """Returns the different versions and machines that runs were made with.

    Args:
        results: What the runs came to.
    """
    found: list[dict[str, Any]] = []
    for result in results:
        about = {
            name: value
            for name, value in result.environment.items()
            if "core" not in name and "thread" not in name
        }
        if about and about not in found:
            found.append(about)
    return found
