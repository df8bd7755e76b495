import pytest

from tf_gnc.cli.command import FlagSet, UsageError


@pytest.fixture
def flag_set():
    flag_set = FlagSet("tf-gnc fly", "Flies.")
    with flag_set.group("Where"):
        flag_set.choice("planet", ["mars", "venus"], "Where to.", "mars")
        flag_set.integer("crew", "How many.", minimum=1)
    with flag_set.group("How"):
        flag_set.number("speed", "How fast.", 0.5)
        flag_set.switch("lights", "Lights.", default=True)
        flag_set.text("note", "Remark. Default: none.")
    flag_set.alias("number", "crew")
    return flag_set


def test_parse__flags_given__returns_those_alone(flag_set):
    given = flag_set.parse(["--crew=3", "--nolights", "--note", "a b"])
    assert given == {"crew": 3, "lights": False, "note": "a b"}


def test_parse__default_given_by_hand__counts_as_given(flag_set):
    assert flag_set.parse(["--planet=mars"]) == {"planet": "mars"}


def test_parse__alias__sets_the_original(flag_set):
    assert flag_set.parse(["--number=3"]) == {"crew": 3}


def test_parse__twice__forgets_the_first(flag_set):
    flag_set.parse(["--crew=3"])
    assert flag_set.parse(["--speed=2"]) == {"speed": 2.0}


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
