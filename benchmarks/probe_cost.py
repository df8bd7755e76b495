"""What the cheap measures of `tf_gnc.callbacks.Probe` cost a step.

    python benchmarks/probe_cost.py
    python benchmarks/probe_cost.py --rounds=5 --models=small

GNC with 8 workers of 32 examples each: ResNet-32, and a small dense network
whose step is mostly overhead. The same step with all cheap measures, read
after each step as the callback does, and without, in processes of their own
that take their turns, a round at a time; the table gives medians over the
rounds and the median of the rounds' ratios.
"""

import argparse
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable

WORKERS, EXAMPLES_PER_WORKER = 8, 32
# Name: steps in a round.
MODELS = {"resnet32": 1, "small": 50}
GOAL = 1.03


def main() -> None:
    """Runs the benchmark, or one side of it in a process of its own."""
    flags = _flags()
    if flags.child:
        _child(flags.child, flags.probing)
        return
    print(f"{platform.platform()}, {len(os.sched_getaffinity(0))} cores")
    print("| model | ms without | ms with | ratio | goal |")
    print("|---|---|---|---|---|")
    for model in flags.models.split(","):
        children = [_start(model, probing) for probing in (False, True)]
        times = []
        for number in range(flags.rounds):
            # Each side goes first every other time.
            order = (0, 1) if number % 2 else (1, 0)
            taken = {side: _step(children[side]) for side in order}
            times.append((taken[0], taken[1]))
        for child in children:
            child.stdin.close()
            child.wait()
        without, probed = (
            statistics.median(t) for t in zip(*times, strict=True)
        )
        ratio = statistics.median(b / a for a, b in times)
        print(
            f"| {model} | {without:.1f} | {probed:.1f} | {ratio:.3f} | {GOAL} |"
        )


def _flags() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=25)
    parser.add_argument("--models", default=",".join(MODELS))
    parser.add_argument("--child", choices=MODELS, help=argparse.SUPPRESS)
    parser.add_argument(
        "--probing", action="store_true", help=argparse.SUPPRESS
    )
    return parser.parse_args()


def _start(model: str, probing: bool) -> subprocess.Popen:
    command = [sys.executable, __file__, f"--child={model}"]
    child = subprocess.Popen(
        command + ["--probing"] * probing,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    _step(child)  # Traces the step.
    _step(child)
    return child


def _step(child: subprocess.Popen) -> float:
    """Has a process take a round of steps; returns milliseconds a step."""
    child.stdin.write("step\n")
    child.stdin.flush()
    line = child.stdout.readline()
    if not line:
        raise SystemExit("A process ended before it was told to.")
    return float(line)


def _child(name: str, probing: bool) -> None:
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    import tf_gnc

    tf_gnc.set_threads()
    step = _make_step(name, probing)
    for _ in sys.stdin:
        start = time.perf_counter()
        for _ in range(MODELS[name]):
            step()
        seconds = time.perf_counter() - start
        print(1000 * seconds / MODELS[name], flush=True)


def _make_step(name: str, probing: bool) -> Callable[[], object]:
    import keras
    import numpy as np
    import tensorflow as tf

    import tf_gnc
    from tf_gnc.callbacks.measures import CHEAP
    from tf_gnc.models.resnet import resnet
    from tf_gnc.step.control import control_of

    if name == "small":
        shape = (32,)
        inputs = keras.Input(shape)
        h = keras.layers.Dense(64, activation="relu")(inputs)
        model = tf_gnc.GNCModel(inputs, keras.layers.Dense(10)(h))
    else:
        shape = (32, 32, 3)
        model = resnet(5, 10, shape, model_class=tf_gnc.GNCModel)
    model.compile(
        keras.optimizers.SGD(0.01, momentum=0.9),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        noise=tf_gnc.GradientNoise(alpha=0.1),
        num_workers=WORKERS,
    )
    control_of(model).keeps_table = probing
    rng = np.random.default_rng(0)
    batch = WORKERS * EXAMPLES_PER_WORKER
    x = rng.normal(size=(batch, *shape)).astype("float32")
    y = rng.integers(0, 10, batch)
    data = iter(tf.data.Dataset.from_tensors((x, y)).repeat())
    # What `fit` calls for each batch, callbacks left out.
    model.make_train_function()

    def step() -> None:
        model.train_function(data)
        if probing:
            table = model.step_plan.table.read(model.distribute_strategy)
            for measure in CHEAP.values():
                measure(table)

    return step


if __name__ == "__main__":
    main()
