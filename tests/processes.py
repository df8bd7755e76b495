"""Runs scenarios in several processes, for tests of what they do together.

A scenario is a function of a test module. It takes a strategy, whose replicas
live in all processes, and a folder that they share; what it returns must be
picklable. All processes run the same ones, one after another, so that a single
start of a few seconds serves many:

    results = processes.run([one, other], num_processes=2)
    first, second = results[one]  # what each process has returned
"""

import contextlib
import faulthandler
import importlib
import json
import os
import pathlib
import pickle
import socket
import subprocess
import sys
import tempfile
import time
import traceback

ROOT = pathlib.Path(__file__).parents[1]
# For a deadlock: nothing else waits for it.
TIMEOUT = 560


class Results(dict):
    """What each process has returned, in a list, by scenario."""

    def __getitem__(self, scenario):
        outcomes = super().__getitem__(name_of(scenario))
        for index, (fine, outcome) in enumerate(outcomes):
            assert fine, f"In process {index}:\n{outcome}"
        return [outcome for _, outcome in outcomes]


def run(scenarios, *, num_processes, replicas=1, shared=None, timeout=TIMEOUT):
    """Runs scenarios in several processes on this machine.

    Args:
        scenarios: Functions of modules, in the order in which they run.
        num_processes: How many processes.
        replicas: Logical CPUs, and so replicas, of each process.
        shared: Has the scenarios' folders, by `name_of`; a temporary one by
            default.
        timeout: Seconds for all of it.

    Returns:
        `Results`.
    """
    names = [name_of(scenario) for scenario in scenarios]
    cluster = {"worker": free_addresses(num_processes)}
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as end:
        folder = pathlib.Path(folder)
        started = []
        for index in range(num_processes):
            task = {"type": "worker", "index": index}
            environment = {
                "CUDA_VISIBLE_DEVICES": "-1",
                "TF_CONFIG": json.dumps({"cluster": cluster, "task": task}),
                "TF_CPP_MIN_LOG_LEVEL": "2",
                "TF_NUM_INTRAOP_THREADS": "1",
            }
            output = end.enter_context((folder / f"output-{index}").open("w"))
            process = subprocess.Popen(
                [sys.executable, "-m", "tests.processes"]
                + [str(folder), str(shared or folder / "shared")]
                + [str(replicas), str(timeout), *names],
                cwd=ROOT,
                env={**os.environ, **environment},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
            )
            end.callback(process.wait)
            end.callback(process.kill)
            started.append(process)
        for process in started:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(timeout + 10)  # They end themselves before.
        return _collect(folder, names, [p.poll() for p in started])


def error_of(call):
    """Returns the type and the text of the error that a call raises."""
    try:
        call()
    except Exception as error:
        return type(error).__name__, str(error)
    return None, "no error"


def name_of(scenario):
    return f"{scenario.__module__}:{scenario.__name__}"


def free_addresses(number):
    """Returns addresses on this machine that nobody listens at."""
    with contextlib.ExitStack() as opened:
        sockets = [opened.enter_context(socket.socket()) for _ in range(number)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [f"127.0.0.1:{each.getsockname()[1]}" for each in sockets]


def _collect(folder, names, codes):
    results = Results()
    for name in names:
        paths = [folder / f"{name}-{index}" for index in range(len(codes))]
        if not all(path.exists() for path in paths):
            break
        results[name] = [pickle.loads(path.read_bytes()) for path in paths]
    else:
        if not any(codes):
            return results
    texts = [
        (folder / f"output-{index}").read_text()[-4000:]
        for index in range(len(codes))
    ]
    failed = [
        text for outcomes in results.values() for ok, text in outcomes if not ok
    ]
    raise AssertionError(
        f"After {list(results)} the processes ended with {codes}.\n"
        + "\n".join([*failed, *texts])
    )


def _main(folder, shared, replicas, timeout, *names):
    faulthandler.dump_traceback_later(float(timeout), exit=True)
    import keras
    import tensorflow as tf

    from tf_gnc.distribute import make_strategy, process_index

    tf.config.set_logical_device_configuration(
        tf.config.list_physical_devices("CPU")[0],
        [tf.config.LogicalDeviceConfiguration()] * int(replicas),
    )
    strategy = make_strategy("multi_worker")
    index, folder = process_index(strategy), pathlib.Path(folder)
    for name in names:
        keras.utils.set_random_seed(1)
        keras.config.set_dtype_policy("float32")
        own = pathlib.Path(shared) / name
        own.mkdir(parents=True, exist_ok=True)
        try:
            module, function = name.split(":")
            scenario = getattr(importlib.import_module(module), function)
            outcome = True, scenario(strategy, own)
        except Exception:
            outcome = False, traceback.format_exc()
        draft = folder / f"draft-{index}"
        draft.write_bytes(pickle.dumps(outcome))
        draft.rename(folder / f"{name}-{index}")
    sys.stdout.flush()
    sys.stderr.flush()
    # What TensorFlow does at exit may wait for a minute for the threads of
    # data sets. The first process, which serves the others, goes last.
    time.sleep(0.5 if index else 1.5)
    os._exit(0)


if __name__ == "__main__":
    _main(*sys.argv[1:])
