"""Killed and taken up again: the same run; and what is refused."""

import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import warnings

import keras
import numpy as np
import pytest
import tensorflow as tf

import tf_gnc
from tests import problems
from tests.callbacks import exact
from tests.old_files import make as make_old
from tf_gnc import _keras_compat
from tf_gnc.callbacks import BackupAndRestore

ROOT = pathlib.Path(__file__).parents[2]


@pytest.fixture(scope="module")
def exactly():
    """How each of the runs in exact.py went."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.callbacks.exact"],
        cwd=ROOT, capture_output=True, text=True, timeout=560,
    )  # fmt: skip
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(lines) == len(exact.SCENARIOS), done.stderr
    return {name: wrong for name, wrong, _ in lines}


@pytest.mark.parametrize("name", exact.SCENARIOS)
def test_backup__killed_and_taken_up__is_the_run_bit_for_bit(name, exactly):
    assert exactly[name] is None, exactly[name]


def _network(width=4, model_class=tf_gnc.GNCModel):
    """What of a model a backup has to do with, quickly traced."""
    _keras_compat.set_random_seed(1)
    inputs = keras.Input((5,))
    h = keras.layers.Dense(width, "tanh")(inputs)
    return model_class(inputs, keras.layers.Dense(problems.CLASSES)(h))


def _model(rule=exact.GNC, num_workers=4, network=None, optimizer=None):
    model = network or _network()
    model.compile(
        optimizer or problems.sgd(), problems.cross_entropy(),
        noise=rule, num_workers=num_workers,
    )  # fmt: skip
    return model


def _fit(model, backup, callbacks=(), num_steps=2, **fit):
    x, y = problems.vectors(16 * num_steps)
    return model.fit(
        x, y, batch_size=16, verbose=0, callbacks=[backup, *callbacks],
        **{"epochs": 2, **fit},
    )  # fmt: skip


@pytest.fixture(scope="module")
def kept(tmp_path_factory):
    """A run of two epochs with two backups, after steps 2 and 4."""
    folder = tmp_path_factory.mktemp("kept") / "backup"
    _fit(_model(), BackupAndRestore(folder))
    assert _names(folder) == ["step-000000000002", "step-000000000004"]
    return folder


@pytest.fixture
def folder(kept, tmp_path):
    return pathlib.Path(shutil.copytree(kept, tmp_path / "backup"))


def _names(folder):
    return sorted(os.listdir(folder))


def _truncate(path):
    os.truncate(path, path.stat().st_size - 1)


def _flip(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


FILES = ["manifest.json", "model.bin", "process-0.bin"]


@pytest.mark.parametrize("file", FILES)
@pytest.mark.parametrize("damage", [_truncate, _flip, pathlib.Path.unlink])
def test_damage__of_the_newest__is_named_left_alone_and_passed_over(
    damage, file, folder
):
    path = folder / "step-000000000004" / file
    assert path.exists()
    damage(path)
    before = path.read_bytes() if path.exists() else None
    with pytest.warns(UserWarning, match=f"can't be used: {path}"):
        assert BackupAndRestore(folder).first_step() == 2
    assert (path.read_bytes() if path.exists() else None) == before


def test_damage__of_the_newest__fit_goes_on_from_the_one_before(folder):
    _flip(folder / "step-000000000004" / "model.bin")
    first = _model()
    whole = _fit(first, BackupAndRestore(folder.parent / "other"))
    model = _model()
    with pytest.warns(UserWarning, match="000004/model.bin: its checksum"):
        history = _fit(model, BackupAndRestore(folder))
    assert history.epoch == whole.epoch == [0, 1]
    assert problems.largest_difference(
        problems.float_weights(model), problems.float_weights(first)
    ) == pytest.approx(0, abs=1e-6)
    # The damaged one stays, and its step gets a sound one.
    assert _names(folder) == [
        "step-000000000002", "step-000000000004", "step-000000000004.2",
    ]  # fmt: skip


def test_damage__of_all__error_names_them_and_nothing_is_trained(folder):
    paths = [folder / name / "model.bin" for name in _names(folder)]
    for path in paths:
        _truncate(path)
    model = _model()
    with (
        pytest.warns(UserWarning, match="can't be used"),
        pytest.raises(ValueError, match="none that can be used") as caught,
    ):
        _fit(model, BackupAndRestore(folder))
    assert all(str(path) in str(caught.value) for path in paths)
    assert int(model.optimizer.iterations.numpy()) == 0


def test_damage__half_written__is_named_and_passed_over(folder):
    draft = folder / ".draft-000000000006"
    (folder / "step-000000000004").rename(draft)
    (draft / "manifest.json").unlink()
    with pytest.warns(UserWarning, match=rf"{draft}: .* stopped before"):
        assert BackupAndRestore(folder).first_step() == 2


def test_damage__half_written_alone__is_a_new_run(folder):
    shutil.rmtree(folder / "step-000000000002")
    (folder / "step-000000000004").rename(folder / ".draft-000000000004")
    with pytest.warns(UserWarning, match="stopped before"):
        assert BackupAndRestore(folder).first_step() == 0


@pytest.mark.parametrize(
    ("other", "words"),
    [
        ({"num_workers": 8}, "num_workers: 4 in the backup, 8 here"),
        ({"rule": exact.RNC}, r"noise: .*'GradientNoise'.*'RandomNoise'"),
        ({"rule": None}, r"noise: .*'GradientNoise'.*, None here"),
        (
            {"rule": tf_gnc.GradientNoise(alpha=0.25)},
            r"noise: .*'alpha': 0.5.* in the backup, .*'alpha': 0.25.* here",
        ),
        ({"optimizer": "adam"}, "optimizer: SGD in the backup, Adam here"),
        (
            {"optimizer": keras.optimizers.SGD(0.1)},
            r"optimizer's variables: 6 variables in the backup, 2 here",
        ),
    ],
)
def test_fit__backup_of_another_run__is_refused_with_both_values(
    other, words, folder
):
    with pytest.raises(ValueError, match=f"got another {words}"):
        _fit(_model(**other), BackupAndRestore(folder))


def test_fit__backup_of_another_model__is_refused_with_both_shapes(folder):
    model = _model(network=_network(width=6))
    with pytest.raises(
        ValueError,
        match=r"another model: kernel \[5, 4\] float32 in the backup, "
        r"kernel \[5, 6\] float32 here",
    ):
        _fit(model, BackupAndRestore(folder))


def test_fit__run_has_ended__trains_nothing_and_returns_its_history(folder):
    model = _model()
    history = _fit(model, BackupAndRestore(folder), [exact.Kill(1)])
    assert int(model.optimizer.iterations.numpy()) == 4
    assert history.epoch == [0, 1]
    assert len(history.history["loss"]) == 2


def test_fit__run_has_ended_and_gets_more_epochs__goes_on(folder):
    model = _model()
    history = _fit(model, BackupAndRestore(folder), epochs=3)
    assert int(model.optimizer.iterations.numpy()) == 6
    assert history.epoch == [0, 1, 2]


class _Restarts(keras.callbacks.Callback):
    """Counts in a state of its own, and in one that isn't backed up."""

    backed_up = ("kept",)

    def __init__(self):
        super().__init__()
        self.kept = self.lost = 0

    def on_epoch_end(self, epoch, logs=None):
        self.kept += 1
        self.lost += 1


