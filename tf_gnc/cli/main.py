"""The entry point of `tf-gnc`: finds the subcommand and calls it.

Knows the subcommands' names and nothing of what they do. It imports only the
one that was asked for, with TensorFlow's start-up chatter held back, so that
what is printed is what the command has to say.
"""

import contextlib
import dataclasses
import difflib
import importlib
import sys
import types
from collections.abc import Mapping, Sequence

from tf_gnc._version import __version__
from tf_gnc.cli import startup


@dataclasses.dataclass(frozen=True)
class Command:
    """A subcommand.

    Attributes:
        module: Has `main(arguments) -> exit code`.
        summary: One line for `tf-gnc --help`.
    """

    module: str
    summary: str


COMMANDS: Mapping[str, Command] = types.MappingProxyType(
    {
        "train": Command(
            "tf_gnc.cli.train",
            "Train a model; with no flags, GNC on handwritten digits.",
        ),
        "compare": Command(
            "tf_gnc.cli.compare",
            "Compare methods over several seeds; a table and a page.",
        ),
        "reproduce": Command(
            "tf_gnc.cli.reproduce",
            "Run a table of the paper from its recipes.",
        ),
        "tune": Command(
            "tf_gnc.cli.tune",
            "Search the noise's coefficient alpha on short runs.",
        ),
        "analyze": Command(
            "tf_gnc.cli.analyze",
            "Draw the paper's figures from what runs have recorded.",
        ),
        "launch": Command(
            "tf_gnc.cli.launch",
            "Run a command in several processes that train together.",
        ),
        "doctor": Command(
            "tf_gnc.cli.doctor",
            "Check that a run would fit and that its noise would be on.",
        ),
    }
)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs `tf-gnc` and returns its exit code.

    Args:
        argv: The words after `tf-gnc`. Default: those of this process.

    Returns:
        0 if all went well, 1 for a run that failed, 2 for a command that
        can't be carried out, 130 if the user interrupted it.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    name = arguments[0] if arguments else "--help"
    if name in ("-h", "--help", "help"):
        print(_help())
        return 0
    if name == "--version":
        print(f"tf-gnc {__version__}")
        return 0
    if name not in COMMANDS:
        return _unknown(name)
    try:
        # What the launcher starts may be any program; it gets no log level.
        starts = contextlib.nullcontext()
        if name != "launch":
            starts = startup.quiet_start(arguments)
        with starts:
            module = importlib.import_module(COMMANDS[name].module)
        return module.main(arguments[1:])
    except KeyboardInterrupt:
        print(f"\ntf-gnc {name}: interrupted.", file=sys.stderr)
        return 130


def _help() -> str:
    width = max(map(len, COMMANDS))
    lines = [
        "Gradient noise convolution (GNC) for Keras.",
        "",
        "Usage: tf-gnc <command> [--flags]",
        "",
        "Commands:",
        *(f"  {name:{width}}  {c.summary}" for name, c in COMMANDS.items()),
        "",
        "`tf-gnc <command> --help` lists a command's flags, "
        "`tf-gnc --version` the version.",
    ]
    return "\n".join(lines)


def _unknown(name: str) -> int:
    legal = ", ".join(COMMANDS)
    near = difflib.get_close_matches(name, COMMANDS, n=1)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    print(
        f"tf-gnc: error: no command {name!r}; there is: {legal}.{hint}",
        file=sys.stderr,
    )
    return 2


if __name__ == "__main__":
    sys.exit(main())
