"""What a GNC step costs: ResNet-32, 32 examples a worker, all in one run.

    python benchmarks/step_cost.py
    python benchmarks/step_cost.py --torch_script=PATH --torch_python=PATH

Each variant runs in a process of its own, because TensorFlow reads the
numbers of threads once: stock Keras with TensorFlow's own choice, ours with
`tf_gnc.set_threads()`. The processes take their steps in turn, a round at a
time, so that whatever else the machine does falls on all alike; the table
gives medians over the rounds and their ratios. A PyTorch loop, if named, takes
its turns between the rounds and must print lines "name value ms" as medians.

Peak memory is the process's largest resident set.
"""

import argparse
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable

EXAMPLES_PER_WORKER = 32
SHAPE, CLASSES = (32, 32, 3), 100

# name: (noise rule or "keras", workers). "keras 1" is stock Keras with one
# worker's examples on one thread: what a worker would cost if GNC were free.
VARIANTS = {
    "keras": ("keras", 8),
    "keras 1": ("keras", 1),
    "none 8": ("none", 8),
    "gnc 8": ("gnc", 8),
    "rnc 8": ("rnc", 8),
    "none 64": ("none", 64),
    "gnc 64": ("gnc", 64),
}
# The paper's number of workers for CIFAR. A step takes too long to be timed
# often; two are enough for the peak memory.
MEMORY_VARIANTS = {"none 256": ("none", 256), "gnc 256": ("gnc", 256)}


def main() -> None:
    """Runs the benchmark, or one variant of it in a process of its own."""
    flags = _flags()
    if flags.child:
        _child(*{**VARIANTS, **MEMORY_VARIANTS}[flags.child])
        return
    names = flags.variants.split(",") if flags.variants else list(VARIANTS)
    print(f"{platform.platform()}, {os.cpu_count()} cores, {_processor()}")
    children = {name: _Child(name) for name in names}
    times = {name: [] for name in names}
    torch_times = {}
    for number in range(flags.rounds):
        for name, child in children.items():
            times[name].append(child.step())
        if flags.torch_script:
            for name, value in _torch(flags).items():
                torch_times.setdefault(f"torch {name}", []).append(value)
        print(f"round {number + 1} of {flags.rounds}", file=sys.stderr)
    facts = {name: child.end() for name, child in children.items()}
    if not flags.variants:
        facts |= {name: _Child(name).end() for name in MEMORY_VARIANTS}
    _report({**times, **torch_times}, facts)


def _flags() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--variants", help="names, separated by commas")
    parser.add_argument("--torch_script", help="a PyTorch loop to set beside")
    parser.add_argument("--torch_python", default=sys.executable)
    parser.add_argument(
        "--child", choices=[*VARIANTS, *MEMORY_VARIANTS], help=argparse.SUPPRESS
    )
    return parser.parse_args()


