"""What a probe accepts, when it measures, and where its numbers go."""

import csv
import json
import math

import keras
import numpy as np
import pytest
import tensorflow as tf

import tf_gnc
from tests import problems
from tf_gnc import analysis
from tf_gnc.callbacks import BackupAndRestore, Probe, SwitchNoise, measures
from tf_gnc.step.control import control_of
from tf_gnc.step.step_table import StepTable

GNC = tf_gnc.GradientNoise(alpha=0.5)
CHEAP = ["noise_norm", "relative_displacement", "layer_displacement",
         "loss_spread", "gradient_cosine", "gradient_noise_scale"]  # fmt: skip


def _model(rule=GNC, num_workers=4, model_class=tf_gnc.GNCModel, **arguments):
    model = problems.dense_network(model_class)
    arguments = {"optimizer": problems.sgd(), **arguments}
    model.compile(
        loss=problems.cross_entropy(), noise=rule, num_workers=num_workers,
        **arguments,
    )  # fmt: skip
    return model


def _fit(callbacks, model=None, epochs=2, **arguments):
    """Epochs of four steps; returns the model and its history."""
    model = model or _model()
    x, y = problems.vectors(64)
    history = model.fit(
        x, y, batch_size=16, shuffle=False, verbose=0, epochs=epochs,
        callbacks=callbacks, **arguments,
    )  # fmt: skip
    return model, history.history


def _rows(folder, name="probe.jsonl"):
    lines = (folder / name).read_text().splitlines()
    return [json.loads(line) for line in lines]


def _steps(folder, name="probe.jsonl"):
    return [row["step"] for row in _rows(folder, name)]


TABLE = StepTable(
    losses=np.array([1.0, 3.0]),
    gradient_squares=np.array([5.0, 3.0]),
    noise_squares=np.array([4.0, 16.0]),
    displacement_squares=np.array([0.25, 1.0]),
    layer_displacements=np.array([0.5, 0.0]),
    layer_norms=np.array([2.0, 0.0]),
    paths=["dense/kernel", "dense/bias"],
    weights_square=9.0,
    mean_gradient_square=2.5,
    examples_per_worker=2,
    valid=True,
)


def test_cheap_measures__a_table__are_what_one_gets_by_hand():
    found = {name: measures.CHEAP[name](TABLE) for name in CHEAP}
    assert found == {
        "noise_norm": 3.0,
        "relative_displacement": 0.25,
        "layer_displacement": {
            "layers": {"dense/kernel": 0.25, "dense/bias": None}
        },
        "loss_spread": {"min": 1.0, "max": 3.0, "std": 1.0, "mean": 2.0},
        "gradient_cosine": pytest.approx(2.5**0.5 / ((5**0.5 + 3**0.5) / 2)),
        # G = (4 * 2.5 - 2 * 4) / (4 - 2) = 1, S = (4 - 2.5) / (1/2 - 1/4).
        "gradient_noise_scale": 6.0,
    }
    assert list(measures.CHEAP) == CHEAP


def test_noise_scale__drawn_gradients__is_the_variance_over_the_square():
    # Gradients of single examples: (1, 1) and noise of variance 4 each.
    rng = np.random.default_rng(0)
    examples = 1 + 2 * rng.normal(size=(20_000, 8, 5, 2))
    small = examples.mean(axis=2)  # 8 workers of 5 examples
    big = small.mean(axis=1)
    found = analysis.noise_scale.noise_scale(
        (small**2).sum(-1), (big**2).sum(-1).mean(), 5, 40
    )
    assert found == pytest.approx(8 / 2, rel=0.03)


def test_noise_scale__no_gradient_or_not_finite__is_none():
    scale = analysis.noise_scale.noise_scale
    assert scale([1.0, 1.0], 0.5, 1, 2) is None
    assert scale([math.inf, 1.0], 0.5, 1, 2) is None
    assert scale([1.0, 1.0], math.nan, 1, 2) is None
    with pytest.raises(ValueError, match="big_batch=2 with small_batch=2"):
        scale([1.0], 1.0, 2, 2)


