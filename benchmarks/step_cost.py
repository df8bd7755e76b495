"""What a training step costs, all in one run.

    python benchmarks/step_cost.py
    python benchmarks/step_cost.py --network=mobilenet_v2
    python benchmarks/step_cost.py --torch_python=PATH

Each variant runs in a process of its own, because TensorFlow reads the
numbers of threads once: stock Keras with TensorFlow's own choice, ours with
`tf_gnc.set_threads()`. The processes take their steps in turn, a round at a
time, so that whatever else the machine does falls on all alike; the table
gives medians over the rounds and their ratios. Stock Keras is the same network
with Keras's own batch normalization. The loops of step_cost_torch.py take part
where PyTorch is installed, or named by `--torch_python`.

The share of the peak is that of the machine's largest matrix product, measured
in the same rounds and in the same type; what counts is the arithmetic of
convolutions and dense layers. Peak memory is the process's largest resident
set.
"""

import argparse
import importlib.util
import os
import platform
import statistics
import subprocess
import sys
from pathlib import Path

from step_cost_child import NETWORKS

_FOLDER = Path(__file__).parent

# name: (kind, workers, examples). "keras 1" is stock Keras with one worker's
# examples on one thread: what a worker would cost if GNC were free.
VARIANTS = {
    "peak": ("peak", 0, 0),
    "keras": ("keras", 1, 256),
    "keras 1": ("thread", 1, 32),
    "none 8": ("none", 8, 256),
    "gnc 8": ("gnc", 8, 256),
    "rnc 8": ("rnc", 8, 256),
    "none 64": ("none", 64, 2048),
    "gnc 64": ("gnc", 64, 2048),
}
BFLOAT16 = ("peak", "keras", "gnc 8", "gnc 64")
"""Variants that also run in `mixed_bfloat16`, with " bf16" after the name."""
EMBEDDING = {
    "keras": ("keras", 1, 256),
    "none 1": ("none", 1, 256),
    "none 8": ("none", 8, 256),
    "rnc 8": ("rnc", 8, 256),
    "gnc 8": ("gnc", 8, 256),
}
TORCH = ("sgd", "gnc", "sam")
# The paper's number of workers for CIFAR. A step takes too long to be timed
# often; two are enough for the peak memory.
MEMORY = {"none 256": ("none", 256, 8192), "gnc 256": ("gnc", 256, 8192)}

# over, under, factor, goal
RATIOS = (
    ("gnc 8", "keras", 1, "0.66"),
    ("gnc 8 bf16", "keras", 1, "0.45"),
    ("gnc 8", "none 8", 1, "1.05"),
    ("rnc 8", "none 8", 1, "-"),
    ("gnc 64", "gnc 8", 1 / 8, "1.10"),
    ("gnc 64 bf16", "gnc 8 bf16", 1 / 8, "1.10"),
    ("gnc 8", "torch gnc", 1, "0.90"),
    ("torch sam", "torch sgd", 1, "-"),
)
EMBEDDING_RATIOS = (
    ("none 1", "keras", 1, "1.10"),
    ("none 8", "keras", 1, "-"),
)


def main() -> None:
    """Runs the benchmark."""
    flags = _flags()
    commands = _commands(flags)
    names = flags.variants.split(",") if flags.variants else list(commands)
    names = [name for name in names if name not in MEMORY]
    print(f"{platform.platform()}, {os.cpu_count()} cores, {_processor()}")
    children = {name: _Child(commands[name]) for name in names}
    times = {name: [] for name in names}
    for number in range(flags.rounds):
        for name, child in children.items():
            times[name].append(child.step())
        print(f"round {number + 1} of {flags.rounds}", file=sys.stderr)
    facts = {name: child.end() for name, child in children.items()}
    if not flags.variants:
        more = [name for name in MEMORY if name in commands]
        facts |= {name: _Child(commands[name]).end() for name in more}
    medians = {name: statistics.median(t) for name, t in times.items()}
    _print_steps(medians, facts)
    embedding = flags.network == "embedding"
    _print_ratios(medians, facts, EMBEDDING_RATIOS if embedding else RATIOS)


def _flags() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--network", choices=NETWORKS, default="resnet32")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--variants", help="names, separated by commas")
    parser.add_argument("--bfloat16", action="store_true")
    parser.add_argument("--torch_python", help="a Python that has PyTorch")
    return parser.parse_args()


