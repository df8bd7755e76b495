"""What several processes cost: one GNC step, the same workers and cores.

    python benchmarks/scaling.py
    taskset -c 0,1 python benchmarks/scaling.py --rounds=15

ResNet-32, 8 workers of 32 examples, on the cores that this process may use:
by one process that has them all, by two that have half of them each, by four
that share them. The groups take their steps in turn, a round at a time, so
that whatever else the machine does falls on all alike; the table gives medians
over the rounds. The processes talk over loopback, by TensorFlow's ring.
"""

import argparse
import contextlib
import json
import os
import statistics
import subprocess
import sys
import time

from tf_gnc.launch import addresses

NUM_WORKERS, EXAMPLES_PER_WORKER = 8, 32
SHAPE, CLASSES = (32, 32, 3), 100
GOAL = {2: "0.85"}


def main() -> None:
    """Runs the benchmark, or one process of a group."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--processes", default="1,2,4")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    flags = parser.parse_args()
    if flags.child:
        _child()
        return
    counts = [int(n) for n in flags.processes.split(",")]
    cores = len(os.sched_getaffinity(0))
    print(f"{NUM_WORKERS} workers x {EXAMPLES_PER_WORKER}, {cores} cores")
    with contextlib.ExitStack() as stack:
        groups = {n: stack.enter_context(_Group(n)) for n in counts}
        times = {n: [] for n in counts}
        for number in range(flags.rounds):
            for count, group in groups.items():
                times[count].append(group.step())
            print(f"round {number + 1} of {flags.rounds}", file=sys.stderr)
    medians = {n: statistics.median(t) for n, t in times.items()}
    first = medians[counts[0]]
    print(
        "\n| processes | cores each | ms a step | examples a second "
        f"| throughput over {counts[0]} process | goal |"
    )
    print("|---|---|---|---|---|---|")
    for count, median in medians.items():
        rate = 1000 * NUM_WORKERS * EXAMPLES_PER_WORKER / median
        print(
            f"| {count} | {cores / count:g} | {median:.0f} | {rate:.0f} "
            f"| {first / median:.2f} | {GOAL.get(count, '-')} |"
        )


class _Group:
    """Processes of one run, which step when told to."""

    def __init__(self, count: int) -> None:
        ports = addresses.free_ports(count)
        hosts = [f"127.0.0.1:{port}" for port in ports]
        shares = addresses.split_cores(os.sched_getaffinity(0), count)
        self._processes = []
        for index, share in enumerate(shares):
            environment = dict(os.environ, TF_CPP_MIN_LOG_LEVEL="3")
            if count > 1:
                config = addresses.tf_config(hosts, index)
                if not isinstance(config, str):
                    config = json.dumps(config)
                environment["TF_CONFIG"] = config
            process = subprocess.Popen(
                [sys.executable, __file__, "--child"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env=environment,
                text=True,
            )
            os.sched_setaffinity(process.pid, share)
            self._processes.append(process)
        self._read()

    def __enter__(self) -> "_Group":
        return self

    def __exit__(self, *unused: object) -> None:
        for process in self._processes:
            process.kill()
            process.wait()

    def step(self) -> float:
        """Returns the milliseconds until all processes have taken a step."""
        start = time.perf_counter()
        for process in self._processes:
            process.stdin.write("step\n")
            process.stdin.flush()
        self._read()
        return 1000 * (time.perf_counter() - start)

    def _read(self) -> None:
        for process in self._processes:
            for line in process.stdout:
                if line == "done\n":
                    break
            else:
                raise SystemExit("A process has ended before its time.")


def _child() -> None:
    import keras
    import numpy as np
    import tensorflow as tf

    import tf_gnc
    from tf_gnc.distribute import make_strategy
    from tf_gnc.distribute.sharding import make_own_rows
    from tf_gnc.models.resnet import resnet

    tf_gnc.set_threads()
    strategy = make_strategy("auto")
    batch = NUM_WORKERS * EXAMPLES_PER_WORKER
    rng = np.random.default_rng(0)
    x = rng.normal(size=(batch, *SHAPE)).astype("float32")
    y = rng.integers(0, CLASSES, batch)

    def make_rows(start: int, stop: int) -> tf.data.Dataset:
        rows = x[start:stop], y[start:stop]
        return tf.data.Dataset.from_tensors(rows).repeat()

    with strategy.scope():
        model = resnet(5, CLASSES, SHAPE, model_class=tf_gnc.GNCModel)
        model.compile(
            keras.optimizers.SGD(0.1, momentum=0.9),
            keras.losses.SparseCategoricalCrossentropy(from_logits=True),
            metrics=["accuracy"],
            noise=tf_gnc.GradientNoise(alpha=0.1),
            num_workers=NUM_WORKERS,
        )
    data = make_own_rows(make_rows, batch, strategy)
    # Two steps build and warm up all that `fit` calls for each batch.
    model.fit(data, steps_per_epoch=2, verbose=0)
    iterator = iter(data)
    print("done", flush=True)
    for _ in sys.stdin:
        logs = model.train_function(iterator)
        float(logs["loss"])
        print("done", flush=True)


if __name__ == "__main__":
    main()
