"""One process writes, whatever users save, log or print.

Functions that take a strategy and a folder are scenarios; see
tests/processes.py.
"""

import contextlib
import csv
import io
import pathlib

import keras
import numpy as np
import pytest
import tensorflow as tf

import tf_gnc
from tests import problems, processes
from tf_gnc.distribute import chief, process_index


def _compiled(strategy, dropout=0.0):
    with strategy.scope():
        model = problems.dense_network(dropout=dropout)
        model.compile(
            problems.sgd(),
            problems.cross_entropy(),
            metrics=["accuracy"],
            noise=tf_gnc.GradientNoise(alpha=0.5),
            num_workers=4,
        )
    return model


def _files(folder):
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def writing(strategy, folder):
    """Each process is told another place, so that it shows who writes."""
    own = folder / f"of-{process_index(strategy)}"
    own.mkdir()
    x, y = problems.vectors(32)
    model = _compiled(strategy)
    checkpoint = keras.callbacks.ModelCheckpoint
    best = checkpoint(own / "best.keras", "val_loss", save_best_only=True)
    callbacks = [
        best,
        checkpoint(own / "deep" / "{epoch}.weights.h5", save_weights_only=True),
        # To the same place, as in a user's script.
        checkpoint(folder / "every.keras", save_freq=3),
        keras.callbacks.CSVLogger(own / "log.csv"),
    ]
    history = model.fit(
        x,
        y,
        batch_size=8,
        epochs=2,
        validation_data=(x[:9], y[:9]),
        verbose=0,
        callbacks=callbacks,
    ).history
    # A single callback without a list.
    model.fit(
        x,
        y,
        batch_size=8,
        verbose=0,
        callbacks=keras.callbacks.CSVLogger(own / "single.csv"),
    )
    printed = io.StringIO()
    listed = keras.callbacks.CallbackList(
        [keras.callbacks.CSVLogger(own / "listed.csv")],
        add_history=True,
        add_progbar=True,
        model=model,
        epochs=1,
        steps=1,
        verbose=1,
    )
    with contextlib.redirect_stdout(printed):
        model.fit(x, y, batch_size=8, callbacks=listed)
    model.save(own / "saved.keras")
    model.save(folder / "together.keras")
    model.save_weights(str(own / "saved.weights.h5"))
    model.export(own / "exported", verbose=False)
    return {
        "history": history,
        "printed": printed.getvalue(),
        "best": best.best,
        "files": _files(own),
        "predicted": model.predict(x, verbose=0),
        "together": (folder / "together.keras").exists(),
    }


def printing(strategy, folder):
    x, y = problems.vectors(8)
    model, printed = _compiled(strategy), io.StringIO()
    with contextlib.redirect_stdout(printed):
        model.fit(x, y, batch_size=8)
        model.fit(x, y, batch_size=8, verbose=2)
    return printed.getvalue()


def stock_backup(strategy, folder):
    x, y = problems.vectors(8)
    backup = keras.callbacks.BackupAndRestore(folder)
    model = _compiled(strategy)
    error = processes.error_of(
        lambda: model.fit(x, y, batch_size=8, callbacks=[backup], verbose=0)
    )
    return error, list(folder.iterdir())


SCENARIOS = [writing, printing, stock_backup]


def test_writing__two_processes__the_chief_alone_writes(two_processes):
    first, second = two_processes[writing]
    assert set(first["files"]) == {
        "best.keras",
        "deep/1.weights.h5",
        "deep/2.weights.h5",
        "exported/fingerprint.pb",
        "exported/saved_model.pb",
        "exported/variables/variables.data-00000-of-00001",
        "exported/variables/variables.index",
        "listed.csv",
        "log.csv",
        "saved.keras",
        "saved.weights.h5",
        "single.csv",
    }
    assert second["files"] == {}


