import json
import pathlib

import pytest

from tf_gnc.experiments import RunConfig, make_config

LEGAL = {
    "dataset": "digits",
    "model": "resnet8",
    "method": "gnc",
    "num_workers": 4,
    "batch_size": 64,
    "epochs": 4,
    "learning_rate": 0.1,
    "settings": {"alpha": 0.1},
}


def _switching(switch_epoch):
    settings = {"alpha": 0.1, "alpha_rnc": 2.0, "switch_epoch": switch_epoch}
    return {"method": "gnc_to_rnc", "settings": settings}


def test_run_config__through_json__is_the_same():
    config = make_config("cifar100", "gnc_to_rnc", max_displacement=0.5, seed=7)
    text = json.dumps(config.to_dict(), allow_nan=False)
    assert RunConfig.from_dict(json.loads(text)) == config


def test_run_config__unknown_field__error_names_it():
    values = {**RunConfig(**LEGAL).to_dict(), "nose": 1}
    with pytest.raises(ValueError, match=r"got unknown=\['nose'\]"):
        RunConfig.from_dict(values)


def test_run_config__missing_field__error_names_it():
    values = RunConfig(**LEGAL).to_dict()
    del values["learning_rate"]
    with pytest.raises(ValueError, match=r"missing=\['learning_rate'\]"):
        RunConfig.from_dict(values)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("dataset", "mnist"),
        ("model", "resnet7"),
        ("method", "sgd"),
        ("num_workers", 0),
        ("batch_size", 64.0),
        ("epochs", 0),
        ("learning_rate", float("nan")),
        ("learning_rate", -0.1),
        ("momentum", 1.1),
        ("weight_decay", -1e-9),
        ("warmup", 1.5),
        ("schedule", 1),
        ("augment", None),
        ("seed", -1),
        ("seed", 2**31),
        ("deterministic", 0),
        ("data_dir", 3),
        ("data_dir", ""),
        ("threads", 0),
    ],
)
def test_run_config__illegal_value__error_names_field_and_value(name, value):
    with pytest.raises(ValueError, match=f"`{name}` must be.*got {name}="):
        RunConfig(**{**LEGAL, name: value})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("learning_rate", 0),
        ("momentum", 1),
        ("warmup", 0),
        ("seed", 2**31 - 1),
        ("threads", 1),
    ],
)
def test_run_config__value_at_the_edge__is_taken(name, value):
    assert getattr(RunConfig(**{**LEGAL, name: value}), name) == value


def test_run_config__uneven_batch__error_offers_ways_out():
    with pytest.raises(
        ValueError,
        match=r"batch_size=100 with num_workers=16\. Use batch_size=96, "
        r"or num_workers=10",
    ):
        RunConfig(**{**LEGAL, "batch_size": 100, "num_workers": 16})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("alpha", -1),
        ("alpha", float("inf")),
        ("alpha", True),
        ("scaling", "layer"),
        ("include_vectors", "yes"),
        ("max_displacement", 0),
        ("noise_dtype", "int8"),
    ],
)
def test_run_config__illegal_setting_of_a_method__error_is_the_rules(
    name, value
):
    with pytest.raises(ValueError, match=f"`{name}` must be.*got {name}="):
        RunConfig(**{**LEGAL, "settings": {"alpha": 0.1, name: value}})


@pytest.mark.parametrize(
    ("name", "value"), [("alpha", 0), ("max_displacement", 1e-9)]
)
def test_run_config__setting_of_a_method_at_the_edge__is_taken(name, value):
    config = RunConfig(**{**LEGAL, "settings": {"alpha": 0.1, name: value}})
    assert config.settings[name] == value
    assert isinstance(config.settings[name], float)


def test_run_config__setting_without_a_value__error_names_the_flag():
    with pytest.raises(ValueError, match=r"`alpha` \(--alpha\) must be given"):
        RunConfig(**{**LEGAL, "settings": {}})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"lars_variant": "larc"}, "`lars_variant` does .*optimizer='lars'"),
        ({"noise_rate": "layer"}, "`noise_rate` does .*optimizer='lars' only"),
        ({"decay_steps": 9}, "`decay_steps` does .*schedule='polynomial' only"),
        ({"image_size": 64}, "`image_size` does .*dataset='imagenet2012' only"),
        ({"batch_norm": False, "model": "resnet50"}, "`batch_norm` does some"),
    ],
)
def test_run_config__setting_that_does_nothing__is_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        RunConfig(**{**LEGAL, **changes})


