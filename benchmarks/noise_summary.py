"""What runs' probes have found, in numbers: similarity and spectrum.

    tf-gnc reproduce fig3 --recipe=digits
    tf-gnc reproduce fig4 --recipe=digits
    python benchmarks/noise_summary.py runs/reproduce-fig3/digits/runs/*
    python benchmarks/noise_summary.py runs/reproduce-fig4/digits/runs/*

A line for each run and each part of it between falls of the rate: mean, lowest
and highest number. Condition numbers are those of all kernels; where a run of
GNC and one of RNC are given, it counts where GNC's is the larger one.
"""

import sys
from collections.abc import Iterator

import numpy as np

from tf_gnc.experiments.figures.recorded_runs import RecordedRun, read_runs


def kernels(run: RecordedRun) -> list[str]:
    """Returns the kernels whose spectrum a run has recorded."""
    row = next((r for r in run.rows if r.get("spectrum")), None)
    layers = row["spectrum"]["layers"] if row else {}
    return [path for path in layers if path.endswith("kernel")]


def numbers(run: RecordedRun) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    """Yields what was measured: its name, epochs and values."""
    if run.has("similarity"):
        yield "similarity", *map(np.array, run.series("similarity", "total"))
    spectrum = {"condition number": ["condition_number"],
                "median eigenvalue": ["percentiles", "50"]}  # fmt: skip
    for name, parts in spectrum.items():
        found = [
            run.series("spectrum", "layers", path, *parts)
            for path in kernels(run)
        ]
        if found:
            epochs, values = np.array(found).transpose(1, 0, 2)
            yield f"{name}, {len(found)} kernels", epochs, values


def main() -> None:
    """Prints the lines."""
    runs = {run.label: run for run in read_runs(sys.argv[1:])}
    print("| run | measure | epochs | mean | lowest | highest |")
    print("|---|---|---|---|---|---|")
    conditions = {}
    for label, run in runs.items():
        ends = [0, *run.rate_drops(), int(run.config["epochs"])]
        for name, epochs, values in numbers(run):
            if name.startswith("condition"):
                conditions[label] = values
            for begin, end in zip(ends, ends[1:], strict=False):
                part = values[(epochs > begin) & (epochs <= end)]
                shown = (np.mean(part), np.min(part), np.max(part))
                cells = " | ".join(f"{number:.3g}" for number in shown)
                print(f"| {label} | {name} | {begin + 1} to {end} | {cells} |")
    if {"gnc", "rnc"} <= conditions.keys():
        larger = conditions["gnc"] > conditions["rnc"]
        print(
            f"\nGNC's condition number is the larger one in {larger.sum():,} "
            f"of {larger.size:,}."
        )


if __name__ == "__main__":
    main()