def test_fit__callback_names_its_state__gets_that_and_no_more(tmp_path):
    with pytest.raises(exact.Killed):
        _fit(
            _model(), BackupAndRestore(tmp_path),
            [_Restarts(), exact.Kill("epoch 1")],
        )  # fmt: skip
    counts = _Restarts()
    _fit(_model(), BackupAndRestore(tmp_path), [counts])
    assert (counts.kept, counts.lost) == (2, 1)


def test_keep_min_seconds_save_freq__any__decide_what_is_there(tmp_path):
    model = _model()

    def names(folder, *arguments, num_steps=2, **fit):
        model.optimizer.iterations.assign(0)
        backup = BackupAndRestore(tmp_path / folder, *arguments)
        _fit(model, backup, num_steps=num_steps, **fit)
        return _names(tmp_path / folder)

    # The last step is saved again as its epoch ends.
    assert names("keep", 1, 1) == ["step-000000000004.2"]
    # Only the last is written.
    assert names("min_seconds", 1, 9, 3600) == ["step-000000000004"]
    # Steps 8 to 15 of the data; those 9, 12 and 15 have been done, and all.
    later = names("save_freq", 3, 9, num_steps=4, initial_epoch=2, epochs=4)
    assert [name[-2:] for name in later] == ["01", "04", "07", "08"]


