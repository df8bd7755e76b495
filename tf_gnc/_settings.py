"""What a setting is: its type, its default, what is legal, and its help.

A setting is described once, where it stands: as a field made by `setting`, or
as an argument of the function or class that makes a method's noise. Checks,
flags and help are made from that.
"""

import dataclasses
import functools
import inspect
import re
import types
import typing
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from typing import Any

from tf_gnc import _check

REQUIRED = dataclasses.MISSING
"""The default of a setting that has none."""


@dataclasses.dataclass(frozen=True)
class Setting:
    """One setting, whether of a run, of a method or of a command.

    A `check` stands in place of bounds and choices: it takes name and value
    and returns the value, or raises a ValueError. `only_with` names other
    settings, and the values with which alone this one does something, or what
    returns these.
    """

    name: str  # in Python
    kind: type  # float, int, bool or str
    default: Any = REQUIRED
    optional: bool = False  # It may be None.
    help: str = ""  # without the default
    group: str = ""  # the title under which the help lists its flag
    flag: str = ""  # its name on the command line
    minimum: float | None = None
    above: float | None = None  # no legal value itself
    maximum: float | None = None
    choices: Collection[str] = ()
    check: Callable[[str, Any], Any] | None = None
    only_with: Mapping[str, Collection[Any] | Callable[[], Collection[Any]]] = (
        dataclasses.field(default_factory=dict)
    )
    indifferent: bool = False  # It changes nothing in what comes out.

    @property
    def help_with_default(self) -> str:
        """The help, and the default unless the help itself has it."""
        return with_default(self.help, show_default(self.default))

    def checked(self, value: Any) -> Any:
        """Returns a legal value in its plain Python type; refuses others."""
        if value is None and self.optional:
            return None
        if self.check is not None:
            return self.check(self.name, value)
        if self.choices:
            return _check.choice(self.name, value, self.choices)
        if self.kind is bool:
            return _check.boolean(self.name, value)
        bounds = {"minimum": self.minimum, "maximum": self.maximum}
        if self.kind is int:
            return _check.integer(self.name, value, **bounds)
        if self.kind is float:
            return _check.real(self.name, value, above=self.above, **bounds)
        if not isinstance(value, str):
            raise ValueError(
                f"`{self.name}` must be a text, got {self.name}={value!r}."
            )
        return value

    def check_idle(self, values: Mapping[str, Any]) -> None:
        """Raises a ValueError if a value other than the default does nothing.

        Given are the values of all settings, by name.
        """
        value = values[self.name]
        if value == self.default:
            return
        for name, able in self.only_with.items():
            able = able() if callable(able) else able
            if values[name] not in able:
                needed = " or ".join(f"{name}={word!r}" for word in able)
                raise ValueError(
                    f"`{self.name}` does something with {needed} only, got "
                    f"{self.name}={value!r} with {name}={values[name]!r}. "
                    "Leave it out."
                )


def setting(
    help: str, default: Any = REQUIRED, **description: Any
) -> dataclasses.Field:
    """Returns a dataclass's field that describes a setting.

    The description is of other attributes of a `Setting`. Its name, its kind
    and whether it may be None are read from the field's own line.

    Example:
        >>> @dataclasses.dataclass(frozen=True)
        ... class Size:
        ...     epochs: int = setting("Passes over the data.", 3, minimum=1)
        >>> settings_of(Size)["epochs"].kind
        <class 'int'>
    """
    metadata = {"help": help, **description}
    return dataclasses.field(default=default, metadata=metadata)


@functools.cache
def settings_of(cls: type) -> Mapping[str, Setting]:
    """Returns the settings that a dataclass's fields describe, by name."""
    hints = typing.get_type_hints(cls)
    return {
        field.name: _described(
            field.name, hints[field.name], field.default, **field.metadata
        )
        for field in dataclasses.fields(cls)
        if "help" in field.metadata
    }


def values_of(described: type, given: Mapping[str, Any]) -> Any:
    """Returns an object of a dataclass that describes settings.

    Its values are among the given ones, by name.
    """
    names = settings_of(described)
    return described(**{n: v for n, v in given.items() if n in names})


