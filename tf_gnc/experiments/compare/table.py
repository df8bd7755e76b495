"""The table of a comparison, as text, CSV and Markdown.

One column for each method and one line for each seed, as in the paper's Table
6, with mean and standard deviation below, as in its Table 2, and what the
paper doesn't print: the paired difference to the baseline.
"""

import csv
import dataclasses
import io
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

from tf_gnc.experiments.compare.plan import Plan
from tf_gnc.experiments.compare.statistics import (
    Column,
    Difference,
    Spread,
    machines,
)
from tf_gnc.experiments.run.task import Result

_FEW_SEEDS = 5


@dataclasses.dataclass(frozen=True)
class Table:
    """A table that is ready to be shown; each row begins with its name."""

    title: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    notes: Sequence[str]

    def to_text(self) -> str:
        """Returns it with its columns lined up."""
        columns = list(zip(self.header, *self.rows, strict=True))
        first, *others = [max(map(len, column)) for column in columns]
        form = "  ".join([f"{{:<{first}}}", *(f"{{:>{n}}}" for n in others)])
        rule = ["-" * width for width in (first, *others)]
        lines = [
            form.format(*row).rstrip()
            for row in (self.header, rule, *self.rows)
        ]
        notes = [
            textwrap.fill(note, 78, subsequent_indent="  ")
            for note in self.notes
        ]
        return "\n".join([self.title, "", *lines, "", *notes]) + "\n"

    def to_markdown(self) -> str:
        """Returns it as GitHub shows tables."""
        marks = ["---"] + ["---:"] * (len(self.header) - 1)
        lines = [
            "| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |"
            for row in (self.header, marks, *self.rows)
        ]
        notes = [f"- {note}" for note in self.notes]
        return "\n".join([f"**{self.title}**", "", *lines, "", *notes]) + "\n"


def make_table(plan: Plan, columns: Sequence[Column]) -> Table:
    """Returns the table of a comparison."""
    run = plan.runs[0]
    title = plan.title and f"{plan.title}: "
    title += (
        f"{run.dataset}, {run.model}: {run.num_workers} workers x "
        f"{run.examples_per_worker} examples, {run.epochs} epochs; "
        "test accuracy in %"
    )
    by_seed = zip(*(column.results for column in columns), strict=True)
    rows = [
        [f"seed {seed}", *map(_seed_cell, results)]
        for seed, results in zip(plan.seeds, by_seed, strict=True)
    ]
    rows += [
        ["mean ± std", *(spread_cell(c.accuracy, 2, 100) for c in columns)],
        ["runs (n)", *(str(c.accuracy.count) for c in columns)],
        ["best epoch", *(spread_cell(c.best, 2, 100) for c in columns)],
    ]
    if plan.published:
        found = [plan.published.get(c.method, "-") for c in columns]
        rows.append(["published", *map(str, found)])
    if len(columns) > 1:
        names = ("difference", "95 % CI", "p (paired t)", "p (Holm)")
        cells = list(zip(names, *map(_difference_cells, columns), strict=True))
        rows += cells if len(columns) > 2 else cells[:-1]
    rows += [
        ["train loss", *(spread_cell(c.loss, 4) for c in columns)],
        ["seconds", *(spread_cell(c.seconds, 1) for c in columns)],
    ]
    header = ["", *(column.method for column in columns)]
    return Table(title, header, rows, _notes(plan, columns))


def to_csv(plan: Plan, columns: Sequence[Column]) -> str:
    """Returns one line for each method, with all digits; accuracies 0 to 1."""
    lines = []
    for column in columns:
        line: dict[str, Any] = {"method": column.method}
        for seed, result in zip(plan.seeds, column.results, strict=True):
            line[f"seed_{seed}"] = _accuracy(result)
        for name in ("accuracy", "best", "loss", "seconds"):
            found: Spread = getattr(column, name)
            line[f"{name}_mean"], line[f"{name}_std"] = found.mean, found.std
            line[f"{name}_n"] = found.count
        line["baseline"] = plan.baseline
        difference = column.difference or Difference(0, None)
        for field in dataclasses.fields(difference):
            line[f"difference_{field.name}"] = getattr(difference, field.name)
        lines.append(line)
    return csv_of(lines)


