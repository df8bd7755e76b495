"""A search as a table, a drawing, and a line to paste."""

import inspect
import math
import operator
from collections.abc import Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.ticker import PercentFormatter

from tf_gnc.experiments.compare.table import Table, spread_cell
from tf_gnc.experiments.figures import style
from tf_gnc.experiments.tune.search import Search, flag_of
from tf_gnc.experiments.tune.trials import Trial, best_of, edges

# What a point has come to; its digits, and what it is multiplied by.
_SHOWN = {"val_accuracy": (2, 100), "val_loss": (4, 1), "loss": (4, 1)}

_by_point = operator.attrgetter("point")


def make_table(trials: Sequence[Trial], search: Search) -> Table:
    """Returns the table of a search, a line for each point."""
    base = search.base
    title = (
        f"{base.dataset}, {base.model}, {base.method}: {base.num_workers} "
        f"workers x {base.examples_per_worker} examples, {base.epochs} "
        f"epochs; {search.kind} search by {search.objective}"
    )
    best = best_of(trials, search)
    rows = [
        [
            *(f"{value:.4g}" for value in trial.point),
            _plain(trial.displacement),
            _plain(trial.max_displacement),
            *(_cell(name, trial) for name in _SHOWN),
            "<- best" if trial is best else _divergence(trial),
        ]
        for trial in sorted(trials, key=_by_point)
    ]
    header = [
        *(*search.names, "displacement", "largest"),
        *("val_accuracy, %", "val_loss", "loss", ""),
    ]
    return Table(title, header, rows, _notes(trials, search))


def warnings(trials: Sequence[Trial], search: Search) -> list[str]:
    """Returns what speaks against the choice."""
    best = best_of(trials, search)
    if best is None:
        return []
    said = []
    for name, (side, low, high) in edges(best, trials, search).items():
        count = ""
        if search.kind == "grid":
            count = f":{max(3, len(search.space[name]))}"
        said.append(
            f"The best {name} lies at the {side} edge of what was tried: a "
            f"better one may lie beyond. Try {flag_of(name)}={low:.3g}:"
            f"{high:.3g}{count} in another --out_dir."
        )
    value = best.value(search.objective)
    alike = sum(trial.value(search.objective) == value for trial in trials)
    if alike > 1:
        said.append(
            f"{alike} points share the best {search.objective}; among them "
            "the lowest val_loss decided."
        )
    return said


def chosen(trials: Sequence[Trial], search: Search) -> dict[str, Any] | None:
    """Returns the best point, ready to paste; None if all diverged.

    It has the values by field; `flags`, for `tf-gnc train`; and `python`, the
    rule for `compile(noise=...)`.
    """
    best = best_of(trials, search)
    if best is None:
        return None
    values = search.named(best.point)
    (run, *_) = search.runs(best.point).values()
    # Of two rules, the one that changes with what was searched.
    other = run.replace(**{search.names[0]: best.point[0] / 2})
    pairs = zip(run.noise().rules, other.noise().rules, strict=True)
    changing = [rule for rule, changed in pairs if rule != changed]
    rule = (changing or [run.noise().first])[0]
    flags = [f"--{name}={value:.12g}" for name, value in values.items()]
    return {
        **values,
        "flags": " ".join([f"--method={run.method}", *flags]),
        "python": _constructor(rule),
    }


def results(trials: Sequence[Trial], search: Search) -> list[dict[str, Any]]:
    """Returns a line of plain numbers for each point; accuracies 0 to 1."""
    best = best_of(trials, search)
    lines = []
    for trial in sorted(trials, key=_by_point):
        line: dict[str, Any] = search.named(trial.point)
        for name in ("displacement", "max_displacement"):
            line[name] = getattr(trial, name)
        for name in _SHOWN:
            found = trial.number(name)
            line[f"{name}_mean"], line[f"{name}_std"] = found.mean, found.std
        line |= {"seeds": len(trial.results), "diverged": trial.num_diverged}
        lines.append(line | {"best": trial is best})
    return lines


def _constructor(rule: Any) -> str:
    """Returns the call that makes a rule, without what is default."""
    # What all rules share is in the configuration if it isn't default.
    usual = {
        name: parameter.default
        for name, parameter in inspect.signature(type(rule)).parameters.items()
    }
    arguments = [
        f"{name}={value!r}"
        for name, value in rule.get_config().items()
        if name != "seed" and (name not in usual or value != usual[name])
    ]
    package = type(rule).__module__.partition(".")[0]
    return f"{package}.{type(rule).__name__}({', '.join(arguments)})"


