import csv
import dataclasses
import io
import itertools
import json
import math

import keras
import numpy as np
import optuna
import pytest

import tf_gnc
from tf_gnc import _files, data
from tf_gnc.data import OwnData, hold_out
from tf_gnc.experiments import make_config
from tf_gnc.experiments.compare.table import csv_of
from tf_gnc.experiments.run.directory import RunFiles
from tf_gnc.experiments.run.displacement import DisplacementLog
from tf_gnc.experiments.run.task import Result
from tf_gnc.experiments.tune import report
from tf_gnc.experiments.tune.explore import explore, golden_section
from tf_gnc.experiments.tune.search import Search, read_values
from tf_gnc.experiments.tune.trials import (
    Trial,
    Tuning,
    best_of,
    edges,
)


@pytest.fixture(autouse=True)
def _quiet():
    optuna.logging.set_verbosity(optuna.logging.WARNING)


def _search(**changes):
    settings = {"space": {"alpha": (0.01, 0.1, 1.0)}, **changes}
    return Search(make_config("digits", epochs=2), **settings)


def _trial(*point, accuracy=0.9, loss=0.5, diverged=None, seeds=1):
    """What came of a point; `accuracy` may differ by seed."""
    accuracies = accuracy if isinstance(accuracy, tuple) else [accuracy] * seeds
    return Trial(
        point,
        [
            Result(
                [{"val_accuracy": a, "val_loss": loss, "loss": 0.1}],
                diverged=diverged,
                displacements=[0.1, 0.3],
            )
            for a in accuracies
        ],
    )


# Values


def test_read_values__grid__is_logarithmic_to_three_digits_with_its_ends():
    values = read_values("alpha", "1e-3:10:9", "grid")
    assert values == (0.001, 0.00316, 0.01, 0.0316, 0.1, 0.316, 1, 3.16, 10)
    values = read_values("alpha", "0.012345:1.2345:4", "grid")
    assert values[0] == 0.012345 and values[-1] == 1.2345
    np.testing.assert_allclose(
        values, np.geomspace(0.012345, 1.2345, 4), rtol=0.005
    )


@pytest.mark.parametrize(
    ("text", "kind", "words"),
    [
        ("a,b", "grid", "--alphas must be low:high:number or a list"),
        ("0.1:1", "grid", "got --alphas=0.1:1"),
        ("0.1:1:1", "grid", "got --alphas=0.1:1:1"),
        ("0.1:1:2.5", "grid", "got --alphas=0.1:1:2.5"),
        ("0.1,1:2", "grid", "must be low:high:number or a list"),
        ("", "grid", "must be low:high:number or a list"),
        ("0.1:1:5", "golden", "must be low:high, as in .* --search=golden"),
        ("0.1,1", "tpe", "must be low:high, as in .* --search=tpe"),
        ("1:0.1:5", "grid", "lower end below its upper end, got 1:0.1"),
        ("0:1:5", "grid", "above 0, .* got 0"),
        ("nan:1:5", "grid", "finite and above 0, .* got nan"),
    ],
)
def test_read_values__anything_else__is_refused(text, kind, words):
    with pytest.raises(ValueError, match=words):
        read_values("alpha", text, kind)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"kind": "random"}, "`search` must be one of 'grid'"),
        ({"objective": "accuracy"}, "`objective` must be one of"),
        ({"holdout": 0.6}, "`holdout` must be .* at most 0.5"),
        ({"seeds": (1, 1)}, "different from each other"),
        ({"trials": 3}, "`trials` .* got trials=3 with a grid"),
        ({"space": {"alpha_rnc": (1.0,)}}, "`coefficient` must be one of 'a"),
        ({"space": {"alpha": (0.1, 0.1)}}, "different from each other"),
        ({"space": {"alpha": (0.0, 0.1)}}, "above 0"),
        ({"space": {"alpha": (0.1,), "momentum": (0.9,)}}, "`space` must hold"),
        (
            {"kind": "golden", "space": {"alpha": (1.0, 0.1)}},
            "lower end below its upper end",
        ),
        (
            {
                "kind": "golden",
                "space": {"alpha": (0.1, 1.0), "learning_rate": (0.1, 1.0)},
            },
            "golden section knows one dimension",
        ),
        (
            {"kind": "golden", "space": {"alpha": (0.1, 1.0)}, "trials": 1},
            "`trials` must be .* at least 2",
        ),
    ],
)
def test_search__what_does_not_go_together__is_refused(changes, words):
    with pytest.raises(ValueError, match=words):
        _search(**changes)