BATCH = problems.vectors(16)


def test_fit__batch_of_each_step__is_asked_for_once_a_measurement(tmp_path):
    """Worker losses at noise 0 are those that the coming step then reports."""
    x, y = problems.vectors(64)
    asked = []

    def coming(step):
        asked.append(step)
        rows = slice(16 * (step % 4), 16 * (step % 4) + 16)
        return x[rows], y[rows]

    measured = Probe(
        ["sharpness", "smoothness"], every=2, batch=coming, directory=tmp_path
    )
    spread = Probe("loss_spread", directory=tmp_path / "steps")
    _fit([measured, spread], _model(rule=None))
    assert asked == [2, 4, 6, 8]
    losses = [row["loss_spread"]["mean"] for row in _rows(tmp_path / "steps")]
    found = [row["sharpness"]["clean_loss"] for row in _rows(tmp_path)]
    # Row n is of the weights after n steps; step n + 1 begins with them.
    np.testing.assert_allclose(found[:3], losses[2::2], rtol=1e-5)


def test_fit__within_ranges__measures_at_their_steps_alone(tmp_path):
    ranges = [range(2, 4), range(7, 100)]
    _fit([Probe("noise_norm", directory=tmp_path, within=ranges)])
    assert _steps(tmp_path) == [2, 3, 7, 8]


def test_fit__each_measure_its_own_steps__one_row_a_step_and_one_writer(
    tmp_path,
):
    probe = Probe(
        ["noise_norm", "loss_spread", "sharpness"],
        every={"noise_norm": 4, "sharpness": 2},
        within={"loss_spread": [range(3, 5)], "sharpness": [range(5, 100)]},
        batch=BATCH, directory=tmp_path, log_dir=tmp_path / "tb",
    )  # fmt: skip
    _, history = _fit([probe])
    measured = [
        (row["step"], [name for name in probe.measures if name in row])
        for row in _rows(tmp_path)
    ]
    assert measured == [
        (3, ["loss_spread"]),
        (4, ["noise_norm", "loss_spread"]),
        (6, ["sharpness"]),
        (8, ["noise_norm", "sharpness"]),
    ]
    (_,) = (tmp_path / "tb").iterdir()
    # Known since the first epoch, and not measured in the second.
    assert math.isnan(history["probe_loss_spread_mean"][1])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"measures": "noise_norm", "every": {"loss": 2}}, "got every='loss'"),
        ({"measures": "noise_norm", "within": {"loss": []}}, "within='loss'"),
        (
            {"measures": "noise_norm", "every": {"noise_norm": 0}},
            "at least 1, got every=0",
        ),
        ({"measures": "loudness"}, "'noise_norm', .*got measures='loudness'"),
        ({"measures": ["noise_norm", 3]}, "got measures=3"),
        ({"measures": []}, "got none. Choose from noise_norm, "),
        ({"measures": "noise_norm", "every": 0}, "at least 1, got every=0"),
        ({"measures": "similarity", "batch": BATCH}, "needs a `dataset`"),
        ({"measures": ["smoothness"]}, r"needs a `batch`, got batch=None"),
        (
            {"measures": {"sharpness": {"rate": 1}}, "batch": BATCH},
            "`sharpness` takes .*eigenvalues, got rate=1",
        ),
        ({"measures": {"noise_norm": {"p": 1}}}, "arguments none, got p=1"),
    ],
)
def test_probe__bad_argument__error_shows_it(arguments, message):
    with pytest.raises(ValueError, match=message):
        Probe(**arguments)


def test_probe__arguments_of_a_measure__come_before_the_shared_ones():
    other = problems.vectors(8)
    probe = Probe(
        {"sharpness": {"batch": other, "noise": None}, "smoothness": None},
        batch=BATCH,
    )
    assert probe.measures["sharpness"]["batch"] is other
    assert probe.measures["sharpness"]["noise"] is None
    assert probe.measures["smoothness"] == {"batch": BATCH}


