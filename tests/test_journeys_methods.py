"""Journeys: a method, and a setting of a run, added while Python runs.

Each is added as a contributor would, by a rule and a line or by a field, and
is then found everywhere without another change.
"""

import dataclasses
import json
import sys
from typing import Literal

import pytest

from tests.problems import DIGITS_NETWORK
from tf_gnc._settings import setting
from tf_gnc.cli import compare, config_flags, doctor, train, tune
from tf_gnc.cli.main import main
from tf_gnc.experiments import METHODS, RunConfig, make_config
from tf_gnc.experiments import defaults as defaults_module
from tf_gnc.experiments.compare.plan import make_plan
from tf_gnc.noise import NoiseRule


class Sideways(NoiseRule):
    """Sideways noise: a rule of this test.

    Args:
        way: How far to the side.
        kind: Which side.
        mirrored: Whether both.
    """

    def __init__(
        self,
        way: float,
        kind: Literal["left", "right"] = "left",
        mirrored: bool = False,
    ):
        super().__init__(way)
        if way > 9:
            raise ValueError(f"`way` must be at most 9, got way={way}.")
        self.kind, self.mirrored = kind, mirrored

    def direction(self, at):
        return (
            at.layout.kernel_mask() * 0.01 * (1.0 - 2.0 * float(self.mirrored))
        )

    def get_config(self):
        return {
            "way": self.alpha, "kind": self.kind, "mirrored": self.mirrored,
        }  # fmt: skip


@pytest.fixture
def sideways(monkeypatch):
    monkeypatch.setitem(METHODS, "sideways", Sideways)


@pytest.mark.parametrize("command", [train, compare, tune, doctor])
def test_method__one_line_in_the_registry__has_flags_and_help(
    command, sideways
):
    page = command.build_flags().help()
    assert "--way=<float>\n      sideways: How far to the side." in page
    assert "--kind=<left|right>\n      sideways: Which side." in page
    assert "--[no]mirrored\n      sideways: Whether both. Default: off." in page
    if command is not compare:
        assert "Sideways noise: a rule of this test" in " ".join(page.split())


@pytest.mark.parametrize(
    "flags",
    [
        ["--way=2", "--mirrored"],
        ["--sideways.way=2", "--sideways.mirrored"],
        ["--way=5", "--sideways.way=2", "--mirrored"],
    ],
)
def test_method__its_flags_in_train__make_its_rule(flags, sideways):
    given, _ = train.build_flags().parse(["--method=sideways", *flags])
    assert train.config_of(given).noise().first == Sideways(2.0, mirrored=True)


def test_method__switch_of_one_method__is_negated(sideways):
    given, _ = train.build_flags().parse(
        [
            "--method=sideways",
            "--way=1",
            "--mirrored",
            "--nosideways.mirrored",
        ]
    )
    assert not train.config_of(given).settings["mirrored"]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({}, r"`way` \(--way\) must be given with method='sideways'"),
        ({"way": 10.0}, "`way` must be at most 9"),
        ({"way": 1.0, "alpha": 1.0}, r"`alpha` .*does nothing with sideways"),
    ],
)
def test_method__illegal_setting__is_refused_as_the_rule_says(
    values, message, sideways
):
    with pytest.raises(ValueError, match=message):
        make_config(method="sideways", **values)