class _Terminate(keras.callbacks.Callback):
    """Sends this process a SIGTERM as a step begins."""

    def __init__(self, step):
        super().__init__()
        self.step = step

    def on_train_batch_begin(self, batch, logs=None):
        if int(self.model.optimizer.iterations.numpy()) == self.step:
            os.kill(os.getpid(), signal.SIGTERM)


def test_sigterm__in_mid_epoch__saves_after_the_step_and_exits_with_75(
    tmp_path, capsys
):
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(SystemExit) as caught:
        _fit(_model(), BackupAndRestore(tmp_path), [_Terminate(2)])
    assert caught.value.code == 75
    assert _names(tmp_path) == ["step-000000000002", "step-000000000003"]
    assert "Stopped by SIGTERM at step 3" in capsys.readouterr().err
    assert signal.getsignal(signal.SIGTERM) is before
    model = _model()
    _fit(model, BackupAndRestore(tmp_path))
    assert int(model.optimizer.iterations.numpy()) == 4
    assert "Goes on at step 3" in capsys.readouterr().err


def _recorded(first_step, seen):
    """Batches from a step on, which note that they are read."""
    x, y = problems.vectors(64)

    def load(step):
        seen.append(int(step))
        start = 16 * (int(step) % 4)
        return x[start : start + 16], y[start : start + 16]

    def batch(step):
        rows, labels = tf.py_function(load, [step], [tf.float32, tf.int64])
        return tf.ensure_shape(rows, [16, 5]), tf.ensure_shape(labels, [16])

    options = tf.data.Options()
    options.experimental_optimization.inject_prefetch = False
    steps = tf.data.Dataset.range(first_step, 100).with_options(options)
    return steps.map(batch)


def _killed_at_seven(tmp_path):
    with pytest.raises(exact.Killed):
        _model().fit(
            _recorded(0, []), steps_per_epoch=4, epochs=2, verbose=0,
            callbacks=[BackupAndRestore(tmp_path, 1), exact.Kill(7)],
        )  # fmt: skip
    return BackupAndRestore(tmp_path, 1)


def test_data__that_begin_at_first_step__read_nothing_twice(tmp_path):
    backup = _killed_at_seven(tmp_path)
    assert backup.first_step() == 6
    seen = []
    model = _model()
    model.fit(
        _recorded(backup.first_step(), seen), steps_per_epoch=4, epochs=2,
        verbose=0, callbacks=[backup],
    )  # fmt: skip
    assert int(model.optimizer.iterations.numpy()) == 8
    assert seen == [6, 6, 7]  # The first of all to learn the shapes.


def test_data__any_other__reads_up_to_the_place_once(tmp_path):
    seen = []
    model = _model()
    model.fit(
        _recorded(0, seen), steps_per_epoch=4, epochs=2,
        verbose=0, callbacks=[_killed_at_seven(tmp_path)],
    )  # fmt: skip
    assert int(model.optimizer.iterations.numpy()) == 8
    assert seen == [0, 0, 1, 2, 3]


def test_data__arrays__skipped_examples_are_not_read(tmp_path, monkeypatch):
    seen = []
    examples_of = tf_gnc.distribute.sharding.examples_of

    def noting(arrays):
        load = examples_of(arrays)

        def note(chosen):
            seen.append(len(chosen))

        def load_and_note(chosen):
            with tf.control_dependencies([tf.py_function(note, [chosen], [])]):
                return load(tf.identity(chosen))

        return load_and_note

    with pytest.raises(exact.Killed):
        _fit(_model(), BackupAndRestore(tmp_path, 1), [exact.Kill(8)],
             num_steps=5)  # fmt: skip
    monkeypatch.setattr(tf_gnc.distribute.sharding, "examples_of", noting)
    orders = []
    indices = tf_gnc.distribute.sharding.indices

    def ending(*arguments):
        orders.append(arguments)
        return indices(*arguments).take(3)

    monkeypatch.setattr(tf_gnc.distribute.sharding, "indices", ending)
    _fit(_model(), BackupAndRestore(tmp_path, 1), num_steps=5)
    assert orders[0][-1] == 7
    assert sorted(seen) == [1, 16, 16, 16]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"save_freq": "step"}, "`save_freq`.*got save_freq='step'"),
        ({"save_freq": 0}, "`save_freq`.*got save_freq=0"),
        ({"keep": 0}, "`keep`.*got keep=0"),
        ({"min_seconds": -1}, "`min_seconds`.*got min_seconds=-1"),
        ({"directory": "ftp://host/a"}, "gs://bucket/name.*'ftp://host/a'"),
        ({"required": 1}, "`required`.*got required=1"),
    ],
)
def test_backup__bad_argument__is_refused(arguments, words, tmp_path):
    with pytest.raises(ValueError, match=words):
        BackupAndRestore(**{"directory": tmp_path, **arguments})