def test_search__method_without_noise__is_refused():
    with pytest.raises(ValueError, match="'dpsgd' has no setting to tune"):
        Search(make_config("digits", "dpsgd"), {"alpha": (0.1, 1.0)})


def test_search__runs__differ_in_the_point_and_the_seed_alone():
    search = _search(
        space={"alpha": (0.1,), "learning_rate": (0.5,)}, seeds=(3, 7)
    )
    runs = search.runs((0.1, 0.5))
    assert list(runs) == [
        "alpha0.1-learning_rate0.5-seed3", "alpha0.1-learning_rate0.5-seed7",
    ]  # fmt: skip
    wanted = make_config("digits", epochs=2, learning_rate=0.5, seed=7)
    assert runs["alpha0.1-learning_rate0.5-seed7"] == wanted


# The order


def test_golden_section__single_dip__closes_in_as_its_ratio_says():
    tried = []

    def costs(values):
        tried.extend(values)
        return [(math.log10(value) - math.log10(0.07)) ** 2 for value in values]

    golden_section(costs, 1e-3, 10, trials=12)
    assert len(tried) == 12
    share = ((math.sqrt(5) - 1) / 2) ** 11
    best = min(tried, key=lambda value: abs(math.log10(value / 0.07)))
    assert abs(math.log10(best / 0.07)) < share * 4  # four decades
    assert abs(math.log10(tried[2] / 0.07)) > 0.05  # not by luck
    # By hand: the first two divide four decades by the golden ratio.
    np.testing.assert_allclose(
        np.log10(tried[:2]), [-3 + 4 * 0.381966, -3 + 4 * 0.618034], atol=1e-5
    )


def test_golden_section__all_alike__goes_to_the_smaller():
    tried = []
    golden_section(lambda v: tried.extend(v) or [1.0] * len(v), 1, 100, 5)
    assert tried[2] > tried[3] > tried[4]


def _explored(search, value_of):
    """Returns the points in the order of their trials, and the study."""
    direction = "maximize" if search.objective == "val_accuracy" else "minimize"
    study = optuna.create_study(
        direction=direction,
        sampler=optuna.samplers.TPESampler(n_startup_trials=4, seed=0),
    )
    batches = []

    def evaluate(points):
        batches.append(list(points))
        return [value_of(*point) for point in points]

    explore(search, study, evaluate)
    return batches, study


def test_explore__grid__asks_for_all_at_once_and_keeps_what_diverged():
    space = {"alpha": (0.01, 0.1, 1.0), "learning_rate": (0.2, 0.4)}
    search = _search(space=space)
    batches, study = _explored(search, lambda a, r: None if a > 0.5 else a * r)
    assert batches == [list(itertools.product(*space.values()))]
    assert search.trials == 6
    assert study.best_params == {"alpha": 0.1, "learning_rate": 0.4}
    states = [trial.state.name for trial in study.trials]
    assert states == ["COMPLETE"] * 4 + ["PRUNED"] * 2


@pytest.mark.parametrize(
    ("objective", "sign"), [("val_accuracy", -1), ("val_loss", 1)]
)
def test_explore__golden_with_divergence_above__finds_the_best_below(
    objective, sign
):
    search = _search(
        kind="golden",
        space={"alpha": (1e-3, 10.0)},
        trials=12,
        objective=objective,
    )
    batches, study = _explored(
        search,
        lambda a: None if a > 1 else sign * (math.log10(a) + 2) ** 2,
    )
    assert [len(batch) for batch in batches] == [2] + [1] * 10
    assert abs(math.log10(study.best_params["alpha"]) + 2) < 0.05
    ((first,), _) = batches[0]
    assert first == float(f"{first:.3g}")


