"""What each rule of the family costs in a step, all in one run.

    python benchmarks/rules.py
    python benchmarks/rules.py --torch_python=PATH
    python benchmarks/rules.py --rules=gnc,momentum_sam --rounds=25

ResNet-32, 8 workers of 32 examples, beside stock Keras, the same workers
without noise and hand-written loops in PyTorch (plain SGD, and SAM in two
passes). Each in a process of its own, which take their steps in turn; see
step_cost.py, whose parts these are. Times and ratios are medians over the
rounds, a ratio being that of two steps of one round. Passes are forward and
backward; collectives those of a step on several replicas.
"""

import argparse
import importlib.util
import os
import platform
import statistics
import sys

from step_cost import _FOLDER, _Child, _processor

# name: passes, collectives on several replicas
MEMBERS = {
    "keras": (1, "1"),
    "none": (1, "1"),
    "gnc": (1, "1"),
    "rnc": (1, "1"),
    "extrapolation": (1, "1"),
    "gnc_uphill": (1, "1"),
    "momentum_sam": (1, "1"),
    "worker_sam": (2, "1"),
    "sam": (2, "2"),
    "asam": (2, "2"),
    "gnc_current": (2, "2"),
}
TORCH = {"torch sgd": 1, "torch sam": 2}


def main() -> None:
    """Runs the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--torch_python", help="a Python that has PyTorch")
    parser.add_argument(
        "--rules",
        type=lambda text: text.split(","),
        default=list(MEMBERS)[2:],
        help="some of them, with commas between",
    )
    flags = parser.parse_args()
    if unknown := set(flags.rules) - set(MEMBERS):
        parser.error(f"--rules must be of {', '.join(MEMBERS)}, got {unknown}")
    script = str(_FOLDER / "step_cost_child.py")
    commands = {
        name: [sys.executable, script, "resnet32", name, "8", "256", "float32"]
        for name in dict.fromkeys(["keras", "none", *flags.rules])
    }
    python = flags.torch_python
    if python is None and importlib.util.find_spec("torch"):
        python = sys.executable
    if python is not None:
        script = str(_FOLDER / "step_cost_torch.py")
        for name in TORCH:
            commands[name] = [python, script, name.removeprefix("torch ")]
    print(f"{platform.platform()}, {os.cpu_count()} cores, {_processor()}")
    children = {name: _Child(words) for name, words in commands.items()}
    times = {name: [] for name in children}
    for number in range(flags.rounds):
        for name, child in children.items():
            times[name].append(child.step())
        print(f"round {number + 1} of {flags.rounds}", file=sys.stderr)
    peaks = {name: child.end()["peak"] for name, child in children.items()}
    print("\n| rule | passes | collectives | ms | of keras | of none | MB |")
    print("|---|---|---|---|---|---|---|")
    for name in times:
        passes, collectives = MEMBERS.get(name, (TORCH.get(name), "-"))
        base = "torch sgd" if name in TORCH else "none"
        print(
            f"| {name} | {passes} | {collectives} | "
            f"{statistics.median(times[name]):.0f} | "
            f"{_ratio(times, name, 'keras'):.2f} | "
            f"{_ratio(times, name, base):.2f} | "
            f"{peaks[name]:.0f} |"
        )


def _ratio(times: dict[str, list[float]], name: str, base: str) -> float:
    """Returns the median over the rounds of two variants' ratio."""
    pairs = zip(times[name], times[base], strict=True)
    return statistics.median(ours / theirs for ours, theirs in pairs)


if __name__ == "__main__":
    main()
