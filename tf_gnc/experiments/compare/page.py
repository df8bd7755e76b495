"""A comparison as one HTML page that needs nothing but itself.

It has no script and loads nothing, and follows the reader's choice of dark or
light. The colours of the curves, an SVG, are those of its style sheet.
"""

import html
from collections.abc import Iterable, Sequence
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from tf_gnc._settings import settings_of
from tf_gnc.experiments.compare.plan import Plan
from tf_gnc.experiments.compare.statistics import Column, machines
from tf_gnc.experiments.compare.table import Table
from tf_gnc.experiments.figures import style
from tf_gnc.experiments.figures.recorded_runs import epoch_series
from tf_gnc.experiments.run.task import Result

_SHEET = """
:root { color-scheme: light dark; --ink: #1f2328; --quiet: #59636e;
  --page: #ffffff; --rule: #d1d9e0;
  --l0: #0b62c4; --l1: #b8430b; --l2: #19752f; --l3: #8a3ab0; --l4: #8c6100; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6edf3;
  --quiet: #9aa4ae; --page: #14181d; --rule: #3a424b;
  --l0: #6cb2ff; --l1: #ff9966; --l2: #63d27f; --l3: #d9a2f5; --l4: #e3b84a; } }
body { background: var(--page); color: var(--ink); max-width: 68rem;
  margin: 2rem auto; padding: 0 1rem; line-height: 1.5;
  font-family: system-ui, sans-serif; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.15rem; margin-top: 2.2rem; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: .25rem .9rem; text-align: right; white-space: nowrap;
  border-bottom: 1px solid var(--rule); }
th:first-child, td.word { text-align: left; }
td.word { white-space: normal; overflow-wrap: anywhere; }
tbody th { font-weight: normal; color: var(--quiet); }
ul { color: var(--quiet); padding-left: 1.2rem; }
pre { white-space: pre-wrap; overflow-wrap: anywhere; padding: .6rem;
  border: 1px solid var(--rule); border-radius: .3rem; }
svg { width: 100%; height: auto; min-width: 34rem; }
"""


def to_html(
    plan: Plan, columns: Sequence[Column], table: Table, command: str
) -> str:
    """Returns the page of a comparison, with its table at the top."""
    results = [result for column in columns for result in column.results]
    parts = [
        html_table(table.header, table.rows),
        f"<ul>{''.join(f'<li>{_escape(n)}</li>' for n in table.notes)}</ul>",
        "<h2>Curves</h2>",
        f'<div class="wide">{_draw(plan, columns)}</div>',
        "<h2>Settings</h2>",
        html_table(["", "all runs"], _shared(plan), "word"),
        html_table(["", *plan.methods], _own(plan)),
        "<h2>Versions and machine</h2>",
        *(
            html_table(["", "runs"], about.items(), "word")
            for about in machines(results)
        ),
    ]
    return document(table.title, parts, command)


def document(title: str, parts: Iterable[str], command: str) -> str:
    """Returns a page with these parts, and with the command it comes from."""
    lines = [
        "<!DOCTYPE html>",
        '<html lang="en"><head><meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width">',
        f"<title>{html.escape(title)}</title>",
        f"<style>{_SHEET}</style></head><body>",
        f"<h1>{html.escape(title)}</h1>",
        *parts,
        "<h2>Command</h2>",
        f"<pre>{html.escape(command)}</pre>",
        "</body></html>",
    ]
    return "\n".join(lines) + "\n"


def html_table(
    header: Iterable[str], rows: Iterable[Sequence[Any]], kind: str = "number"
) -> str:
    """Returns a table whose rows begin with their names.

    All other cells are of a class in the style sheet.
    """
    heads = "".join(f'<th scope="col">{_escape(h)}</th>' for h in header)
    lines = [
        f'<tr><th scope="row">{_escape(name)}</th>'
        + "".join(f'<td class="{kind}">{_escape(cell)}</td>' for cell in cells)
        + "</tr>"
        for name, *cells in rows
    ]
    return (
        f'<div class="wide"><table><thead><tr>{heads}</tr></thead>'
        f"<tbody>{''.join(lines)}</tbody></table></div>"
    )


def _escape(value: Any) -> str:
    return html.escape("-" if value is None else str(value))


def _shared(plan: Plan) -> list[tuple[str, Any]]:
    """Returns the settings that are the same for all methods."""
    run = plan.runs[0]
    names = [n for n in settings_of(type(run)) if n not in ("method", "seed")]
    return [(name, getattr(run, name)) for name in names] + [
        ("seeds", ", ".join(map(str, plan.seeds))),
        ("baseline", plan.baseline),
    ]


def _own(plan: Plan) -> list[list[Any]]:
    """Returns a line for each setting that methods have of their own."""
    settings = {run.method: run.settings for run in reversed(plan.runs)}
    columns = [settings[method] for method in plan.methods]
    names = dict.fromkeys(name for column in columns for name in column)
    return [[name, *(column.get(name) for column in columns)] for name in names]


def _draw(plan: Plan, columns: Sequence[Column]) -> str:
    """Returns the curves as SVG, a line of panels for each method."""
    with matplotlib.rc_context(style.STYLE):
        height = 2.6 * len(columns) + 0.4
        figure = Figure(figsize=(10, height), layout="constrained")
        panels = figure.subplots(
            len(columns), 2, squeeze=False, sharex=True, sharey="col"
        )
        for column, (losses, accuracies) in zip(columns, panels, strict=True):
            losses.set_title(f"{column.method}: training loss", fontsize=10)
            accuracies.set_title(f"{column.method}: test accuracy", fontsize=10)
            _plot(losses, plan, column.results, "loss")
            _plot(accuracies, plan, column.results, "val_accuracy")
            accuracies.yaxis.set_major_formatter(PercentFormatter(1.0))
        rows = [row for c in columns for r in c.results for row in r.rows]
        style.log_scale_if_wide(panels[0, 0], epoch_series(rows, "loss")[1])
        for axes in panels[-1]:
            axes.set_xlabel("Epoch")
    return style.svg(figure, "Curves of all runs")


def _plot(axes: Axes, plan: Plan, results: Sequence[Result], name: str) -> None:
    pairs = zip(plan.seeds, results, strict=True)
    for number, (seed, result) in enumerate(pairs):
        label = f"seed {seed}"
        if result.diverged is not None:
            label += f", diverged in epoch {result.diverged}"
        series = epoch_series(result.rows, name)
        style.plot(axes, series, **style.line_style(number, label))
    style.trim(axes, "", "")
