"""A subcommand's flags: parsed, explained, and told apart by who set them.

A thin layer over absl's flags. Each subcommand has a set of its own, so that
one process can parse many command lines and no import adds a flag by stealth.
"""

import contextlib
import textwrap
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from absl import flags


class UsageError(ValueError):
    """A command line that can't be understood; the message says why."""


class FlagSet:
    """The flags of one subcommand, in groups.

    A flag whose default is None tells "not given" from every value.

    Args:
        usage: How the command is called, for instance `"tf-gnc train"`.
        summary: What the command does, for its help.

    Example:
        >>> flag_set = FlagSet("tf-gnc train", "Trains.")
        >>> with flag_set.group("Size"):
        ...     flag_set.integer("epochs", "How long.", minimum=1)
        >>> flag_set.parse(["--epochs=3"])
        {'epochs': 3}
    """

    def __init__(self, usage: str, summary: str) -> None:
        """Makes an empty set; see the class."""
        self.usage = usage
        self.summary = summary
        self.values = flags.FlagValues()
        self._groups: dict[str, list[str]] = {}
        self._open_group: list[str] = []

    @contextlib.contextmanager
    def group(self, title: str) -> Iterator[None]:
        """Puts the flags that are defined inside under a title."""
        self._open_group = self._groups[title] = []
        yield
        self._open_group = []

    def integer(self, name: str, text: str, *, minimum: int) -> None:
        """Defines a flag for a whole number without a fixed default."""
        flags.DEFINE_integer(
            name, None, text, lower_bound=minimum, flag_values=self.values
        )
        self._open_group.append(name)

    def number(
        self, name: str, text: str, default: float | None = None
    ) -> None:
        """Defines a flag for a number; its range is checked elsewhere."""
        flags.DEFINE_float(name, default, text, flag_values=self.values)
        self._open_group.append(name)

    def choice(
        self, name: str, choices: Iterable[str], text: str, default: str | None
    ) -> None:
        """Defines a flag for one of several words."""
        flags.DEFINE_enum(
            name, default, list(choices), text, flag_values=self.values
        )
        self._open_group.append(name)

    def text(self, name: str, text: str) -> None:
        """Defines a flag for any text, without a fixed default."""
        flags.DEFINE_string(name, None, text, flag_values=self.values)
        self._open_group.append(name)

    def switch(self, name: str, text: str, default: bool) -> None:
        """Defines a flag that is on or off: --name or --noname."""
        flags.DEFINE_boolean(name, default, text, flag_values=self.values)
        self._open_group.append(name)

    def alias(self, name: str, original: str) -> None:
        """Lets `--name` stand for `--original`; the help leaves it out."""
        flags.DEFINE_alias(name, original, flag_values=self.values)

    def leave_out(self, names: Iterable[str]) -> None:
        """Takes flags away, for a subcommand that has most of another's."""
        for name in names:
            delattr(self.values, name)
            for group in self._groups.values():
                if name in group:
                    group.remove(name)

    def parse(self, arguments: Sequence[str]) -> dict[str, Any]:
        """Returns the flags that were given, and no defaults.

        Args:
            arguments: The words after the subcommand.

        Raises:
            UsageError: If a flag is unknown or its value illegal, or if
                there is a word that is no flag.
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
        if rest:
            raise UsageError(
                f"only flags are understood, got {rest[0]!r}. "
                f"`{self.usage} --help` lists them."
            )
        names = [name for group in self._groups.values() for name in group]
        return {
            name: self.values[name].value
            for name in names
            if self.values[name].present
        }

    def help(self) -> str:
        """Returns the help page."""
        lines = [f"Usage: {self.usage} [--flags]", ""]
        lines += textwrap.wrap(self.summary, 78)
        for title, names in self._groups.items():
            if not names:  # left out, all of them
                continue
            lines += ["", f"{title}:"]
            for name in names:
                lines += _explain(self.values[name])
        return "\n".join(lines)


def _explain(flag: flags.Flag) -> list[str]:
    """Returns one flag's lines of the help page."""
    head, text = f"  --{flag.name}", flag.help
    if flag.boolean:
        head = f"  --[no]{flag.name}"
    elif isinstance(flag.parser, flags.EnumParser):
        legal = f"<{'|'.join(flag.parser.enum_values)}>"
        head, text = f"{head}={legal}", text.removeprefix(f"{legal}: ")
    else:
        head += f"=<{flag.flag_type()}>"
    if flag.default is not None:
        default = flag.default
        if flag.boolean:
            default = "on" if default else "off"
        text += f" Default: {default}."
    indent = " " * 6
    return [
        head,
        *textwrap.wrap(
            text, 78, initial_indent=indent, subsequent_indent=indent
        ),
    ]