@pytest.mark.parametrize("switch_epoch", [4, 5])
def test_run_config__switch_outside_the_run__error_has_the_numbers(
    switch_epoch,
):
    with pytest.raises(
        ValueError,
        match=f"switch_epoch={switch_epoch} with epochs=4. .*here 3",
    ):
        RunConfig(**{**LEGAL, **_switching(switch_epoch)})


@pytest.mark.parametrize("switch_epoch", [1, 3])
def test_run_config__switch_at_the_edge__is_taken(switch_epoch):
    config = RunConfig(**{**LEGAL, **_switching(switch_epoch)})
    (switch,) = config.noise().callbacks()
    assert switch.epoch == switch_epoch


# Haruki et al. (2019), Tables 3 to 5.
@pytest.mark.parametrize(
    ("dataset", "batch_size", "workers", "rate", "rnc", "gnc_to_rnc"),
    [
        ("cifar10", 4096, 128, 3.2, 0.01, 4.0),
        ("cifar10", 8192, 256, 6.4, 0.01, 2.0),
        ("cifar100", 4096, 128, 3.2, 0.001, 2.0),
        ("cifar100", 8192, 256, 6.4, 0.01, 4.0),
    ],
)
def test_make_config__cifar__has_the_papers_settings(
    dataset, batch_size, workers, rate, rnc, gnc_to_rnc
):
    random = make_config(dataset, "rnc", batch_size=batch_size)
    both = make_config(dataset, "gnc_to_rnc", batch_size=batch_size)
    assert random.settings["alpha"] == rnc
    assert both.settings["alpha"] == 0.1
    assert both.settings["alpha_rnc"] == gnc_to_rnc
    assert (both.num_workers, both.epochs) == (workers, 160)
    assert both.learning_rate == pytest.approx(rate, rel=1e-12)
    assert (both.settings["switch_epoch"], both.model) == (120, "resnet32")
    assert (both.weight_decay, both.momentum) == (0.0001, 0.9)


def test_make_config__two_epochs__switches_between_them():
    config = make_config(method="gnc_to_rnc", epochs=2)
    assert config.settings["switch_epoch"] == 1


def test_make_config__one_epoch__has_no_room_for_a_switch():
    with pytest.raises(ValueError, match="epochs=1. Train for more than one"):
        make_config(method="gnc_to_rnc", epochs=1)


def test_make_config__workers_alone__carry_batch_and_rate():
    config = make_config("cifar10", num_workers=64)
    assert (config.batch_size, config.learning_rate) == (2048, 1.6)


def test_make_config__workers_and_batch__both_are_kept():
    config = make_config("cifar10", num_workers=8, batch_size=64)
    assert (config.num_workers, config.batch_size) == (8, 64)


def test_make_config__batch_that_no_workers_fit__error_says_so():
    with pytest.raises(ValueError, match=r"multiple of 32.*batch_size=100"):
        make_config("cifar10", batch_size=100)


# Written by the version before methods had settings of their own: flat, and
# with those of all methods.
@pytest.mark.parametrize("method", ["dpsgd", "rnc", "gnc", "gnc_to_rnc"])
def test_from_dict__written_by_the_version_before__is_the_same_run(method):
    folder = pathlib.Path(__file__).parent / "old_configs"
    old = json.loads((folder / f"{method}.json").read_text())
    config = make_config("cifar100", method, batch_size=4096)
    assert RunConfig.from_dict(old) == config
    assert list(config.differences(old)) == []
    if method == "rnc":
        assert config.settings["alpha"] == old["alpha_rnc"] != old["alpha"]
        changed = config.differences({**old, "alpha_rnc": 0.5})
        assert list(changed) == [("alpha", 0.001, 0.5)]
