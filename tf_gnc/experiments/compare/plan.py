"""The plan of a comparison, methods x seeds, and the directory of its runs.

Whoever makes the list of configurations, a command line or a recipe, all that
follows is the same. Knows neither how runs are started nor how their results
are shown.
"""

import dataclasses
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from tf_gnc import _check, _files
from tf_gnc._settings import settings_of
from tf_gnc.experiments.config import RunConfig
from tf_gnc.experiments.defaults import make_config, split
from tf_gnc.experiments.methods.registry import check_method, flat, settings_for
from tf_gnc.experiments.run.directory import as_file_name
from tf_gnc.experiments.run.recording import Recording
from tf_gnc.experiments.run.task import ManyRuns, Result


@dataclasses.dataclass(frozen=True)
class Published:
    """What others have found, in percent of the test pictures.

    Attributes:
        mean: Over their runs.
        std: Sample standard deviation; None for a single run.
        runs: One by one, where they tell.
    """

    mean: float
    std: float | None = None
    runs: tuple[float, ...] = ()

    def __str__(self) -> str:
        """Returns it as tables show it."""
        if self.std is None:
            return f"{self.mean:.2f}"
        return f"{self.mean:.2f} ± {self.std:.2f}"


@dataclasses.dataclass(frozen=True)
class Plan:
    """What to compare.

    Attributes:
        runs: One for each method and seed, in the order in which they start.
        baseline: The method that the others are compared to.
        title: What the table is headed with; made up from the runs if empty.
        published: By method, what others have found.
        notes: What is to be said with the table.

    Raises:
        ValueError: If the runs are not one for each method and seed, or none
            is of the baseline.
    """

    runs: tuple[RunConfig, ...]
    baseline: str
    title: str = ""
    published: Mapping[str, Published] = dataclasses.field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Refuses a plan from which no table could be made."""
        _check.choice("baseline", self.baseline, self.methods)
        keys = [(run.method, run.seed) for run in self.runs]
        grid = {(m, s) for m in self.methods for s in self.seeds}
        if len(keys) != len(grid) or set(keys) != grid:
            raise ValueError(
                "A comparison must have exactly one run for each method and "
                f"seed, got {keys} as (method, seed)."
            )

    @property
    def methods(self) -> list[str]:
        """The methods, in the order of their first runs."""
        return list(dict.fromkeys(run.method for run in self.runs))

    @property
    def seeds(self) -> list[int]:
        """The seeds, likewise."""
        return list(dict.fromkeys(run.seed for run in self.runs))


def make_plan(
    methods: Sequence[str],
    seeds: Sequence[int],
    baseline: str | None = None,
    **chosen: Any,
) -> Plan:
    """Returns a plan in which runs of a seed differ in their method alone.

    What is `chosen` goes to `make_config`: a setting that some methods have to
    those, `gnc.alpha` to one alone. The baseline is one of the methods;
    default: `"dpsgd"`, or the first one if that isn't among them.

    Raises:
        ValueError: If a value is illegal or matters to none of the methods.

    Example:
        >>> plan = make_plan(["dpsgd", "gnc"], [0, 1], alpha=0.2)
        >>> [(r.method, r.settings.get("alpha")) for r in plan.runs[:2]]
        [('dpsgd', None), ('gnc', 0.2)]
    """
    for method in methods:
        check_method("methods", method)
    _check.distinct("methods", methods)
    _check.distinct("seeds", seeds)
    fields, own = split({n: v for n, v in chosen.items() if v is not None})
    taken = settings_for(methods, own)
    runs = [
        make_config(
            method=method,
            seed=seed,
            **fields,
            **flat(method, taken[method], settings_of(RunConfig)),
        )
        for seed in seeds
        for method in methods
    ]
    if baseline is None:
        baseline = "dpsgd" if "dpsgd" in methods else methods[0]
    return Plan(tuple(runs), baseline)


class Comparison(ManyRuns):
    """The directory of a comparison; see `ManyRuns`."""

    what, about = "comparison", "compare.json"

    def __init__(
        self,
        plan: Plan,
        out_dir: str | os.PathLike,
        recording: Recording | None = None,
    ) -> None:
        self.plan = plan
        super().__init__(out_dir, recording)

    @property
    def configs(self) -> dict[str, RunConfig]:
        """The runs by name, in the order in which they are started."""
        return {
            f"{as_file_name(run.method)}-seed{run.seed}": run
            for run in self.plan.runs
        }

    def results(self) -> dict[tuple[str, int], Result]:
        """Returns what all runs have come to, by method and seed."""
        return {
            (run.method, run.seed): self.result(name) or Result()
            for name, run in self.configs.items()
        }

    def _to_check(self) -> Sequence[RunConfig]:
        return self.plan.runs

    def _describe_end(self, result: Result) -> str:
        accuracy = result.number("val_accuracy")
        return f"test accuracy {accuracy:.2%}, {result.seconds:.1f} s"

    def _begin(self, command: str) -> None:
        about = {
            "command": command,
            "baseline": self.plan.baseline,
            "runs": [run.to_dict() for run in self.plan.runs],
            **self.recording.measuring(),
        }
        _files.write_json(self.path(self.about), about)

    def _compared(self, about: Any) -> Iterator[tuple[str, Any, Any]]:
        plan, runs = self.plan, about["runs"]
        for name, ours in (("method", plan.methods), ("seed", plan.seeds)):
            yield f"{name}s", ours, list(dict.fromkeys(r[name] for r in runs))
        yield "baseline", plan.baseline, about["baseline"]
        nothing = Recording().measuring()  # Before, there was no such thing.
        for name, value in self.recording.measuring().items():
            yield name, value, about.get(name, nothing[name])
        for (name, run), other in zip(self.configs.items(), runs, strict=True):
            for setting, ours, theirs in run.differences(other):
                yield f"{name}: {setting}", ours, theirs