def test_explore__tpe__is_repeatable_and_finds_the_region():
    search = _search(kind="tpe", space={"alpha": (1e-3, 10.0)}, trials=20)

    def value(a):
        return None if a > 3 else -abs(math.log10(a))

    batches, study = _explored(search, value)
    assert batches == _explored(search, value)[0]
    assert [len(batch) for batch in batches] == [1] * 20
    points = [alpha for ((alpha,),) in batches]
    assert all(1e-3 <= a <= 10 and a == float(f"{a:.3g}") for a in points)
    assert [t.user_attrs["tried"]["alpha"] for t in study.trials] == points
    assert abs(math.log10(study.best_params["alpha"])) < 0.3


# The choice


def test_best_of__several_alike__lowest_val_loss_then_least_noise():
    search = _search()
    trials = [
        _trial(0.01, accuracy=0.8, loss=0.1),
        _trial(0.1, accuracy=0.9, loss=0.4),
        _trial(1.0, accuracy=0.9, loss=0.3),
    ]
    assert best_of(trials, search).point == (1.0,)
    trials.append(_trial(0.05, accuracy=0.9, loss=0.3))
    assert best_of(trials, search).point == (0.05,)
    assert "3 points share the best" in report.warnings(trials, search)[0]
    search = _search(objective="val_loss")
    assert best_of(trials, search).point == (0.01,)


def test_best_of__one_seed_diverged__is_never_chosen():
    good, bad = _trial(0.01, seeds=2), _trial(0.1, accuracy=1.0, seeds=2)
    bad = Trial((0.1,), [bad.results[0], Result(diverged=3)])
    search = _search(seeds=(0, 1))
    assert best_of([good, bad], search) is good
    assert best_of([bad], search) is None
    table = report.make_table([good, bad], search)
    assert table.rows[1][-1] == "diverged, 1 of 2 seeds"
    assert report.chosen([bad], search) is None
    report.draw([bad], search)


def test_edges__best_at_one__names_a_range_as_wide_around_it():
    search = _search(space={"alpha": (0.01, 0.1, 1.0)})
    low, middle, high = _trial(0.01), _trial(0.1), _trial(1.0)
    trials = [middle, high, low]
    assert edges(middle, trials, search) == {}
    assert edges(high, trials, search) == {"alpha": ("upper", 0.1, 10.0)}
    side, start, stop = edges(low, trials, search)["alpha"]
    assert (side, start, stop) == ("lower", 0.001, 0.1)
    assert edges(low, [low], search) == {}  # There was no range.
    (warning,) = report.warnings(
        [_trial(1.0, accuracy=0.95), middle, low], search
    )
    assert "upper edge" in warning
    assert "--alphas=0.1:10:3 " in warning


def test_edges__beyond_it_all_diverged__is_none():
    search = _search()
    trials = [_trial(0.01, accuracy=0.5), _trial(0.1), _trial(1, diverged=2)]
    best = best_of(trials, search)
    assert best.point == (0.1,)
    assert edges(best, trials, search) == {}