def test_fit__two_backups__is_refused(tmp_path):
    two = BackupAndRestore(tmp_path / "a"), BackupAndRestore(tmp_path / "b")
    with pytest.raises(ValueError, match="a single BackupAndRestore, got 2"):
        _fit(_model(), two[0], [two[1]])


def test_fit__in_a_callback_list__is_refused(tmp_path):
    model = _model()
    callbacks = keras.callbacks.CallbackList(
        [BackupAndRestore(tmp_path)], model=model
    )
    with pytest.raises(ValueError, match="in a list of callbacks"):
        model.fit(*problems.vectors(16), callbacks=callbacks)


def test_fit__stock_model__is_refused(tmp_path):
    model = _network(model_class=keras.Model)
    model.compile("sgd", problems.cross_entropy())
    with pytest.raises(ValueError, match="needs a model with .*GNCTrainStep"):
        _fit(model, BackupAndRestore(tmp_path))


def test_fit__other_steps_per_execution__is_refused(tmp_path):
    with pytest.raises(exact.Killed):
        _fit(_model(), BackupAndRestore(tmp_path, 1), [exact.Kill(2)])
    model = _network()
    model.compile(
        problems.sgd(), problems.cross_entropy(), noise=exact.GNC,
        num_workers=4, steps_per_execution=2,
    )  # fmt: skip
    with pytest.raises(ValueError, match="1 steps with steps_per_execution=2"):
        _fit(model, BackupAndRestore(tmp_path))


def test_fit__no_backup_yet__says_nothing(tmp_path, capsys):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert BackupAndRestore(tmp_path / "new").first_step() == 0
    assert capsys.readouterr().err == ""


def test_restore__epochs_of_another_length__is_refused_with_both(folder):
    model = _model()
    before = model.get_weights()
    with pytest.raises(ValueError, match="3 steps an epoch with a backup of 2"):
        _fit(model, BackupAndRestore(folder), num_steps=3)
    for weight, other in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(weight, other)


def test_sigterm__after_the_last_step__is_not_forgotten(tmp_path):
    class Late(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            if epoch == 1:
                os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(SystemExit) as caught:
        _fit(_model(), BackupAndRestore(tmp_path / "backup"), [Late()])
    assert caught.value.code == 75
    assert _names(tmp_path / "backup")[-1] == "step-000000000004"


def test_callbacks__changed_settings__are_the_new_runs(tmp_path):
    def checkpoint(name):
        path = str(tmp_path / f"{name}.keras")
        return keras.callbacks.ModelCheckpoint(path, monitor="loss")

    backup = tmp_path / "backup"
    _fit(_model(), BackupAndRestore(backup), [checkpoint("one")], epochs=1)
    (tmp_path / "one.keras").unlink()
    _fit(_model(), BackupAndRestore(backup), [checkpoint("two")], epochs=2)
    assert sorted(p.name for p in tmp_path.glob("*.keras")) == ["two.keras"]


def test_data__a_generator__loses_no_batch_to_the_backup(tmp_path):
    def batches():
        x, y = problems.vectors(16 * 6)
        for start in range(0, len(x), 16):
            yield x[start : start + 16], y[start : start + 16]

    losses = []
    for callbacks in ([], [BackupAndRestore(tmp_path / "backup")]):
        history = _model().fit(
            batches(), steps_per_epoch=3, epochs=2, verbose=0, shuffle=False,
            callbacks=callbacks,
        )  # fmt: skip
        losses.append(history.history["loss"])
    assert len(losses[0]) == 2
    np.testing.assert_allclose(*losses, rtol=1e-6)


def test_backup__old_one_cannot_be_removed__warns_and_trains_on(
    tmp_path, monkeypatch
):
    from tf_gnc.store import Store

    def refuse(store, path):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Store, "_remove", refuse)
    callback = BackupAndRestore(tmp_path, save_freq=1, keep=1)
    with pytest.warns(UserWarning, match="it is old and can't be removed"):
        model = make_old.run_to_back_up([callback])
    assert int(model.optimizer.iterations) == 6
