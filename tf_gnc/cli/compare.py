"""`tf-gnc compare`: turns flags into a plan, and runs into a table.

All of what is compared is in tf_gnc.experiments; each run is a process of its
own, see `compare_run`. Here are only the flags, and what to say and return
when something is wrong.

Floor 5: may import from all floors.
"""

import dataclasses
import os
import shlex
import signal
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import tensorflow as tf
from rich.console import Console

from tf_gnc import threads
from tf_gnc.cli import compare_run, errors, startup, train
from tf_gnc.cli.compare_progress import show_comparison
from tf_gnc.cli.flagset import FlagSet, UsageError
from tf_gnc.cli.train_flags import to_fields
from tf_gnc.distribute.cluster import RESTART_EXIT_CODE
from tf_gnc.distribute.environment import find_cluster, tpu_name
from tf_gnc.experiments.columns import make_columns
from tf_gnc.experiments.compare import Plan, make_plan
from tf_gnc.experiments.comparison import Comparison
from tf_gnc.experiments.config import RunConfig
from tf_gnc.experiments.methods import METHODS
from tf_gnc.experiments.page import to_html
from tf_gnc.experiments.side_by_side import SideBySide
from tf_gnc.experiments.tables import make_table, to_csv

__all__ = ["build_flags", "main"]

_USAGE = "tf-gnc compare"
_SUMMARY = (
    "Trains with several methods and seeds and compares the test accuracies. "
    "All runs of a seed start from the same weights and see the same examples "
    "in the same order with the same augmentation. Leaves table.txt, "
    "table.csv, table.md and report.html in a directory, and each run's own "
    "files in its `runs`. Killed and started again, it goes on where it was. "
    "With no flags: four methods and three seeds on handwritten digits."
)

# Flags of `tf-gnc train` that are up to the comparison.
_LEFT_OUT = ("backup", "method", "resume", "run_dir", "seed", "strategy")

# Flags that aren't part of a run's configuration.
_NOT_CONFIG = (
    "baseline", "jobs", "methods", "out_dir", "seeds", "threads", "verbose",
)  # fmt: skip


def main(arguments: Sequence[str]) -> int:
    """Runs the subcommand and returns its exit code.

    Args:
        arguments: The words after `tf-gnc compare`.
    """
    flag_set = build_flags()
    if {"-h", "--help", "-help"} & set(arguments):
        print(flag_set.help())
        return 0
    verbose = "--verbose" in arguments
    try:
        given = flag_set.parse(arguments)
        if find_cluster() is not None:
            raise UsageError(
                "a comparison must be started once and starts its runs "
                "itself, got one of several processes (TF_CONFIG or Slurm). "
                "Start it outside of them."
            )
        plan = _plan(given)
        name = plan.runs[0].dataset.replace(":", "-")
        default = Path("runs", f"compare-{name}")
        comparison = Comparison(plan, given.get("out_dir") or default)
        with startup.quiet_start(arguments):
            accelerated = _hide_accelerators()
            plan.check()
    except (ValueError, OSError) as error:
        errors.say(_USAGE, error, verbose)
        return 2
    cores = _cores(given.get("threads"))
    jobs = given.get("jobs") or (1 if accelerated else len(cores))
    command = shlex.join(["tf-gnc", "compare", *arguments])
    try:
        with comparison.claimed(command):
            return _run(comparison, cores, jobs, command)
    except (ValueError, OSError) as error:
        errors.say(_USAGE, error, verbose)
        return 1


def build_flags() -> FlagSet:
    """Returns the flags: those of `tf-gnc train` that fit, and its own."""
    flag_set = train.build_flags()
    flag_set.usage, flag_set.summary = _USAGE, _SUMMARY
    flag_set.leave_out(_LEFT_OUT)
    flag_set.values.set_default("deterministic", True)
    with flag_set.group("This comparison"):
        flag_set.text(
            "methods",
            f"With commas between them. Default: {','.join(METHODS)}.",
        )
        flag_set.text(
            "seeds",
            "How many, counted from 0; or the seeds themselves, with commas "
            "(`7,` for only that one). Default: 3.",
        )
        flag_set.text(
            "baseline",
            "The method that the others are compared to. Default: dpsgd, or "
            "the first one if that isn't among them.",
        )
        flag_set.integer(
            "jobs",
            "Runs side by side; they share the cores. Default: one for each "
            "core, or one if there is a GPU or TPU.",
            minimum=1,
        )
        flag_set.text(
            "out_dir",
            "A new or empty directory, or that of the same comparison, which "
            "then goes on. Default: runs/compare-<dataset>.",
        )
    return flag_set


