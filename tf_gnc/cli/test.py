"""`tf-gnc test`: whether these machines train as one, in one sentence."""

import dataclasses
import functools
import sys

import tensorflow as tf

from tf_gnc._settings import setting, values_of
from tf_gnc.cli import command
from tf_gnc.cli.tensorflow_start import start_tensorflow
from tf_gnc.cli.train import TrainFlags
from tf_gnc.distribute.environment import find_cluster
from tf_gnc.distribute.strategies import is_chief
from tf_gnc.doctor.cluster import check_cluster, sentence
from tf_gnc.experiments import RunConfig
from tf_gnc.launch.meeting import silent_addresses

_SUMMARY = (
    "Says whether the devices and processes of a run train as one would "
    "alone. Start it as you would start `tf-gnc train`: by itself, with "
    "`tf-gnc launch --processes=2 -- test`, or by your own cluster manager in "
    "each process. A small network is trained for a dozen steps alone in each "
    "process and then by all together, and the weights are compared. Needs no "
    "data, writes nothing, takes some seconds. The exit code is 0 if all is "
    "well and 2 if not; the launcher doesn't start it again for that."
)
_NOT_READY = 2


@dataclasses.dataclass(frozen=True, kw_only=True)
class WaitFlag:
    """How long to wait for the other processes."""

    wait: int = setting(
        "Seconds to wait for the other processes.",
        300, minimum=1, group="This run",
    )  # fmt: skip


def _prepare(call: command.Call) -> command.Work:
    flags = values_of(TrainFlags, call.given)
    if flags.strategy in ("auto", "multi_worker"):
        _meet_the_others(values_of(WaitFlag, call.given).wait)
    strategy = start_tensorflow(
        call.given.get("threads"),
        call.verbose,
        flags.strategy,
        flags.logical_devices,
    )
    return functools.partial(_test, strategy)


def build_flags() -> command.FlagSet:
    """Returns the flags of `tf-gnc test`."""
    flag_set = command.FlagSet("tf-gnc test", _SUMMARY)
    flag_set.add(TrainFlags, "strategy", "logical_devices")
    flag_set.add(RunConfig, "threads")
    flag_set.add(WaitFlag)
    flag_set.add(command.VerboseFlag)
    return flag_set


def _meet_the_others(seconds: int) -> None:
    """Raises if a process of the cluster doesn't come."""
    cluster = find_cluster()
    if cluster is None:
        return
    own = cluster.jobs[cluster.task_type][cluster.task_id]
    everyone = [a for hosts in cluster.jobs.values() for a in hosts]
    silent = silent_addresses(everyone, own, seconds)
    if silent:
        raise ValueError(
            f"Not ready: nobody answers {own} at {', '.join(silent)}, got no "
            f"connection in {seconds} seconds. Start a process there, with "
            "the same list of addresses, and let the others reach its port"
        )


def _test(strategy: tf.distribute.Strategy) -> int:
    """Prints the report, and its sentence last; returns the exit code."""
    try:
        report = check_cluster(strategy)
    except tf.errors.OpError as error:
        # It tore the others down with it, whichever it was.
        raise command.Stopped(
            "Not ready: the processes lost each other while they trained "
            f"together ({error.message.splitlines()[0]}). If another process "
            "has ended, its own output says why",
            _NOT_READY,
        ) from error
    if is_chief(strategy):
        print(f"{report}\n{sentence(report, strategy)}")
    elif not report.ok:
        print(sentence(report, strategy), file=sys.stderr)
    return 0 if report.ok else _NOT_READY


COMMAND = command.Command(build_flags, _prepare)
