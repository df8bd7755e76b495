"""Carries out a comparison: starts what is missing, shows the table.

Whoever made the plan, `tf-gnc compare` or `tf-gnc reproduce`, the rest is the
same. Each run is a process of its own, see `compare_run`.
"""

import os
import shlex
import signal
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import tensorflow as tf
from rich.console import Console

from tf_gnc import threads
from tf_gnc.cli import child, errors, startup
from tf_gnc.cli.command import UsageError
from tf_gnc.cli.compare_progress import show_comparison
from tf_gnc.distribute.environment import find_cluster, tpu_name
from tf_gnc.experiments.compare.page import to_html
from tf_gnc.experiments.compare.plan import Comparison
from tf_gnc.experiments.compare.statistics import make_columns
from tf_gnc.experiments.compare.table import make_table, to_csv
from tf_gnc.launch.addresses import RESTART_EXIT_CODE
from tf_gnc.launch.pool import Pool

# Flags that say how to carry a comparison out, not what to compare.
HOW = ("jobs", "out_dir", "threads", "verbose")


def carry_out(
    command: Sequence[str],
    comparisons: Sequence[Comparison],
    given: Mapping[str, Any],
) -> int:
    """Checks all comparisons, then does one after another.

    Args:
        command: The words of the command that asked for them.
        comparisons: What to do.
        given: The flags; of them the ones in `HOW`.

    Returns:
        0 if all is done, 1 if a run failed, 2 if a comparison can't be done,
        another number if it was stopped.
    """
    usage, verbose = " ".join(command[:2]), given.get("verbose", False)
    try:
        if find_cluster() is not None:
            raise UsageError(
                "a comparison must be started once and starts its runs "
                "itself, got one of several processes (TF_CONFIG or Slurm). "
                "Start it outside of them."
            )
        with startup.quiet_start(command):
            accelerated = hide_accelerators()
            for comparison in comparisons:
                comparison.check()
    except (ValueError, OSError) as error:
        errors.say(usage, error, verbose)
        return 2
    cores = cores_to_use(given.get("threads"))
    jobs = given.get("jobs") or (1 if accelerated else len(cores))
    worst = 0
    for comparison in comparisons:
        try:
            with comparison.claimed(shlex.join(command)):
                code = _carry_out(command, comparison, cores, jobs)
        except (ValueError, OSError) as error:
            errors.say(usage, error, verbose)
            code = 1
        if code > 1:
            return code
        worst = max(worst, code)
    return worst


def hide_accelerators() -> bool:
    """Leaves GPUs to the runs; returns whether there are any, or a TPU."""
    gpus = tf.config.list_physical_devices("GPU")
    if gpus:
        tf.config.set_visible_devices([], "GPU")
    return bool(gpus) or tpu_name() is not None


def cores_to_use(count: int | None) -> list[int]:
    """Returns the cores to use."""
    cores = range(threads.num_cores())
    if hasattr(os, "sched_getaffinity"):
        cores = sorted(os.sched_getaffinity(0))
    return list(cores)[:count]


def _carry_out(
    command: Sequence[str],
    comparison: Comparison,
    cores: Sequence[int],
    jobs: int,
) -> int:
    """Does what is still to do and shows the table; returns the exit code."""
    usage, words = " ".join(command[:2]), shlex.join(command)
    console = Console()
    runs = comparison.configs
    waiting = _missing(comparison)
    jobs = max(1, min(jobs, len(waiting)))
    if waiting:
        _print(
            console,
            f"{len(waiting)} of {len(runs)} runs to do, {jobs} side by side "
            f"on {len(cores)} cores, in {comparison.directory}",
        )

    def command_line(name: str, num_cores: int) -> list[str]:
        task = comparison.task(name, runs[name], num_cores, words)
        return child.command_line(task)

    log_dir = comparison.directory / "logs"
    with show_comparison(console, len(waiting), comparison.describe) as display:
        pool = Pool(command_line, jobs, cores, log_dir, display)
        pool.run(waiting)
    if pool.stopped_by:
        print(
            f"\n{usage}: stopped. What was done is kept in "
            f"{comparison.directory}; the same command goes on from there.",
            file=sys.stderr,
        )
        interrupted = pool.stopped_by == signal.SIGINT
        return 130 if interrupted else RESTART_EXIT_CODE
    _show_table(console, comparison, words)
    missing = _missing(comparison)
    if missing:
        print(
            f"{usage}: error: {len(missing)} runs failed: "
            f"{', '.join(missing)}. What they said is in {log_dir}. The same "
            "command tries them again.",
            file=sys.stderr,
        )
    return 1 if missing else 0


def _missing(comparison: Comparison) -> list[str]:
    """Returns the names of the runs that have come to nothing yet."""
    return [n for n in comparison.configs if comparison.result(n) is None]


def _show_table(console: Console, comparison: Comparison, command: str) -> None:
    plan = comparison.plan
    columns = make_columns(plan, comparison.results())
    table = make_table(plan, columns)
    text = table.to_text()
    comparison.write("table.txt", text)
    comparison.write("table.csv", to_csv(plan, columns))
    comparison.write("table.md", table.to_markdown())
    comparison.write("report.html", to_html(plan, columns, table, command))
    _print(console, f"\n{text}")
    _print(
        console,
        "table.txt, table.csv, table.md, report.html\n"
        f"in {comparison.directory}",
    )


def _print(console: Console, text: str) -> None:
    console.print(text, highlight=False, markup=False, soft_wrap=True)
