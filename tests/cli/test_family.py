"""The family's methods on the command line."""

import json

import pytest

from tests.problems import DIGITS_NETWORK
from tf_gnc import SharpnessAware
from tf_gnc.cli import compare, train, tune
from tf_gnc.cli.main import main
from tf_gnc.experiments import METHODS, make_config
from tf_gnc.experiments.run.recording import Recording

FAMILY = ("extrapolation", "gnc_current", "gnc_uphill", "sam", "worker_sam",
          "asam", "momentum_sam")  # fmt: skip


@pytest.mark.parametrize("method", FAMILY)
def test_train__each_method__leaves_a_run(method, digits_dir, tmp_path, capfd):
    run_dir = tmp_path / "run"
    command = [
        "train", f"--method={method}", f"--data_dir={digits_dir}",
        DIGITS_NETWORK, "--workers=4", "--batch_size=64",
        "--epochs=2", "--max_steps=2", "--probe=loss_spread",
        f"--run_dir={run_dir}",
    ]  # fmt: skip
    assert main(command) == 0, capfd.readouterr().err
    summary = json.loads((run_dir / "summary.json").read_text())
    assert summary["train_loss"] > 0


@pytest.mark.parametrize("method", FAMILY)
def test_doctor__each_method__says_that_it_is_on(method, capfd):
    command = ["doctor", f"--method={method}", "--workers=4",
               "--batch_size=16"]  # fmt: skip
    code = main(command)
    out = capfd.readouterr().out
    assert "noise: on" in out, out
    assert code == 0, out


def test_compare_and_tune__the_family__has_its_own_coefficients():
    given, _ = compare.build_flags().parse(
        ["--methods=gnc,sam,worker_sam", "--sam.rho=0.1", "--alpha=0.2",
         "--worker_sam.group=4"]
    )  # fmt: skip
    runs = {run.method: run.settings for run in compare._plan(given).runs}
    assert runs["sam"]["rho"] == 0.1 and runs["worker_sam"]["rho"] == 0.05
    assert runs["gnc"]["alpha"] == 0.2 and runs["worker_sam"]["group"] == 4
    for method in FAMILY:
        given, _ = tune.build_flags().parse([f"--method={method}"])
        (name,) = tune.search_of(given).names
        assert name == ("rho" if "sam" in method else "alpha")
    assert set(FAMILY) < set(METHODS)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--method=worker_sam", "--group=3", "--workers=8",
          "--batch_size=64"], "`group` must divide"),
        (["--method=momentum_sam", "--momentum=0"], "`momentum` must be above"),
    ],
)  # fmt: skip
def test_train__method_that_does_not_fit__is_refused_before(words, message):
    given, _ = train.build_flags().parse(words)
    with pytest.raises(ValueError, match=message):
        train.config_of(given)


@pytest.mark.parametrize("method", FAMILY)
def test_settings__of_each_method__are_its_rules(method):
    """All but those that the method has chosen; each comes to the rule."""
    chosen = {"every": 2, "start_step": 3, "stop_step": 7,
              "include_vectors": False}  # fmt: skip
    if "sam" in method:
        chosen["rho"] = 0.25
    else:
        chosen |= {"alpha": 0.25, "scaling": "none", "max_displacement": 0.5}
    if method == "worker_sam":
        chosen["group"] = 8
    if method in ("sam", "worker_sam", "asam"):
        chosen["statistics"] = "clean"
    words = [f"--{method}.{name}={value}" for name, value in chosen.items()]
    given, _ = train.build_flags().parse([f"--method={method}", *words])
    rule = train.config_of(given).noise().first
    assert {**rule.get_config(), **chosen} == rule.get_config()
    for taken in ("adaptive", "center", "current", "uphill"):
        with pytest.raises(ValueError, match=f"`{taken}` .* no setting|does n"):
            make_config("digits", method, **{taken: True})


def test_settings__that_a_method_has_chosen__are_what_it_is():
    rules = {m: make_config("digits", m).noise().first for m in FAMILY}
    assert [rules[m].group for m in ("sam", "worker_sam", "asam")] == [
        "all", 1, "all",
    ]  # fmt: skip
    assert rules["asam"].adaptive and not rules["sam"].adaptive
    assert not rules["worker_sam"].adaptive
    assert [m for m in FAMILY if rules[m].takes_two_passes] == [
        "gnc_current", "sam", "worker_sam", "asam",
    ]  # fmt: skip
    assert rules["gnc_uphill"].uphill and rules["gnc_uphill"].center
    assert not rules["extrapolation"].center
    assert [rules[m].alpha for m in FAMILY[3:]] == [0.05, 0.05, 0.5, 0.3]


def own_rule():
    return SharpnessAware(0.1)


def test_tune__rule_of_the_users_own__says_how_to_compare_instead():
    words = ["--method=tests.cli.test_family:own_rule"]
    given, _ = tune.build_flags().parse(words)
    with pytest.raises(ValueError, match="brings its rule's coefficient"):
        tune.search_of(given)


def test_probe__spectrum_of_two_passes__is_refused_before():
    with pytest.raises(ValueError, match="got method='sam'"):
        Recording(["spectrum"]).check(make_config("digits", "sam"))