def test_fit__plain_keras_model__error_says_what_is_needed():
    model = problems.dense_network(keras.Model)
    model.compile("sgd", problems.cross_entropy())
    with pytest.raises(ValueError, match="`Probe` needs a model with"):
        _fit([Probe("noise_norm")], model)


def test_fit__noise_scale_of_one_worker__error_says_what_is_needed():
    with pytest.raises(ValueError, match="needs 2 or more, got num_workers=1"):
        _fit([Probe("gradient_noise_scale")], _model(None, 1))


def test_fit__own_train_step__error_names_the_measures():
    class Own(tf_gnc.GNCModel):
        def train_step(self, data):
            return {"loss": tf.constant(1.0)}

    with pytest.raises(ValueError, match="Leave out noise_norm, loss_spread"):
        _fit(
            [Probe(["noise_norm", "loss_spread"], directory=None)],
            _model(model_class=Own, optimizer=_CountingSGD(0.1)),
        )


class _CountingSGD(keras.optimizers.SGD):
    """Counts a step at each look, for a step that doesn't."""

    @property
    def iterations(self):
        self._looks = getattr(self, "_looks", 0) + 1
        return tf.constant(self._looks)


def test_fit__directory_is_a_file__error_names_it(tmp_path):
    path = tmp_path / "file"
    path.touch()
    with pytest.raises(NotADirectoryError, match=f"directory='{path}'"):
        _fit([Probe("noise_norm", directory=path)])