def _plan(given: Mapping[str, Any]) -> Plan:
    """Returns the plan that the given flags ask for."""
    chosen = to_fields(
        {n: value for n, value in given.items() if n not in _NOT_CONFIG}
    )
    # Without it a run that was cut short would end a little differently.
    chosen.setdefault("deterministic", True)
    methods = given.get("methods", ",".join(METHODS)).split(",")
    return make_plan(
        [method.strip() for method in methods],
        _seeds(given.get("seeds", "3")),
        given.get("baseline"),
        **chosen,
    )


def _seeds(text: str) -> list[int]:
    """Returns the seeds that `--seeds` asks for."""
    words = [word.strip() for word in text.split(",")]
    if len(words) > 1 and not words[-1]:
        words.pop()
    numbers = [int(w) for w in words if w.isascii() and w.isdecimal()]
    if len(numbers) < len(words) or numbers == [0] and "," not in text:
        raise UsageError(
            "--seeds must be a number of seeds, 1 or more, or several seeds "
            f"with commas between them, got {text!r}. Write, for instance, "
            "--seeds=3 or --seeds=0,1,2."
        )
    return numbers if "," in text else list(range(numbers[0]))


def _hide_accelerators() -> bool:
    """Leaves GPUs to the runs; returns whether there are any, or a TPU."""
    gpus = tf.config.list_physical_devices("GPU")
    if gpus:
        tf.config.set_visible_devices([], "GPU")
    return bool(gpus) or tpu_name() is not None


def _cores(count: int | None) -> list[int]:
    """Returns the cores to use."""
    cores = range(threads.num_cores())
    if hasattr(os, "sched_getaffinity"):
        cores = sorted(os.sched_getaffinity(0))
    return list(cores)[:count]


def _run(
    comparison: Comparison, cores: Sequence[int], jobs: int, command: str
) -> int:
    """Does what is still to do and shows the table; returns the exit code."""
    console = Console()
    runs = {comparison.run_dir(run).name: run for run in comparison.plan.runs}
    waiting = _missing(comparison, runs)
    jobs = max(1, min(jobs, len(waiting)))
    if waiting:
        _print(
            console,
            f"{len(waiting)} of {len(runs)} runs to do, {jobs} side by side "
            f"on {len(cores)} cores, in {comparison.directory}",
        )

    def command_line(name: str, num_cores: int) -> list[str]:
        run = dataclasses.replace(runs[name], threads=num_cores)
        comparison.make_way(run)
        return compare_run.command_line(run, comparison.run_dir(run), command)

    def describe(name: str) -> str:
        return _describe(comparison, runs[name])

    log_dir = comparison.directory / "logs"
    with show_comparison(console, len(waiting), describe) as display:
        pool = SideBySide(command_line, jobs, cores, log_dir, display)
        pool.run(waiting)
    if pool.stopped_by:
        print(
            f"\n{_USAGE}: stopped. What was done is kept in "
            f"{comparison.directory}; the same command goes on from there.",
            file=sys.stderr,
        )
        interrupted = pool.stopped_by == signal.SIGINT
        return 130 if interrupted else RESTART_EXIT_CODE
    _show_table(console, comparison, command)
    missing = _missing(comparison, runs)
    if missing:
        print(
            f"{_USAGE}: error: {len(missing)} runs failed: "
            f"{', '.join(missing)}. What they said is in {log_dir}. The same "
            "command tries them again.",
            file=sys.stderr,
        )
    return 1 if missing else 0


def _missing(
    comparison: Comparison, runs: Mapping[str, RunConfig]
) -> list[str]:
    """Returns the names of the runs that have come to nothing yet."""
    return [
        name for name, run in runs.items() if comparison.result(run) is None
    ]


def _describe(comparison: Comparison, run: RunConfig) -> str:
    result = comparison.result(run)
    if result is None:
        return "left no result"
    if result.diverged is not None:
        return f"diverged in epoch {result.diverged}"
    accuracy = result.number("val_accuracy")
    return f"test accuracy {accuracy:.2%}, {result.seconds:.1f} s"


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