def test_method__dry_run__shows_its_settings_and_makes_nothing(
    sideways, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    assert main(["train", "--method=sideways", "--way=2", "--dry_run"]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["way", "2.0", "flag"] in lines
    assert ["kind", "left", "default"] in lines
    assert ["learning_rate", "0.4", "data", "set"] in lines
    assert list(tmp_path.iterdir()) == []


def test_dry_run__what_will_not_be_so__is_not_shown(capsys):
    flags = ["--remainder=carry", "--max_steps=3", "--optimizer=lars"]
    assert main(["train", "--dry_run", "--epochs=2", *flags]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["remainder", "drop", "max_steps"] in lines
    # Its own: `none` would be the flag's word for no weight at all.
    assert ["lars_exclude", "unset", "default"] in lines


def test_method__in_a_comparison__gets_its_settings_alone(sideways):
    plan = make_plan(["gnc", "sideways"], [0], way=2.0, alpha=0.3, kind="right")
    gnc, ours = (run.settings for run in plan.runs)
    assert (gnc["alpha"], ours["way"], ours["kind"]) == (0.3, 2.0, "right")
    assert "way" not in gnc and "alpha" not in ours


def test_method__in_a_search__has_a_coefficient(sideways):
    given, _ = tune.build_flags().parse(["--method=sideways"])
    search = tune.search_of(given)
    assert search.names == ("way",)
    assert len(search.runs((0.5,))) == 1


def test_method__through_json__is_the_same(sideways):
    config = make_config(method="sideways", way=2.0)
    assert RunConfig.from_dict(config.to_dict()) == config


@pytest.mark.parametrize("wrong", ["**more", "way", "way: bytes"])
def test_method__argument_that_is_no_setting__error_says_so(wrong, monkeypatch):
    space = {}
    exec(f"def make({wrong}):\n    pass", space)
    monkeypatch.setitem(METHODS, "odd", space["make"])
    with pytest.raises(ValueError, match="must (have a name and|be a float)"):
        train.build_flags()


@dataclasses.dataclass(frozen=True, kw_only=True)
class Longer(RunConfig):
    """A run with a setting more: one statement."""

    tail: int | None = setting(
        "Epochs at the end.", None, minimum=1, group="This run",
        only_with={"schedule": ("constant",)},
    )  # fmt: skip


@pytest.fixture
def longer(monkeypatch):
    for module in (config_flags, defaults_module, train):
        monkeypatch.setattr(module, "RunConfig", Longer)


def test_setting__one_field__has_flag_check_and_dry_run(longer, capsys):
    flag_set = train.build_flags()
    assert "--tail=<int>\n      Epochs at the end." in flag_set.help()
    given, _ = flag_set.parse(["--tail=3", "--schedule=constant"])
    assert train.config_of(given).tail == 3
    assert main(["train", "--tail=3", "--schedule=constant", "--dry_run"]) == 0
    assert "tail" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"tail": 0, "schedule": "constant"}, "`tail` must be.*at least 1"),
        ({"tail": 3}, "`tail` does something with schedule='constant' only"),
    ],
)
def test_setting__illegal_or_idle__is_refused(values, message, longer):
    with pytest.raises(ValueError, match=message):
        make_config(**values)


def test_make_config__name_that_is_no_setting__error_says_so():
    with pytest.raises(ValueError, match="`run_dir` .*is no setting of a run"):
        make_config(run_dir="somewhere")


_RULE = """
import tf_gnc
def make():
    return tf_gnc.RandomNoise(0.5, seed=3)
"""
_TINY = ["--workers=2", "--batch_size=8", "--epochs=2", "--max_steps=1"]


@pytest.fixture
def own_rule(tmp_path, monkeypatch):
    (tmp_path / "ownrule.py").write_text(_RULE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=":")
    return "ownrule:make"


def test_method__function_of_the_users__trains(own_rule, digits_dir, tmp_path):
    # In a comparison: tests/experiments/test_user_code.py.
    flags = [f"--data_dir={digits_dir}", DIGITS_NETWORK, *_TINY]
    run_dir = tmp_path / "run"
    assert (
        main(["train", f"--method={own_rule}", f"--run_dir={run_dir}", *flags])
        == 0
    )
    row = json.loads((run_dir / "metrics.jsonl").read_text().splitlines()[-1])
    assert (row["rule"], row["alpha"]) == ("RandomNoise", 0.5)


@pytest.mark.parametrize("text", ["return None", "return 0.1"])
def test_method__function_that_returns_no_rule__error_says_what_it_must(
    text, own_rule, tmp_path, capsys
):
    (tmp_path / "norule.py").write_text(f"def make():\n    {text}\n")
    assert main(["doctor", "--method=norule:make"]) == 2
    assert "norule:make must return a noise rule" in capsys.readouterr().err
    sys.modules.pop("norule")
