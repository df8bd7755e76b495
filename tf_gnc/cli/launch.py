"""`tf-gnc launch`: turns flags into a launcher.

All of what it does is in tf_gnc.launch.launcher. Imports no TensorFlow:
it must start at once and stay small beside the processes that it starts.
"""

from tf_gnc.cli.command import Call, Command, FlagSet, UsageError, Work
from tf_gnc.cli.main import COMMANDS
from tf_gnc.launch.launcher import Launcher, child_command

_USAGE = "tf-gnc launch"
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
    "that exits with 2, for a command that can't be carried out, is not "
    "restarted."
)


def _prepare(call: Call) -> Work:
    arguments = list(call.arguments)
    if "--" not in arguments:
        raise UsageError(
            "there must be -- between the launcher's flags and the command, "
            f"got none. Write {_USAGE} [--flags] {_COMMAND}."
        )
    words = arguments[arguments.index("--") + 1 :]
    if call.words != words:
        raise UsageError(
            f"only flags may stand before --, got {call.words[0]!r}. Write "
            f"the command after it: {_USAGE} [--flags] {_COMMAND}."
        )
    given = call.given
    if "machines" in given:
        names = given["machines"].split(",")
        given["machines"] = [name.strip() for name in names]
    return Launcher(child_command(words, COMMANDS), **given).run


def build_flags() -> FlagSet:
    """Returns the flags of `tf-gnc launch`."""
    flag_set = FlagSet(_USAGE, _SUMMARY, words=_COMMAND)
    with flag_set.group("Processes"):
        flag_set.integer(
            "processes",
            "How many to start on this machine. A process takes all GPUs "
            "that it sees: with GPUs use one for each machine. Default: 1.",
            minimum=1,
        )
        flag_set.integer(
            "max_restarts",
            "How often to start all again when one has died. A long run "
            "should outlive a lost machine or a full memory, and a mistake "
            "costs a few short starts; 0 for none. Default: 3.",
            minimum=0,
        )
    with flag_set.group("Several machines"):
        flag_set.text(
            "machines",
            "host:port of all machines, with commas between them. Start the "
            "launcher on each, with the same list. Each process takes a "
            "port: that one and those after it. Default: only this machine, "
            "any free ports.",
        )
        flag_set.integer(
            "machine_rank",
            "This machine's place in --machines, from 0.",
            minimum=0,
        )
    return flag_set


COMMAND = Command(build_flags, _prepare, failures=(OSError,))