def _commands(flags: argparse.Namespace) -> dict[str, list[str]]:
    """Returns the command lines of all variants, by name."""
    variants, script = VARIANTS, str(_FOLDER / "step_cost_child.py")
    if flags.network == "resnet32":
        variants = {**VARIANTS, **MEMORY}
    if flags.network == "embedding":
        variants = EMBEDDING
    found = {
        name: [sys.executable, script, flags.network, *map(str, how), "float32"]
        for name, how in variants.items()
    }
    for name in BFLOAT16 if flags.bfloat16 else ():
        found[f"{name} bf16"] = [*found[name][:-1], "mixed_bfloat16"]
    python = flags.torch_python
    if python is None and importlib.util.find_spec("torch"):
        python = sys.executable
    if python is not None and flags.network == "resnet32":
        script = str(_FOLDER / "step_cost_torch.py")
        found |= {f"torch {name}": [python, script, name] for name in TORCH}
    return found


class _Child:
    """One variant in a process of its own, which steps when told to."""

    def __init__(self, command: list[str]) -> None:
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        self._first, self._flops, self._weights = self._read("ready")

    def step(self) -> float:
        """Returns the milliseconds of one step."""
        return self._ask("step")

    def end(self) -> dict[str, float]:
        """Returns peak memory in MB, and what the process said of itself."""
        peak = self._ask("end")
        self._process.wait()
        return {
            "first": self._first,
            "flops": self._flops,
            "weights": self._weights,
            "peak": peak,
        }

    def _ask(self, word: str) -> float:
        self._process.stdin.write(word + "\n")
        self._process.stdin.flush()
        return self._read(word)[0]

    def _read(self, word: str) -> list[float]:
        for line in self._process.stdout:
            if line.startswith(word + " "):
                return [float(number) for number in line.split()[1:]]
        raise SystemExit(
            f"`{' '.join(self._process.args)}` ended before it said {word!r}."
        )


def _print_steps(
    medians: dict[str, float], facts: dict[str, dict[str, float]]
) -> None:
    rates = {
        name: facts[name]["flops"] / (1e6 * median)  # GFLOP/s
        for name, median in medians.items()
    }
    print("\n| variant | ms | of keras | of the peak | first, s | memory, MB |")
    print("|---|---|---|---|---|---|")
    for name, median in medians.items():
        peak = "peak bf16" if name.endswith("bf16") else "peak"
        of_keras = of_peak = "-"
        if name.split()[0] != "peak" and "keras" in medians:
            of_keras = f"{median / medians['keras']:.2f}"
        if rates[name] and peak in rates:
            of_peak = f"{rates[name] / rates[peak]:.2f}"
        print(
            f"| {name} | {median:.0f} | {of_keras} | {of_peak} | "
            f"{facts[name]['first']:.1f} | {facts[name]['peak']:.0f} |"
        )
    for name in ("peak", "peak bf16"):
        if name in rates:
            print(f"\n{name}: {rates[name]:.0f} GFLOP/s")


def _print_ratios(
    medians: dict[str, float],
    facts: dict[str, dict[str, float]],
    ratios: tuple[tuple[str, str, float, str], ...],
) -> None:
    print("\n| ratio of medians | seen | goal |")
    print("|---|---|---|")
    for over, under, scale, goal in ratios:
        if over in medians and under in medians:
            ratio = scale * medians[over] / medians[under]
            each = " per example" if scale != 1 else ""
            print(f"| {over} / {under}{each} | {ratio:.2f} | {goal} |")
    if "keras 1" in medians and "keras" in medians:
        share = 8 / len(os.sched_getaffinity(0))
        floor = share * medians["keras 1"] / medians["keras"]
        print(
            "| keras 1 / keras, 8 workers shared by the cores: the least that "
            f"gnc 8 / keras can be with Keras's layers | {floor:.2f} | - |"
        )
    for workers in (64, 256):
        gnc, none = facts.get(f"gnc {workers}"), facts.get(f"none {workers}")
        if gnc and none:
            extra = gnc["peak"] - none["peak"]
            noise = workers * gnc["weights"] * 4 / 2**20
            print(
                f"| peak memory of gnc {workers} over none {workers} / "
                f"(V x weights x 4 bytes) | {extra:.0f} MB / {noise:.0f} MB = "
                f"{extra / noise:.2f} | 1.25 |"
            )


def _processor() -> str:
    try:
        with open("/proc/cpuinfo") as file:
            lines = [line for line in file if line.startswith("model name")]
        return lines[0].split(":")[1].strip()
    except (OSError, IndexError):
        return platform.processor()


if __name__ == "__main__":
    main()
