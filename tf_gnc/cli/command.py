"""A subcommand: its flags, its help, and what an error costs.

The flags are absl's. Each subcommand has a set of its own, so that one process
can parse many command lines and an import adds no flag to another's. Imports
no TensorFlow: the launcher starts at once.
"""

import dataclasses
import shlex
import sys
import textwrap
import traceback
from collections.abc import Callable, Sequence
from typing import Any

from absl import flags

from tf_gnc._files import MissingExtraError
from tf_gnc._settings import Setting, setting, settings_of

# What a call can't be done for.
_UNABLE = (ValueError, OSError, RuntimeError, MissingExtraError)

_HELP = {"-h", "--help", "-help"}


class UsageError(ValueError):
    """A command line that can't be understood; the message says why."""


class Stopped(Exception):
    """A command that ends before its work is done, with an exit code."""

    def __init__(self, message: str, code: int) -> None:
        super().__init__(message)
        self.code = code


@dataclasses.dataclass(frozen=True, kw_only=True)
class VerboseFlag:
    """How much is shown."""

    verbose: bool = setting(
        "Show TensorFlow's messages, and tracebacks of errors.",
        False, group="Messages",
    )  # fmt: skip


class FlagSet:
    """The flags of one subcommand, in groups.

    A flag has no default, so that "not given" can be told from every value;
    the help says what holds then. `words` is what may stand beside the flags,
    for instance `"RUN [RUN ...]"`; beginning with `--`, it comes behind them.
    """

    def __init__(self, usage: str, summary: str, words: str = "") -> None:
        self.usage = usage
        self.summary = summary
        self.words = words
        self.values = flags.FlagValues()
        self.values.set_gnu_getopt()  # Flags may stand behind other words.
        self._settings: list[Setting] = []

    def add(self, described: type, *names: str) -> None:
        """Defines the flags of a dataclass's settings, all or those named."""
        settings = settings_of(described)
        for name in names or settings:
            self.define(settings[name])

    def define(self, described: Setting) -> None:
        """Defines the flag of a setting; the help leaves out group ""."""
        make, options = flags.DEFINE_string, {}
        if described.kind is bool:
            make = flags.DEFINE_boolean
        elif described.choices:
            make = flags.DEFINE_enum
            options = {"enum_values": list(described.choices)}
        elif described.kind is int:
            make = flags.DEFINE_integer
            options = {"lower_bound": described.minimum}
        elif described.kind is float:
            make = flags.DEFINE_float
        make(described.flag, None, help="", flag_values=self.values, **options)
        self._settings.append(described)

    def alias(self, name: str, original: str) -> None:
        """Lets `--name` stand for `--original`; the help leaves it out."""
        flags.DEFINE_alias(name, original, flag_values=self.values)

    def parse(
        self, arguments: Sequence[str]
    ) -> tuple[dict[str, Any], list[str]]:
        """Returns the flags that were given, and the words that are no flags.

        Raises:
            UsageError: If a flag is unknown or its value illegal, or if
                there is a word that is no flag where none is expected.
        """
        self.values.unparse_flags()
        try:
            rest = self.values([self.usage, *arguments])[1:]
        except flags.Error as error:
            message = str(error).rstrip(" .?")
            ending = "?" if "Did you mean" in message else "."
            raise UsageError(
                f"{message}{ending} `{self.usage} --help` lists the flags."
            ) from error
        if rest and not self.words:
            raise UsageError(
                f"only flags are understood, got {rest[0]!r}. "
                f"`{self.usage} --help` lists them."
            )
        given = {
            described.name: self.values[described.flag].value
            for described in self._settings
            if self.values[described.flag].present
        }
        return given, rest

    def help(self) -> str:
        """Returns the help page."""
        order = [self.words, "[--flags]"]
        if self.words.startswith("--"):
            order.reverse()
        lines = [" ".join(["Usage:", self.usage, *filter(None, order)]), ""]
        lines += textwrap.wrap(self.summary, 78)
        groups: dict[str, list[str]] = {}
        for described in self._settings:
            groups.setdefault(described.group, []).append(_explain(described))
        groups.pop("", None)
        for title, explained in groups.items():
            lines += ["", f"{title}:", *explained]
        return "\n".join(lines)


