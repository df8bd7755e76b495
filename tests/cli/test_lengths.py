"""Relative lengths and patterns of paths on the command line."""

import pytest

from tf_gnc.cli import compare, train, tune
from tf_gnc.cli.main import main


def _settings(*words):
    given, _ = train.build_flags().parse([*words])
    return train.config_of(given).settings


@pytest.mark.parametrize(
    ("method", "coefficient"),
    [("gnc", "alpha"), ("rnc", "alpha"), ("gnc_uphill", "alpha"),
     ("sam", "rho"), ("asam", "rho"), ("momentum_sam", "rho")],
)  # fmt: skip
def test_relative__in_the_place_of_a_default__is_the_rules_length(
    method, coefficient
):
    """The data set's alpha, or the method's own rho, isn't taken."""
    given, _ = train.build_flags().parse(
        [f"--method={method}", "--relative=0.02", "--include=kernel"]
    )
    config = train.config_of(given)
    assert config.settings[coefficient] is None
    rule = config.noise().first
    assert (rule.coefficient, rule.alpha) == ("relative", 0.02)
    assert rule.include == "kernel"
    # As it is read again from config.json.
    assert type(config).from_dict(config.to_dict()) == config


def test_relative__of_one_method_in_a_comparison__leaves_the_others():
    given, _ = compare.build_flags().parse(
        ["--methods=gnc,sam", "--sam.relative=0.02"]
    )
    gnc, sam = (run.settings for run in compare._plan(given).runs[:2])
    assert (gnc["alpha"], gnc["relative"]) == (0.1, None)
    assert (sam["rho"], sam["relative"]) == (None, 0.02)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--relative=0.02", "--alpha=0.1"], "in the place of `alpha`"),
        (["--method=sam", "--relative=0.02", "--rho=0.1"], "of `rho`"),
        (["--relative=-1"], "`relative` must be a finite number, at least 0"),
        (["--include=["], "`include` must be a pattern"),
    ],
)
def test_relative__beside_a_coefficient_or_wrong__is_refused(words, message):
    with pytest.raises(ValueError, match=message):
        _settings(*words)


def test_include__in_no_path__ends_before_the_first_step(
    digits_dir, tmp_path, capfd
):
    command = ["train", f"--data_dir={digits_dir}", "--workers=4",
               "--batch_size=64", "--include=kernal",
               f"--run_dir={tmp_path / 'run'}"]  # fmt: skip
    assert main(command) == 2
    error = capfd.readouterr().err
    assert "`include` must be found in the path" in error
    assert "Traceback" not in error and "'stem_conv/kernel'" in error
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("method", ["gnc", "sam"])
def test_tune__coefficient_relative__is_searched(method):
    given, _ = tune.build_flags().parse(
        [f"--method={method}", "--coefficient=relative", "--alphas=0.01,0.1"]
    )
    search = tune.search_of(given)
    assert search.names == ("relative",)
    (run,) = search.runs((0.1,)).values()
    assert run.noise().first.alpha == 0.1
    assert run.noise().first.coefficient == "relative"
