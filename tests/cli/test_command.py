import dataclasses

import pytest

from tf_gnc._settings import setting
from tf_gnc.cli import command
from tf_gnc.cli.command import Command, FlagSet, Stopped, UsageError


@dataclasses.dataclass
class Flight:
    """The flags of a command."""

    planet: str = setting(
        "Where to.", "mars", choices=["mars", "venus"], group="Where"
    )
    crew: int | None = setting("How many.", None, minimum=1, group="Where")
    speed: float = setting("How fast.", 0.5, group="How")
    lights: bool = setting("Lights.", True, group="How")
    note: str | None = setting("Remark. Default: none.", None, group="How")


@pytest.fixture
def flag_set():
    flag_set = FlagSet("tf-gnc fly", "Flies.")
    flag_set.add(Flight)
    flag_set.alias("number", "crew")
    return flag_set


def test_parse__flags_given__returns_those_alone(flag_set):
    given = flag_set.parse(["--crew=3", "--nolights", "--note", "a b"])[0]
    assert given == {"crew": 3, "lights": False, "note": "a b"}


def test_parse__default_given_by_hand__counts_as_given(flag_set):
    assert flag_set.parse(["--planet=mars"])[0] == {"planet": "mars"}


def test_parse__alias__sets_the_original(flag_set):
    assert flag_set.parse(["--number=3"])[0] == {"crew": 3}


def test_parse__twice__forgets_the_first(flag_set):
    flag_set.parse(["--crew=3"])
    assert flag_set.parse(["--speed=2"])[0] == {"speed": 2.0}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--crew=0"], "--crew=0: 0 is not a positive integer"),
        (["--crew=two"], "--crew=two: invalid literal"),
        (["--planet=moon"], r"--planet=moon: .* one of <mars\|venus>"),
        (["--crow=2"], "flag 'crow'. Did you mean: crew"),
        (["--crew"], "Missing value for flag --crew"),
        (["--speed=fast"], "--speed=fast: could not convert"),
        (["home"], "only flags are understood, got 'home'"),
    ],
)
def test_parse__bad_flag__error_names_it_and_what_is_legal(
    flag_set, arguments, message
):
    with pytest.raises(UsageError, match=message):
        flag_set.parse(arguments)


def test_help__all_kinds__shows_groups_values_and_defaults(flag_set):
    assert flag_set.help().splitlines() == [
        "Usage: tf-gnc fly [--flags]",
        "",
        "Flies.",
        "",
        "Where:",
        "  --planet=<mars|venus>",
        "      Where to. Default: mars.",
        "  --crew=<int>",
        "      How many.",
        "",
        "How:",
        "  --speed=<float>",
        "      How fast. Default: 0.5.",
        "  --[no]lights",
        "      Lights. Default: on.",
        "  --note=<string>",
        "      Remark. Default: none.",
    ]


def test_parse__values_as_words_of_their_own__are_no_words_beside_flags():
    flag_set = FlagSet("tf-gnc fly", "Flies.", words="PLACE")
    flag_set.add(Flight, "note", "lights")
    arguments = ["--note", "x", "home", "--lights", "away"]
    given, words = flag_set.parse(arguments)
    assert given == {"note": "x", "lights": True}
    assert words == ["home", "away"]
    assert "Usage: tf-gnc fly PLACE [--flags]\n" in flag_set.help()


def _raise(error):
    raise error


@pytest.mark.parametrize(
    ("act", "code", "words"),
    [
        (lambda call: lambda: None, 0, ""),
        (lambda call: lambda: 3, 3, ""),
        (lambda call: _raise(ValueError("no wings.")), 2, "error: no wings."),
        (lambda call: lambda: _raise(OSError("fell")), 1, "error: fell."),
        (lambda call: lambda: _raise(Stopped("stopped", 75)), 75, "stopped."),
        (lambda call: lambda: _raise(KeyboardInterrupt()), 130, "interrupted."),
        (lambda call: _raise(KeyboardInterrupt()), 130, "interrupted."),
    ],
)
def test_run__each_ending__its_exit_code_and_one_line(act, code, words, capsys):
    def load():
        return Command(lambda: FlagSet("tf-gnc fly", "Flies."), act)

    assert command.run("tf-gnc fly", load, []) == code
    lines = [line for line in capsys.readouterr().err.splitlines() if line]
    assert lines == ([f"tf-gnc fly: {words}"] if words else [])


def test_run__something_else_is_raised__is_a_fault_of_the_program():
    def load():
        return Command(
            lambda: FlagSet("tf-gnc fly", "Flies."),
            lambda call: lambda: _raise(TypeError("a bug")),
        )

    with pytest.raises(TypeError, match="a bug"):
        command.run("tf-gnc fly", load, [])


def test_run__files_are_kept__an_error_says_where(capsys):
    def prepare(call):
        call.kept = "See runs/a."
        return lambda: _raise(OSError("fell"))

    def load():
        return Command(lambda: FlagSet("tf-gnc fly", "Flies."), prepare)

    assert command.run("tf-gnc fly", load, []) == 1
    assert capsys.readouterr().err == "tf-gnc fly: error: fell. See runs/a.\n"