def settings_of_call(
    make: Callable[..., Any],
    without: Iterable[str] = (),
    usual: Mapping[str, Any] = types.MappingProxyType({}),
) -> dict[str, Setting]:
    """Returns the settings that are the arguments of a function or class.

    Types are read from annotations, `Literal` for a choice of words; the help
    from the `Args:` of the docstring, or of that of a base class. What a class
    hands on to its base by `**` is read there. Arguments `without` are no
    settings; `usual` has defaults other than those of the call.

    Raises:
        ValueError: If an argument's type isn't that of a setting.
    """
    texts = _argument_texts(make)
    found = {}
    for parameter, hint in _parameters(make):
        name = parameter.name
        if name in without:
            continue
        default = usual.get(name, parameter.default)
        if default is parameter.empty:
            default = REQUIRED
        if hint is None:
            raise ValueError(
                f"Each argument of {make.__qualname__} must have a name and a "
                "type, as in `rho: float`, since it is a setting of a method, "
                f"got {str(parameter)!r}."
            )
        found[name] = _described(name, hint, default, help=texts.get(name, ""))
    return found


def _parameters(
    make: Callable[..., Any],
) -> Iterator[tuple[inspect.Parameter, Any]]:
    """Yields each argument and its type; None if it can't be a setting."""
    calls, bound = [make], 0
    if inspect.isclass(make):
        owners = [c for c in inspect.getmro(make)[:-1] if "__init__" in vars(c)]
        calls, bound = [owner.__init__ for owner in owners], 1
    for depth, call in enumerate(calls, start=1):
        hints = typing.get_type_hints(call)
        parameters = [*inspect.signature(call).parameters.values()][bound:]
        handed_on = False
        for parameter in parameters:
            if parameter.kind is parameter.VAR_KEYWORD and depth < len(calls):
                handed_on = True
            elif depth == 1 or parameter.kind is parameter.KEYWORD_ONLY:
                named = parameter.kind not in (
                    parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD,
                )  # fmt: skip
                yield parameter, hints.get(parameter.name) if named else None
        if not handed_on:
            return


def first_line(make: Callable[..., Any]) -> str:
    """Returns the first line of a docstring, without the full stop."""
    lines = (inspect.getdoc(make) or make.__qualname__).splitlines()
    return lines[0].rstrip(".")


def show_default(value: Any) -> str:
    """Returns a default in words; "" for none."""
    if value is None or value is REQUIRED:
        return ""
    if isinstance(value, bool):
        return "on" if value else "off"
    return f"{value:g}" if isinstance(value, float) else str(value)


def with_default(text: str, word: str) -> str:
    """Returns a help text that ends with the default, if there is one."""
    if not word or "Default:" in text:
        return text
    return f"{text} Default: {word}."


def _described(
    name: str, hint: Any, default: Any, **description: Any
) -> Setting:
    """Returns the setting of a name whose type is annotated."""
    options = [hint]
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        options = list(typing.get_args(hint))
    kinds = [option for option in options if option is not type(None)]
    # Of a number or a word, as `int | Literal["all"]`, the number.
    kinds = [k for k in kinds if k in (int, float)] or kinds
    if typing.get_origin(kinds[0]) is typing.Literal:
        description.setdefault("choices", typing.get_args(kinds[0]))
        kinds[0] = str
    if len(kinds) > 1 or kinds[0] not in (float, int, bool, str):
        raise ValueError(
            f"The setting `{name}` must be a float, int, bool, str or "
            f"Literal, or one of them or None, got {hint}."
        )
    description.setdefault("flag", name)
    return Setting(
        name,
        kinds[0],
        default,
        optional=len(kinds) < len(options),
        **description,
    )


def _argument_texts(make: Callable[..., Any]) -> dict[str, str]:
    """Returns what docstrings in Google's style say of each argument."""
    texts: dict[str, str] = {}
    for documented in inspect.getmro(make) if inspect.isclass(make) else [make]:
        doc = inspect.cleandoc(documented.__doc__ or "")
        _, _, section = doc.partition("\nArgs:\n")
        section = re.split(r"\n(?=\S)", section, maxsplit=1)[0]
        for entry in re.split(r"\n(?= {4}\S)", section):
            name, _, text = entry.strip().partition(":")
            texts.setdefault(name.split("(")[0].strip(), " ".join(text.split()))
    return texts