def test_report__by_hand__means_deviations_and_the_choice():
    search = _search(
        space={"alpha": (0.1, 1.0), "learning_rate": (0.25,)}, seeds=(0, 1)
    )
    trials = [
        _trial(1.0, 0.25, accuracy=(0.5, 0.5)),
        _trial(0.1, 0.25, accuracy=(0.9, 0.8)),
    ]
    table = report.make_table(trials, search)
    assert table.rows[0] == [
        "0.1", "0.25", "0.2", "0.3", "85.00 ± 7.07", "0.5000 ± 0.0000",
        "0.1000 ± 0.0000", "<- best",
    ]  # fmt: skip
    assert table.rows[1][0] == "1" and table.rows[1][-1] == ""
    text = csv_of(report.results(trials, search))
    lines = list(csv.DictReader(io.StringIO(text)))
    assert float(lines[0]["val_accuracy_std"]) == pytest.approx(0.05 * 2**0.5)
    assert [line["best"] for line in lines] == ["True", "False"]
    assert report.chosen(trials, search) == {
        "alpha": 0.1,
        "learning_rate": 0.25,
        "flags": "--method=gnc --alpha=0.1 --learning_rate=0.25",
        "python": "tf_gnc.GradientNoise(alpha=0.1)",
    }
    assert report.draw(trials, search).startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("method", "name", "settings", "wanted"),
    [
        ("rnc", "alpha", {}, "tf_gnc.RandomNoise(alpha=0.5)"),
        ("gnc_to_rnc", "alpha", {}, "tf_gnc.GradientNoise(alpha=0.5)"),
        ("gnc_to_rnc", "alpha_rnc", {}, "tf_gnc.RandomNoise(alpha=0.5)"),
        (
            "gnc",
            "alpha",
            {"scaling": "none", "max_displacement": 2.0},
            "tf_gnc.GradientNoise(alpha=0.5, scaling='none', "
            "max_displacement=2.0)",
        ),
        (
            "gnc", "relative", {"relative": 0.5, "include": "kernel"},
            "tf_gnc.GradientNoise(relative=0.5, include='kernel')",
        ),
        (
            "sam", "rho", {"every": 2, "start_step": 5},
            "tf_gnc.SharpnessAware(rho=0.5, every=2, start_step=5, "
            "group='all')",
        ),
    ],
)  # fmt: skip
def test_chosen__each_method__the_line_makes_the_rule(
    method, name, settings, wanted
):
    base = make_config("digits", method, epochs=2, **settings)
    search = Search(base, {name: (0.5, 1.0)})
    choice = report.chosen([_trial(0.5)], search)
    assert choice["python"] == wanted
    assert choice["flags"] == f"--method={method} --{name}=0.5"
    assert eval(wanted, {"tf_gnc": tf_gnc}).alpha == 0.5


# The directory


def test_tuning__diverged_and_not_finite__are_told(tmp_path):
    tuning = Tuning(_search(), tmp_path / "out")
    row = {"epoch": 2, "val_accuracy": None, "val_loss": None, "loss": 0.5}

    def leave(name, **files):
        path = tuning.run_dir(name)
        path.mkdir(parents=True)
        (path / "metrics.jsonl").write_text(json.dumps(row) + "\n")
        for file, content in files.items():
            (path / f"{file}.json").write_text(json.dumps(content))

    leave("a", summary={}, displacement={"epochs": [0.5, None]})
    found = tuning.result("a")
    assert (found.last("loss"), found.diverged) == (0.5, 2)
    assert found.displacements == [0.5]
    leave("b", diverged={"epoch": 1})
    assert tuning.result("b") == Result([row], diverged=1, displacements=[])
    leave("c")
    assert tuning.result("c") is None
    assert tuning.num_done() == 2


def test_tuning__claimed_twice_or_by_another__is_refused(tmp_path):
    tuning = Tuning(_search(), tmp_path / "out")
    with tuning.claimed("c"):
        with (
            pytest.raises(OSError, match="in use by another search"),
            Tuning(_search(), tmp_path / "out").claimed("c"),
        ):
            pass
        Tuning(_search(), tmp_path / "out")
    with pytest.raises(ValueError, match=r"holdout=0.2 where .* has 0.1"):
        Tuning(_search(holdout=0.2), tmp_path / "out")
    with pytest.raises(ValueError, match=r"alphas=\[0.1, 1.0\] where"):
        Tuning(_search(space={"alpha": (0.1, 1.0)}), tmp_path / "out")
    (tmp_path / "file").touch()
    with pytest.raises(NotADirectoryError, match="which is a file"):
        Tuning(_search(), tmp_path / "file")
    with pytest.raises(FileExistsError, match="holds other files"):
        Tuning(_search(), tmp_path)


def test_tuning__begun_by_the_version_before__goes_on(tmp_path):
    search = _search()
    # Once, all methods' settings were written, whichever the method had.
    settings = {**search.to_dict(), "alpha_rnc": 0.01, "switch_epoch": None}
    about = {"settings": settings, "command": "tf-gnc tune"}
    (tmp_path / "tune.json").write_text(json.dumps(about))
    with Tuning(search, tmp_path).claimed("c"):
        pass
    assert json.loads((tmp_path / "tune.json").read_text()) == about
    for changes, words in (
        ({"space": {"alpha": (0.01, 0.1)}}, "alphas=.* where .* has"),
        ({"base": make_config("digits", epochs=3)}, "epochs=3 where .* has 2"),
    ):
        with pytest.raises(ValueError, match=words):
            Tuning(
                dataclasses.replace(search, trials=None, **changes), tmp_path
            )