class _Child:
    """One variant in a process of its own, which steps when told to."""

    def __init__(self, name: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, __file__, f"--child={name}"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        self._first = self._read("ready")

    def step(self) -> float:
        """Returns the milliseconds of one step."""
        return self._ask("step")

    def end(self) -> dict[str, float]:
        """Returns peak memory in MB and seconds of the first step."""
        peak = self._ask("end")
        self._process.wait()
        return {"first": self._first, "peak": peak}

    def _ask(self, word: str) -> float:
        self._process.stdin.write(word + "\n")
        self._process.stdin.flush()
        return self._read(word)

    def _read(self, word: str) -> float:
        for line in self._process.stdout:
            if line.startswith(word + " "):
                return float(line.split()[1])
        raise SystemExit(f"A process ended before it said {word!r}.")


def _child(kind: str, num_workers: int) -> None:
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    import resource

    import tf_gnc

    if kind != "keras":
        tf_gnc.set_threads()
    elif num_workers == 1:
        tf_gnc.set_threads(1)
    step = _make_step(kind, num_workers)
    start = time.perf_counter()
    step()
    print("ready", time.perf_counter() - start, flush=True)
    step()
    for line in sys.stdin:
        if line.strip() == "end":
            break
        start = time.perf_counter()
        step()
        print("step", 1000 * (time.perf_counter() - start), flush=True)
    usage = resource.getrusage(resource.RUSAGE_SELF)
    print("end", usage.ru_maxrss / 1024, flush=True)


def _make_step(kind: str, num_workers: int) -> Callable[[], object]:
    import keras
    import numpy as np
    import tensorflow as tf

    import tf_gnc
    from tf_gnc.models.resnet import resnet

    model_class = keras.Model if kind == "keras" else tf_gnc.GNCModel
    # The projection shortcut is what the PyTorch loop has.
    model = resnet(
        5, CLASSES, SHAPE, shortcut="projection", model_class=model_class
    )
    arguments = {}
    if kind != "keras":
        rules = {
            "none": None,
            "gnc": tf_gnc.GradientNoise(alpha=0.1),
            "rnc": tf_gnc.RandomNoise(alpha=0.1, seed=1),
        }
        arguments = {"noise": rules[kind], "num_workers": num_workers}
    model.compile(
        keras.optimizers.SGD(0.1, momentum=0.9),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
        **arguments,
    )
    rng = np.random.default_rng(0)
    batch = num_workers * EXAMPLES_PER_WORKER
    x = rng.normal(size=(batch, *SHAPE)).astype("float32")
    y = rng.integers(0, CLASSES, batch)
    data = iter(tf.data.Dataset.from_tensors((x, y)).repeat())
    # What `fit` calls for each batch, callbacks left out.
    model.make_train_function()
    return lambda: model.train_function(data)


def _torch(flags: argparse.Namespace) -> dict[str, float]:
    output = subprocess.run(
        [flags.torch_python, flags.torch_script, "--workers=8", "--rounds=2"],
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    lines = [line.split() for line in output.splitlines()]
    return {line[0]: float(line[1]) for line in lines if len(line) > 2}


def _report(times: dict[str, list[float]], facts: dict[str, dict]) -> None:
    medians = {name: statistics.median(t) for name, t in times.items()}
    print("\n| variant | ms a step | first step, s | peak memory, MB |")
    print("|---|---|---|---|")
    for name, median in medians.items():
        fact = facts.get(name)
        rest = "- | -"
        if fact:
            rest = f"{fact['first']:.1f} | {fact['peak']:.0f}"
        print(f"| {name} | {median:.0f} | {rest} |")
    print("\n| ratio of medians | seen | goal |")
    print("|---|---|---|")
    for over, under, scale, goal in (
        ("gnc 8", "keras", 1, "0.75"),
        ("gnc 8", "none 8", 1, "1.05"),
        ("rnc 8", "none 8", 1, "-"),
        ("gnc 64", "gnc 8", 1 / 8, "1.10"),
        ("gnc 8", "torch gnc", 1, "1.00"),
        ("torch sam", "torch sgd", 1, "-"),
    ):
        if over in medians and under in medians:
            ratio = scale * medians[over] / medians[under]
            each = " per example" if scale != 1 else ""
            print(f"| {over} / {under}{each} | {ratio:.2f} | {goal} |")
    if "keras 1" in medians and "keras" in medians:
        share = 8 / len(os.sched_getaffinity(0))
        floor = share * medians["keras 1"] / medians["keras"]
        print(
            "| keras 1 / keras, 8 workers shared by the cores: the least that "
            f"gnc 8 / keras can be here | {floor:.2f} | - |"
        )
    for workers in (64, 256):
        gnc, none = facts.get(f"gnc {workers}"), facts.get(f"none {workers}")
        if gnc and none:
            extra = gnc["peak"] - none["peak"]
            noise = workers * _num_scalars() * 4 / 2**20
            print(
                f"| peak memory of gnc {workers} over none {workers} / "
                f"(V x weights x 4 bytes) | {extra:.0f} MB / {noise:.0f} MB = "
                f"{extra / noise:.2f} | 1.30 |"
            )


def _num_scalars() -> int:
    from tf_gnc.models.resnet import resnet

    model = resnet(5, CLASSES, SHAPE, shortcut="projection")
    return sum(v.numpy().size for v in model.trainable_variables)


def _processor() -> str:
    try:
        with open("/proc/cpuinfo") as file:
            lines = [line for line in file if line.startswith("model name")]
        return lines[0].split(":")[1].strip()
    except (OSError, IndexError):
        return platform.processor()


if __name__ == "__main__":
    main()