def test_rows__every_second_step__hold_the_steps_numbers(tmp_path):
    tables = []

    class Look(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            plan = self.model.step_plan
            tables.append(plan.table.read(self.model.distribute_strategy))

    probe = Probe(CHEAP, every=2, directory=tmp_path / "new" / "one")
    model, _ = _fit([probe, Look()])
    rows = _rows(tmp_path / "new" / "one")
    assert [(row["step"], row["epoch"]) for row in rows] == [
        (2, 1), (4, 1), (6, 2), (8, 2),
    ]  # fmt: skip
    for row, table in zip(rows, tables[1::2], strict=True):
        norms = np.sqrt(table.noise_squares)
        assert row["noise_norm"] == pytest.approx(norms.mean())
        assert row["loss_spread"]["max"] == pytest.approx(table.losses.max())
        assert list(row) == ["step", "epoch", *CHEAP]
    assert not control_of(model).keeps_table  # off again


def test_rows__many_steps_a_call__one_a_call_in_which_a_step_fell(tmp_path):
    model = _model(steps_per_execution=2)
    _fit([Probe("noise_norm", every=3, directory=tmp_path)], model)
    assert _steps(tmp_path) == [4, 6]


def test_rows__fit_once_more__go_on(tmp_path):
    probe = Probe("noise_norm", every=3, directory=tmp_path)
    model, _ = _fit([probe], epochs=1)
    _fit([Probe("noise_norm", directory=tmp_path)], model, epochs=1)
    _fit([probe], model, epochs=1)
    assert _steps(tmp_path) == [3, 5, 6, 7, 8, 9, 12]


def test_rows__two_probes__share_a_file(tmp_path):
    probes = [
        Probe(name, every=every, directory=tmp_path)
        for name, every in (("noise_norm", 2), ("loss_spread", 4))
    ]
    _fit(probes, epochs=1)
    assert _steps(tmp_path) == [2, 4, 4]


def test_rows__of_another_run__are_kept_beside(tmp_path):
    def probe():
        return Probe("noise_norm", every=4, directory=tmp_path)

    _fit([probe()])
    first = (tmp_path / "probe.jsonl").read_text()
    for count in (1, 2):
        with pytest.warns(UserWarning, match=f"called probe-{count}.jsonl"):
            _fit([probe()], epochs=1)
    assert (tmp_path / "probe-1.jsonl").read_text() == first
    assert _steps(tmp_path, "probe-2.jsonl") == _steps(tmp_path) == [4]


def test_rows__half_a_line_left_by_a_kill__is_cut_off(tmp_path):
    path = tmp_path / "probe.jsonl"
    path.write_text('{"step": 0, "epoch": 1}\n{"step": 1, "ep')
    _fit([Probe("noise_norm", every=4, directory=tmp_path)], epochs=1)
    assert _steps(tmp_path) == [0, 4]


def test_rows__file_of_something_else__error_and_file_left_alone(tmp_path):
    path = tmp_path / "probe.jsonl"
    path.write_text("[1, 2]\n")
    with pytest.raises(ValueError, match=r"Line 1 of .*probe.jsonl must"):
        _fit([Probe("noise_norm", directory=tmp_path)])
    assert path.read_text() == "[1, 2]\n"


class _Killed(Exception):
    pass


class _Kill(keras.callbacks.Callback):
    backed_up = ()

    def __init__(self, step):
        super().__init__()
        self.step = step

    def on_train_batch_end(self, batch, logs=None):
        if int(self.model.optimizer.iterations.numpy()) == self.step:
            raise _Killed


def test_rows__killed_and_taken_up__each_once_and_same_means(tmp_path):
    def run(name, step=None, every=2):
        probe = Probe(CHEAP, every=every, directory=tmp_path / name)
        backup = BackupAndRestore(tmp_path / f"{name}-backup", save_freq=3)
        return _fit([probe, _Kill(step), backup], _model())[1]

    whole = run("whole")
    with pytest.raises(_Killed):
        run("killed", step=7)  # The last backup is of step 6.
    with pytest.raises(_Killed):
        run("killed", step=8)
    assert _steps(tmp_path / "killed") == [2, 4, 6, 8]
    taken_up = run("killed")
    rows, expected = (_rows(tmp_path / n) for n in ("killed", "whole"))
    assert [r["step"] for r in rows] == [r["step"] for r in expected]
    for row, other in zip(rows, expected, strict=True):
        assert row["noise_norm"] == pytest.approx(other["noise_norm"], 1e-4)
    # The mean over the epoch has steps from before the kill, too.
    name = "probe_loss_spread_mean"
    assert taken_up[name][-1] == pytest.approx(whole[name][-1], rel=1e-5)
    assert not list((tmp_path / "killed").glob("probe-*"))


def test_logs__of_an_epoch__are_means_and_reach_csv_logger(tmp_path):
    path = tmp_path / "log.csv"
    probe = Probe(CHEAP, directory=tmp_path)
    _, history = _fit([probe, keras.callbacks.CSVLogger(path)])
    rows = _rows(tmp_path)[4:]
    for name in ("noise_norm", "relative_displacement"):
        expected = np.mean([row[name] for row in rows])
        assert history[f"probe_{name}"][1] == pytest.approx(expected)
    for part in ("min", "max", "std", "mean"):
        expected = np.mean([row["loss_spread"][part] for row in rows])
        found = history[f"probe_loss_spread_{part}"][1]
        assert found == pytest.approx(expected)
    with path.open() as file:
        columns = set(next(csv.reader(file)))
    assert {name for name in history if name.startswith("probe_")} <= columns


def test_logs__noise_scale__is_the_ratio_of_the_mean_estimates():
    estimates = []

    class Look(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            plan = self.model.step_plan
            table = plan.table.read(self.model.distribute_strategy)
            estimates.append(measures.gradient_and_noise(table))

    probe = Probe("gradient_noise_scale")
    _, history = _fit([probe, Look()], epochs=1)
    gradient, noise = np.sum(estimates, axis=0)
    (found,) = history["probe_gradient_noise_scale"]
    assert gradient > 0
    assert found == pytest.approx(noise / gradient)
    assert found != pytest.approx(np.mean([n / g for g, n in estimates]))


def test_logs__epoch_without_a_measurement__has_nan():
    _, history = _fit([Probe("noise_norm", every=3)], epochs=3)
    assert all(map(math.isfinite, history["probe_noise_norm"]))
    _, history = _fit([Probe("noise_norm", every=8)], epochs=3)
    # The first epoch doesn't know the name yet.
    first, second = history["probe_noise_norm"]
    assert math.isfinite(first)
    assert math.isnan(second)


def test_rows__step_that_is_not_finite__says_so(tmp_path):
    x, y = problems.vectors(32)
    x[20] = np.nan  # in the second step
    model = _model(None)
    model.fit(
        x, y, batch_size=16, shuffle=False, verbose=0,
        callbacks=[Probe(CHEAP, directory=tmp_path)],
    )  # fmt: skip
    first, second = _rows(tmp_path)
    assert "valid" not in first
    assert second["valid"] is False
    assert [second[name] for name in CHEAP] == [None] * 6


def test_tensorboard__log_dir__has_the_numbers_by_step(tmp_path):
    probe = Probe(
        ["noise_norm", "loss_spread"], every=4, directory=tmp_path,
        log_dir=tmp_path / "tb",
    )  # fmt: skip
    _fit([probe])
    (events,) = (tmp_path / "tb").iterdir()
    found = {}
    for record in tf.data.TFRecordDataset(str(events)):
        event = tf.compat.v1.Event.FromString(record.numpy())
        for value in event.summary.value:
            number = float(tf.make_ndarray(value.tensor))
            found[value.tag, event.step] = number
    assert len(found) == 2 * 5
    for row in _rows(tmp_path):
        tag = ("probe_noise_norm", row["step"])
        assert found[tag] == pytest.approx(row["noise_norm"])


def test_fit__rule_switched__probe_goes_on(tmp_path):
    probe = Probe(["noise_norm"], directory=tmp_path)
    rnc = tf_gnc.RandomNoise(alpha=0.1, seed=1)
    _fit([probe, SwitchNoise(1, rnc)])
    norms = [row["noise_norm"] for row in _rows(tmp_path)]
    assert norms[0] == 0  # no gradients to remember yet
    assert min(norms[1:4]) > 0
    np.testing.assert_allclose(norms[4:], math.sqrt(14), rtol=1e-5)


FULL = {
    "similarity": {},
    "spectrum": {},
    "sharpness": {"eigenvalues": 1},
    "smoothness": {},
    "landscape": {"points": 3},
}


@pytest.mark.parametrize("kind", ["cheap", "full"])
def test_fit__probed__trains_as_without(kind, tmp_path):
    x, y = problems.vectors(64)
    probe = Probe(
        CHEAP if kind == "cheap" else FULL,
        every=3 if kind == "full" else 1,
        batch=(x[:16], y[:16]),
        dataset=tf.data.Dataset.from_tensor_slices((x, y)).batch(32),
        directory=tmp_path,
    )
    plain, _ = _fit([])
    probed, history = _fit([probe])
    difference = problems.largest_difference(
        problems.float_weights(plain), problems.float_weights(probed)
    )
    assert difference < 1e-6
    for first, second in zip(
        problems.memory(plain), problems.memory(probed), strict=True
    ):
        np.testing.assert_allclose(first, second, rtol=1e-4, atol=1e-6)
    if kind == "full":
        assert _steps(tmp_path) == [3, 6]
        for row in _rows(tmp_path):
            assert set(FULL) < set(row)
            assert -1 <= row["similarity"]["total"] <= 1
            assert len(row["sharpness"]["hessian"]) == 1
            low, middle, high = row["landscape"]["loss"]
            clean = row["sharpness"]["clean_loss"]
            assert middle == pytest.approx(clean, rel=1e-5)
            assert low != high
        assert "probe_similarity_total" in history
        assert not any("layers" in name for name in history)
        assert not any("losses" in name for name in history)