# The runs


def _images(size):
    pictures = np.arange(size, dtype=np.uint8).reshape(-1, 1, 1, 1)
    return data.Images(pictures, np.arange(size), pictures[:1], np.zeros(1), 10)


def test_hold_out__pictures__parts_of_the_training_set_by_seed():
    images = _images(50)
    held = hold_out(images, 0.1, seed=3)
    assert (held.num_train, len(held.test_labels)) == (45, 5)
    labels = [*held.train_labels, *held.test_labels]
    assert sorted(labels) == list(range(50))
    # A picture has kept its label.
    np.testing.assert_array_equal(held.test_images.ravel(), held.test_labels)
    np.testing.assert_array_equal(held.train_images.ravel(), held.train_labels)
    again, other = hold_out(images, 0.1, seed=3), hold_out(images, 0.1, seed=4)
    np.testing.assert_array_equal(again.test_labels, held.test_labels)
    assert set(other.test_labels) != set(held.test_labels)


def test_hold_out__arrays_of_the_users_own__likewise():
    own = OwnData(
        (np.arange(10.0), np.arange(10)), (np.full(3, 99.0), np.full(3, 99))
    )
    held = hold_out(own, 0.2, seed=0)
    assert sorted([*held.train[1], *held.test[1]]) == list(range(10))
    np.testing.assert_array_equal(*held.test)


def test_hold_out__files_or_nothing_left__is_refused():
    with pytest.raises(ValueError, match="Use --holdout=0"):
        hold_out(object(), 0.1, 0)
    with pytest.raises(ValueError, match="must leave examples"):
        hold_out(_images(1), 0.1, 0)


def _model(noise):
    keras.utils.set_random_seed(7)
    inputs = keras.Input((4,))
    hidden = keras.layers.Dense(5, activation="tanh")(inputs)
    model = tf_gnc.GNCModel(inputs, keras.layers.Dense(2)(hidden))
    model.compile(keras.optimizers.SGD(0.2), "mse", noise=noise, num_workers=4)
    return model


def _fit(model, callbacks):
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(16, 4)), rng.normal(size=(16, 2))
    model.fit(
        x, y, batch_size=8, epochs=3, verbose=0, shuffle=False,
        callbacks=callbacks,
    )  # fmt: skip
    return [w.numpy() for w in model.weights]


def test_displacement_log__random_noise__is_alpha_times_the_rate(tmp_path):
    # Each filter's noise has the filter's norm, so all of them together have
    # the norm of all weights.
    log = DisplacementLog(RunFiles(tmp_path))
    _fit(_model(tf_gnc.RandomNoise(alpha=0.5, seed=1)), [log])
    np.testing.assert_allclose(log.displacements, [0.1] * 3, rtol=1e-4)
    found = _files.read_json(tmp_path / "displacement.json")
    assert found == {"epochs": log.displacements}


def test_displacement_log__gradient_noise__leaves_the_training_alone(tmp_path):
    log = DisplacementLog(RunFiles(tmp_path))
    rule = tf_gnc.GradientNoise(alpha=0.5)
    measured = _fit(_model(rule), [log])
    for own, other in zip(measured, _fit(_model(rule), []), strict=True):
        np.testing.assert_allclose(own, other, rtol=1e-6, atol=1e-7)
    assert all(0 < d < 1 for d in log.displacements)
    assert len(set(log.displacements)) == 3


def test_displacement_log__another_rule_in_between__is_measured(tmp_path):
    log = DisplacementLog(RunFiles(tmp_path))
    switch = tf_gnc.callbacks.SwitchNoise(
        epoch=2, noise=tf_gnc.RandomNoise(alpha=0.25, seed=1)
    )
    _fit(_model(tf_gnc.RandomNoise(alpha=0.5, seed=1)), [switch, log])
    np.testing.assert_allclose(log.displacements, [0.1, 0.1, 0.05], rtol=1e-4)