def test_writing__two_processes__what_is_written_is_right(
    two_processes, tmp_path
):
    first, _ = two_processes[writing]
    for name, content in first["files"].items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(content)
    x, y = problems.vectors(32)
    expected = first["predicted"]

    saved = keras.models.load_model(tmp_path / "saved.keras")
    np.testing.assert_allclose(saved.predict(x, verbose=0), expected, atol=1e-6)
    other = problems.dense_network()
    other.load_weights(tmp_path / "saved.weights.h5")
    np.testing.assert_allclose(other.predict(x, verbose=0), expected, atol=1e-6)
    exported = tf.saved_model.load(str(tmp_path / "exported"))
    np.testing.assert_allclose(exported.serve(x), expected, atol=1e-6)

    best = keras.models.load_model(tmp_path / "best.keras")
    loss, _ = best.evaluate(x[:9], y[:9], verbose=0)
    assert loss == pytest.approx(first["best"], rel=1e-5)
    with (tmp_path / "log.csv").open() as file:
        logged = [float(row["val_loss"]) for row in csv.DictReader(file)]
    assert logged == pytest.approx(first["history"]["val_loss"])
    assert len(logged) == 2


def test_writing__two_processes__saw_the_same(two_processes):
    first, second = two_processes[writing]
    for name in ("history", "best", "together"):
        assert first[name] == second[name]
    assert first["together"]
    np.testing.assert_array_equal(first["predicted"], second["predicted"])


def test_verbose__two_processes__the_chief_alone_prints(two_processes):
    first, second = two_processes[printing]
    assert "accuracy" in first
    assert second == ""
    # A list with a progress bar, made by the user.
    first, second = two_processes[writing]
    assert "accuracy" in first["printed"]
    assert second["printed"] == ""


def test_stock_backup__two_processes__refused_before_it_writes(two_processes):
    for (kind, text), written in two_processes[stock_backup]:
        assert kind == "ValueError"
        assert "tf_gnc.callbacks.BackupAndRestore(directory)" in text
        assert written == []


# In one process.


@pytest.mark.parametrize("replicas", [1, 2])
def test_writable__one_process__is_the_path_itself(replicas, tmp_path):
    with problems.mirrored(replicas):
        strategy = tf.distribute.get_strategy()
    with chief.writable(tmp_path / "a.keras", strategy) as path:
        assert path == tmp_path / "a.keras"


def test_writable__not_the_chief__is_elsewhere_and_thrown_away(
    monkeypatch, tmp_path
):
    monkeypatch.setattr(chief, "is_chief", lambda strategy: False)
    with pytest.raises(RuntimeError, match="inside"):
        with chief.writable(tmp_path / "a.keras", None) as path:
            other = pathlib.Path(path)
            other.touch()
            assert other.name == "a.keras"
            raise RuntimeError("inside")
    assert not other.parent.exists()
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def callbacks(tmp_path):
    return [
        keras.callbacks.CSVLogger(tmp_path / "log.csv"),
        keras.callbacks.EarlyStopping(),
        keras.callbacks.TensorBoard(tmp_path),
        keras.callbacks.ProgbarLogger(),
    ]


@pytest.mark.parametrize("is_chief", [True, False])
@pytest.mark.parametrize("in_list", [True, False])
def test_only_one_writes__writers_among_callbacks__chief_alone_keeps_them(
    monkeypatch, callbacks, is_chief, in_list
):
    monkeypatch.setattr(chief, "is_chief", lambda strategy: is_chief)
    early_stopping, everything = callbacks[1], list(callbacks)
    arguments = {"callbacks": callbacks, "verbose": 1}
    if in_list:
        callbacks = keras.callbacks.CallbackList(callbacks)
        arguments["callbacks"] = callbacks
    chief.only_one_writes(arguments, callbacks, None)
    left = arguments["callbacks"]
    left = left.callbacks if in_list else left
    if is_chief:
        assert left == everything
        assert arguments["verbose"] == 1
    else:
        assert left == [early_stopping]
        assert arguments["verbose"] == 0