def _plain(value: float | None) -> str:
    return "-" if value is None else f"{value:.3g}"


def _cell(name: str, trial: Trial) -> str:
    if trial.num_diverged:
        return "-"
    return spread_cell(trial.number(name), *_SHOWN[name])


def _divergence(trial: Trial) -> str:
    if not trial.num_diverged:
        return ""
    if len(trial.results) == 1:
        return f"diverged in epoch {trial.results[0].diverged}"
    return f"diverged, {trial.num_diverged} of {len(trial.results)} seeds"


def _notes(trials: Sequence[Trial], search: Search) -> list[str]:
    """Returns what has to be said with the table."""
    notes = [
        "displacement: ||x_i - x|| / ||x|| of all weights, mean over workers, "
        "at the end of each epoch; its mean over epochs, and the largest.",
    ]
    if search.holdout:
        notes.append(
            f"val_: on {search.holdout:.3g} of the training examples, held "
            "out by seed. The test examples weren't used."
        )
    else:
        notes.append(
            "val_: on the test examples. The choice is made on them, so the "
            "chosen value's test accuracy is too high."
        )
    if search.objective == "loss":
        notes.append(
            "loss: at the displaced weights, on the training examples; it "
            "favours little noise."
        )
    if len(search.seeds) == 1:
        notes.append(
            "One seed: no standard deviation. Small differences are no "
            "evidence; --seeds=3 tells more."
        )
    else:
        notes.append(
            f"±: sample standard deviation (n - 1) over {len(search.seeds)} "
            "seeds."
        )
    if any(trial.num_diverged for trial in trials):
        notes.append("What diverged, with any seed, is never chosen.")
    return notes


def draw(trials: Sequence[Trial], search: Search) -> bytes:
    """Returns a PNG: the objective, and below it the displacement."""
    figure, (above, below) = style.new_figure(rows=2, share=False)
    above.sharex(below)
    # A second dimension is a line for each of its values.
    axis = 0
    if len({trial.point[0] for trial in trials}) == 1:
        axis = len(search.names) - 1
    groups: dict[str, list[Trial]] = {}
    for trial in sorted(trials, key=_by_point):
        others = search.named(trial.point)
        del others[search.names[axis]]
        words = [f"{name}={value:g}" for name, value in others.items()]
        groups.setdefault(", ".join(words) or "tried", []).append(trial)
    for number, (label, group) in enumerate(groups.items()):
        line = style.line_style(number, label if len(groups) <= 8 else None)
        _draw_group(above, below, group, search.objective, axis, line)
    best = best_of(trials, search)
    if best is not None:
        above.axvline(
            best.point[axis], color=style.INK, lw=0.9, ls=":", label="best"
        )
    if at := [t.point[axis] for t in trials if t.num_diverged]:
        above.plot(
            at, [0.02] * len(at), "x", color=style.INK,
            transform=above.get_xaxis_transform(), label="diverged",
        )  # fmt: skip
    style.trim(above, "", f"{search.objective}, after the last epoch")
    style.trim(below, search.names[axis], "relative displacement, mean")
    if search.objective == "val_accuracy":
        above.yaxis.set_major_formatter(PercentFormatter(1.0))
    if any(t.displacement and not t.num_diverged for t in trials):
        below.set_yscale("log")
    below.set_xscale("log")
    above.label_outer()
    return style.png(figure)


def _draw_group(
    above: Axes,
    below: Axes,
    group: Sequence[Trial],
    objective: str,
    axis: int,
    line: dict[str, Any],
) -> None:
    """Draws a line through points; what diverged is off any scale."""
    at = [trial.point[axis] for trial in group]
    values = [trial.value(objective) for trial in group]
    above.errorbar(
        at,
        [math.nan if value is None else value for value in values],
        yerr=[trial.number(objective).std or 0.0 for trial in group],
        marker="o", markersize=3.5, capsize=2, **line,
    )  # fmt: skip
    heights = [
        math.nan if t.num_diverged else t.displacement or math.nan
        for t in group
    ]
    style.plot(below, (at, heights), **{**line, "label": None})
