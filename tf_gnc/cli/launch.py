"""`tf-gnc launch`: turns flags into a launcher.

Imports no TensorFlow: it must start at once and stay small beside the processes
that it starts.
"""

import dataclasses
import os

from tf_gnc._settings import setting
from tf_gnc.cli import command
from tf_gnc.cli.main import COMMANDS
from tf_gnc.cli.tensorflow_start import quiet_start
from tf_gnc.launch.launcher import Launcher, child_command

_COMMAND = "-- <command> [arguments]"
_SUMMARY = (
    "Runs a command in several processes that train together, on this "
    "machine or on several. The command is one of tf-gnc's (train ...), a "
    "Python script (script.py ...), -m and a module, or a program. Each "
    "process gets TF_CONFIG, TF_GNC_PROCESS (its number, from 0), "
    "TF_GNC_RESTART (restarts so far) and a share of the cores. If one dies, "
    "all are ended and started again; where they go on is up to the "
    "command's own backup. What a process leaves running ends with it. "
    "Signals are passed on. The exit code is 0 if all went well, else that "
    "of the process that died first, 128 + n for signal n. A process that "
    "exits with 75 asks for a restart, which counts as no failure; if "
    "the launcher itself was told to stop, it exits with 75 too. A process "
    "that exits with 2, for a command that can't be run, is not restarted."
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class LaunchFlags:
    """What `Launcher` takes."""

    processes: int | None = setting(
        "How many to start on this machine. A process takes all GPUs "
        "that it sees: with GPUs use one for each machine. Default: 1.",
        None, minimum=1, group="Processes",
    )  # fmt: skip
    max_restarts: int | None = setting(
        "How often to start all again when one has died. A long run "
        "should outlive a lost machine or a full memory, and a mistake "
        "costs a few short starts; 0 for none. Default: 3.",
        None, minimum=0, group="Processes",
    )  # fmt: skip
    machines: str | None = setting(
        "host:port of all machines, with commas between them. Start the "
        "launcher on each, with the same list. Each process takes a "
        "port: that one and those after it. Default: only this machine, "
        "any free ports.",
        None, group="Several machines",
    )  # fmt: skip
    machine_rank: int | None = setting(
        "This machine's number in --machines, from 0.",
        None, minimum=0, group="Several machines",
    )  # fmt: skip


@dataclasses.dataclass(frozen=True, kw_only=True)
class DryRunFlag:
    """Whether anything is started."""

    dry_run: bool = setting(
        "Start nothing. Print what each process would be: its environment "
        "and cores and, of `train`, its replicas, workers, rows and the "
        "memory of its noise.",
        False, group="Processes",
    )  # fmt: skip


def _prepare(call: command.Call) -> command.Work:
    arguments = list(call.arguments)
    if "--" not in arguments:
        raise command.UsageError(
            "there must be -- between the launcher's flags and the command, "
            f"got none. Write {call.usage} [--flags] {_COMMAND}."
        )
    words = arguments[arguments.index("--") + 1 :]
    if call.words != words:
        raise command.UsageError(
            f"only flags may stand before --, got {call.words[0]!r}. Write "
            f"the command after it: {call.usage} [--flags] {_COMMAND}."
        )
    given = call.given
    if "machines" in given:
        given["machines"] = command.comma_list(given["machines"])
    is_dry = given.pop("dry_run", False)
    launcher = Launcher(child_command(words, COMMANDS), **given)
    if not is_dry:
        return launcher.run
    text = _describe(launcher, words)
    return lambda: print(text)


def _describe(launcher: Launcher, words: list[str]) -> str:
    """Returns what each process of this machine would be, some lines each."""
    share = None
    if words[0] == "train":
        # It needs TensorFlow, which a launcher that starts something doesn't.
        with quiet_start():
            from tf_gnc.cli import dry_run, train

            devices = dry_run.num_gpus()
        given, _ = train.build_flags().parse(words[1:])
        config = train.config_of(given)
        share = dry_run.Share(config, launcher.num_processes, devices)
    lines = []
    for spec in launcher.specs():
        lines.append(f"process {spec.index}:")
        if share is not None:
            lines.append(f"  {share.of(spec.index)}")
        if spec.cores is not None:
            lines.append(f"  cores {', '.join(map(str, sorted(spec.cores)))}")
        lines += [
            f"  {name}={value}"
            for name, value in sorted(spec.environment.items())
            if os.environ.get(name) != value
        ]
    return "\n".join(lines)


def build_flags() -> command.FlagSet:
    """Returns the flags of `tf-gnc launch`."""
    flag_set = command.FlagSet("tf-gnc launch", _SUMMARY, words=_COMMAND)
    flag_set.add(LaunchFlags)
    flag_set.add(DryRunFlag)
    return flag_set


COMMAND = command.Command(build_flags, _prepare, failures=(OSError,))
