"""The entry point of `tf-gnc`: finds the subcommand and calls it.

Knows the subcommands' names and nothing of what they do. It imports only the
one that was asked for, with TensorFlow's start-up messages held back.
"""

import contextlib
import difflib
import importlib
import os
import signal
import sys
import types
from collections.abc import Mapping, Sequence
from typing import Any

from tf_gnc._version import __version__
from tf_gnc.cli.tensorflow_start import quiet_start

COMMANDS: Mapping[str, str] = types.MappingProxyType(
    {
        "train": "Train a model; with no flags, GNC on handwritten digits.",
        "compare": "Compare methods over several seeds; a table and a page.",
        "reproduce": "Run a table or a figure of the paper from its recipes.",
        "tune": "Search the noise's coefficient alpha on short runs.",
        "analyze": "Draw the paper's figures from what runs have recorded.",
        "launch": "Run a command in several processes that train together.",
        "doctor": "Check that a run would fit and that its noise would be on.",
        "test": "Train a little alone and on all processes, and compare.",
    }
)
"""The subcommands, each with a line for `tf-gnc --help`.

Each has a module of its name in this folder, with a `COMMAND`.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs `tf-gnc` with the words after it, or those of this process.

    Returns the exit code: 0 if all went well, 1 for a run that failed, 2 for a
    command that can't be run, 75 for one that was stopped and goes on when it
    is started again, 130 if the user interrupted it, 141 if nobody reads what
    it prints.
    """
    try:
        code = _run(list(sys.argv[1:] if argv is None else argv))
        print(end="", flush=True)  # Now, while the error can be caught.
    except BrokenPipeError:
        # Nobody reads any more (`| head`). What is still to be written goes
        # nowhere, or Python would complain at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE
    return code


def _run(arguments: list[str]) -> int:
    name = arguments[0] if arguments else "--help"
    if name in ("-h", "--help", "help"):
        print(_help())
        return 0
    if name == "--version":
        print(f"tf-gnc {__version__}")
        return 0
    if name not in COMMANDS:
        near = difflib.get_close_matches(name, COMMANDS, n=1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        print(
            f"tf-gnc: error: no command {name!r}; the commands are: "
            f"{', '.join(COMMANDS)}.{hint}",
            file=sys.stderr,
        )
        return 2
    # absl takes a while to import, and what is above needs none of it.
    from tf_gnc.cli import command

    def load() -> Any:
        # What the launcher starts may be any program; it gets no log level.
        quiet = contextlib.nullcontext()
        if name != "launch":
            quiet = quiet_start("--verbose" in arguments)
        with quiet:
            return importlib.import_module(f"tf_gnc.cli.{name}").COMMAND

    return command.run(f"tf-gnc {name}", load, arguments[1:])


def _help() -> str:
    width = max(map(len, COMMANDS))
    lines = [
        "Gradient noise convolution (GNC) for Keras.",
        "",
        "Usage: tf-gnc <command> [--flags]",
        "",
        "Commands:",
        *(f"  {name:{width}}  {text}" for name, text in COMMANDS.items()),
        "",
        "`tf-gnc <command> --help` lists a command's flags, "
        "`tf-gnc --version` the version.",
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