def comma_list(text: str) -> list[str]:
    """Returns the words in a text with commas between them."""
    return [word.strip() for word in text.split(",")]


@dataclasses.dataclass
class Call:
    """A subcommand as somebody has called it.

    Attributes:
        usage: How the subcommand is called, for instance `"tf-gnc train"`.
        arguments: The words after it.
        given: The flags among them, without defaults.
        words: Those that are no flags.
        kept: A sentence for the end of an error, which says where to find
            what was written so far.
    """

    usage: str
    arguments: Sequence[str]
    given: dict[str, Any]
    words: Sequence[str] = ()
    kept: str = ""

    @property
    def line(self) -> str:
        """The whole command line, as one would write it in a shell."""
        return shlex.join([*self.usage.split(), *self.arguments])

    @property
    def verbose(self) -> bool:
        """Whether to show all messages, and tracebacks of errors."""
        return self.given.get("verbose", False)

    def say(self, message: str) -> None:
        """Prints a message to standard error, as one line."""
        line = f"{self.usage}: {message} {self.kept}"
        print(" ".join(line.split()), file=sys.stderr)

    def say_error(self, error: Exception) -> None:
        """Prints an error, after its traceback if all is to be shown."""
        if self.verbose:
            traceback.print_exception(error)
        message = str(error)
        if isinstance(error, OSError) and error.strerror:
            # Without the number that Python puts in front.
            where = f" ({error.filename})" if error.filename else ""
            message = f"{error.strerror}{where}"
        self.say(f"error: {message.rstrip('.')}.")


Work = Callable[[], int | None]
"""Returns the exit code; None is 0."""


@dataclasses.dataclass(frozen=True)
class Command:
    """A subcommand.

    Attributes:
        build_flags: Returns its flags.
        prepare: Looks at a call and returns the work to be done. What it
            raises means that the work can't be done: exit code 2.
        failures: What the work may raise without anything being wrong in the
            program: exit code 1.
    """

    build_flags: Callable[[], FlagSet]
    prepare: Callable[[Call], Work]
    failures: tuple[type[Exception], ...] = (ValueError, OSError)


def run(
    usage: str, load: Callable[[], Command], arguments: Sequence[str]
) -> int:
    """Runs the subcommand that `load` imports, and returns its exit code."""
    words = list(arguments)
    before_dashes = words[: words.index("--")] if "--" in words else words
    call = Call(usage, words, {"verbose": "--verbose" in before_dashes})
    try:
        command = load()
        flag_set = command.build_flags()
        if _HELP & set(before_dashes):
            print(flag_set.help())
            return 0
        try:
            call.given, call.words = flag_set.parse(words)
            work = command.prepare(call)
        except _UNABLE as error:
            call.say_error(error)
            return 2
        try:
            return work() or 0
        except BrokenPipeError:
            if call.kept:
                call.say("nobody reads the output any more.")
            raise
        except command.failures as error:
            call.say_error(error)
            return 1
    except KeyboardInterrupt:
        stopped = Stopped("interrupted", 130)
    except Stopped as error:
        stopped = error
    print(file=sys.stderr)  # The terminal shows ^C.
    call.say(f"{stopped}.")
    return stopped.code


def _explain(described: Setting) -> str:
    """Returns one flag's lines of the help page."""
    head = f"  --[no]{described.flag}"
    if described.kind is not bool:
        kind = described.kind.__name__.replace("str", "string")
        head = f"  --{described.flag}=<{'|'.join(described.choices) or kind}>"
    text = textwrap.fill(described.help_with_default, 72)
    return f"{head}\n{textwrap.indent(text, ' ' * 6)}"