def csv_of(lines: Sequence[Mapping[str, Any]]) -> str:
    """Returns lines that have the same names as CSV, the names first."""
    file = io.StringIO()
    writer = csv.DictWriter(file, list(lines[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines)
    return file.getvalue()


def _accuracy(result: Result) -> float | str:
    """Returns a run's accuracy, or why it has none."""
    if result.diverged is not None:
        return f"diverged (epoch {result.diverged})"
    value = result.number("val_accuracy")
    return "missing" if value is None else value


def _seed_cell(result: Result) -> str:
    found = _accuracy(result)
    return found if isinstance(found, str) else f"{100 * found:.2f}"


def spread_cell(found: Spread, digits: int, scale: float = 1.0) -> str:
    """Returns mean and standard deviation, as far as there are any."""
    if found.mean is None:
        return "-"
    mean = f"{scale * found.mean:.{digits}f}"
    if found.std is None:
        return mean
    return f"{mean} ± {scale * found.std:.{digits}f}"


def _difference_cells(column: Column) -> tuple[str, str, str, str]:
    """Returns the mean of the differences, its interval, and p twice."""
    found = column.difference
    if found is None:
        return "baseline", "-", "-", "-"
    mean = "-" if found.mean is None else f"{100 * found.mean:+.2f}"
    if found.p is None:
        return mean, "-", "-", "-"
    interval = f"{100 * found.low:+.2f} to {100 * found.high:+.2f}"
    p, corrected = (
        "< 0.001" if p < 0.001 else f"{p:.3f}" for p in (found.p, found.p_holm)
    )
    return mean, interval, p, corrected


def _notes(plan: Plan, columns: Sequence[Column]) -> list[str]:
    """Returns what has to be said with the table."""
    results = [result for column in columns for result in column.results]
    num_diverged = sum(result.diverged is not None for result in results)
    num_missing = results.count(Result())
    others = len(columns) - 1
    notes = [
        "Seeds: accuracy after the last epoch. Best epoch: of each run; it "
        "is chosen on the test data, so it is too high.",
        "mean ± std: sample standard deviation (n - 1) over the n runs that "
        "reached their end.",
    ]
    if others:
        notes.append(
            f"Difference: to {plan.baseline}, in points, paired by seed; "
            "95 % confidence interval and p by the paired t-test (two-sided)"
            + (f"; Holm: corrected for {others} tests." if others > 1 else ".")
        )
        notes += _notes_on_intervals(plan, columns)
    if num_diverged:
        notes.append(
            f"{num_diverged} of {len(results)} runs diverged. Means and "
            "differences are without them, so that methods that diverge look "
            "too good."
        )
    if num_missing:
        notes.append(
            f"INCOMPLETE: {num_missing} of {len(results)} runs are missing."
        )
    notes.append(
        "Seconds: training and evaluation of a run, with others beside it: "
        "no measure of speed."
    )
    notes += plan.notes
    if len(machines(results)) > 1:
        notes.append(
            "The runs were made with different versions or on different "
            "machines; each run's config.json has its own."
        )
    return notes


def _notes_on_intervals(plan: Plan, columns: Sequence[Column]) -> list[str]:
    notes = []
    seeds = len(plan.seeds)
    if seeds == 1:
        notes.append(
            "One seed: no standard deviation and no interval. It is no "
            "evidence for one method over another."
        )
    elif seeds < _FEW_SEEDS:
        notes.append(
            f"{seeds} seeds are few: the intervals are wide, and assume that "
            "differences are normally distributed."
        )
    same = [
        column.method
        for column in columns
        if column.difference is not None
        and column.difference.count > 1
        and column.difference.p is None
    ]
    if same:
        notes.append(
            f"No interval for {', '.join(same)}: the differences are the same "
            "for all seeds, which leaves nothing to estimate it from."
        )
    return notes
