"""Runs and backups in real servers' buckets, on this machine."""

import threading

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests import problems, servers
from tests.callbacks import exact
from tests.distribute import test_elastic
from tests.experiments.run import test_remainder as small
from tests.store import saving
from tf_gnc import GNCModel, _files
from tf_gnc._files import retry
from tf_gnc.callbacks import BackupAndRestore, probe_rows
from tf_gnc.experiments import Placement, prepare, train
from tf_gnc.experiments.figures.recorded_runs import read_runs
from tf_gnc.experiments.run.directory import RunFiles
from tf_gnc.experiments.run.measure import find_models, load_checkpoint
from tf_gnc.experiments.run.recording import Recording
from tf_gnc.store import open_store


@pytest.fixture(params=["gs", "s3"])
def address(request, tmp_path, monkeypatch):
    """Where a bucket is, of both kinds."""
    folder = tmp_path / "gcs"
    with servers.running(request.param, folder, monkeypatch) as server:
        yield server.address


@pytest.fixture
def s3(tmp_path, monkeypatch):
    """A server that says no at once when it is stopped."""
    with servers.running("s3", tmp_path, monkeypatch) as server:
        yield server


def test_store__real_server__backups_are_pruned_and_checked(address):
    store = open_store(f"{address}/backup", keep=2)
    assert store.latest() == (None, [])
    for step in (1, 2, 3):
        saving.save(store, step)
    assert [path.name for path in sorted(store.directory.iterdir())] == [
        "step-000000000002",
        "step-000000000003",
    ]
    store.begin(4)  # and killed
    latest, (begun,) = open_store(store.directory).latest()
    assert (latest.step, ".draft-" in begun) == (3, True)
    saving.check(latest)
    (latest.path / "noise-1.bin").write_bytes(b"short")
    latest, (damaged, _) = open_store(store.directory).latest()
    assert (latest.step, "it has 5 bytes" in damaged) == (2, True)
    saving.check(latest)


def test_write__cut_off_in_the_middle__leaves_no_object(address):
    def chunks():
        yield b"the first half"
        raise KeyboardInterrupt

    path = _files.as_path(f"{address}/large")
    with pytest.raises(KeyboardInterrupt):
        path.write_chunks(chunks)
    assert not path.exists()


def test_run__cut_short_and_taken_up__is_the_run_to_the_bit(
    address, tmp_path, monkeypatch
):
    # The rows of steps 5 and 6 aren't sent yet when it is backed up.
    monkeypatch.setattr(probe_rows, "SECONDS_BETWEEN_UPLOADS", 1e9)

    def interrupt(batch, logs):
        if int(cut.model.optimizer.iterations) == 7:
            raise KeyboardInterrupt

    placed = Placement(
        tf.distribute.get_strategy(), save_freq=3, resume=True,
        recording=Recording(["noise_norm"], 1, checkpoint_every=2),
    )  # fmt: skip
    config, run_dir = small._config(), f"{address}/runs/one"
    whole = prepare(config, tmp_path / "run", placement=placed)
    train(whole)
    cut = prepare(config, run_dir, placement=placed)
    watch = keras.callbacks.LambdaCallback(on_train_batch_begin=interrupt)
    with pytest.raises(KeyboardInterrupt):
        train(cut, [watch])
    again = prepare(config, run_dir, placement=placed)
    assert list(train(again).resumed_steps) == [6]
    for ours, theirs in zip(
        again.model.get_weights(), whole.model.get_weights(), strict=True
    ):
        np.testing.assert_array_equal(ours, theirs)
    assert small._rows(again, "probe.jsonl") == small._rows(
        whole, "probe.jsonl"
    )
    updates = [row["updates"] for row in small._rows(again)]
    assert updates == small.UPDATES
    # A run that has ended has nothing left but its results.
    assert again.files.names() == whole.files.names()
    (run,) = read_runs([f"{address}/runs/*"])
    models = find_models(run)
    assert list(models) == [2, 4]
    kept = load_checkpoint(models[4], config, again.images, 4)
    for ours, theirs in zip(
        kept.get_weights(), whole.model.get_weights(), strict=True
    ):
        np.testing.assert_array_equal(ours, theirs)


def test_run_dir__that_of_another_run__is_refused(address):
    RunFiles(f"{address}/run").claim()
    with pytest.raises(FileExistsError, match="must be new or empty"):
        RunFiles(f"{address}/run")
    assert not RunFiles(f"{address}/run", resume=True).names() == []


def test_run__another_process_takes_it_up__the_first_one_stops(s3):
    first, second = (
        RunFiles(f"{s3.address}/run", resume=True) for _ in range(2)
    )
    first.claim()
    first.add_row([], {"epoch": 1})
    second.claim()
    with pytest.raises(_files.TakenError, match="This one stops"):
        first.add_row([{"epoch": 1}], {"epoch": 2})
    second.add_row([{"epoch": 1}], {"epoch": 2})


def test_elastic__from_2_to_4_replicas_by_a_bucket__is_the_run(s3, tmp_path):
    whole = test_elastic._attempt(tmp_path, None, 1)
    assert test_elastic._attempt(s3.address, 7, 2) is None
    latest, _ = open_store(f"{s3.address}/backup").latest()
    assert latest.step == 6
    found = test_elastic._attempt(s3.address, None, 4)
    test_elastic._assert_same_run(found, whole)


class AtStep(keras.callbacks.Callback):
    """Does things after steps, by their numbers."""

    backed_up = ()

    def __init__(self, things):
        super().__init__()
        self.things = things

    def on_train_batch_end(self, batch, logs=None):
        step = int(self.model.optimizer.iterations.numpy())
        self.things.get(step, lambda: None)()


def _fit(backup, things=None):
    keras.utils.set_random_seed(1)
    inputs = keras.Input((5,))
    model = GNCModel(inputs, keras.layers.Dense(problems.CLASSES)(inputs))
    model.compile(
        problems.sgd(), problems.cross_entropy(), noise=exact.GNC,
        num_workers=4,
    )  # fmt: skip
    x, y = problems.vectors(16 * 5)
    model.fit(
        x, y, batch_size=16, verbose=0, callbacks=[AtStep(things or {}), backup]
    )
    return model


def _lines(capsys, word):
    lines = capsys.readouterr().err.splitlines()
    return [line for line in lines if word in line]


def test_fit__server_back_in_time__all_backups_and_one_line(s3, capsys):
    timer = threading.Timer(1.5, s3.start)

    def stop():
        s3.stop()
        timer.start()

    backup = BackupAndRestore(f"{s3.address}/backup", save_freq=1, keep=9)
    _fit(backup, {2: stop})
    timer.join()
    names = [path.name for path in backup._store.directory.iterdir()]
    # The last step is saved again as its epoch ends.
    assert {int(name[5:17]) for name in names} == {1, 2, 3, 4, 5}
    (line,) = _lines(capsys, "can't be reached")
    assert "it is tried again for up to 180 s" in line


def test_fit__server_away_for_long__goes_on_and_backs_up_later(
    s3, capsys, monkeypatch
):
    monkeypatch.setattr(retry, "PATIENCE_SECONDS", 0.2)
    backup = BackupAndRestore(f"{s3.address}/backup", save_freq=1, keep=9)
    trained = _fit(backup, {2: s3.stop, 4: s3.start})
    latest, _ = open_store(backup._store.directory).latest()
    assert latest.step == 5
    assert len(_lines(capsys, "training goes on")) == 2  # steps 2 and 3
    again = _fit(BackupAndRestore(f"{s3.address}/backup", save_freq=1))
    for ours, theirs in zip(
        again.get_weights(), trained.get_weights(), strict=True
    ):
        np.testing.assert_array_equal(ours, theirs)


def test_fit__server_away_and_backups_required__ends(s3, monkeypatch):
    monkeypatch.setattr(retry, "PATIENCE_SECONDS", 0.2)
    backup = BackupAndRestore(
        f"{s3.address}/backup", save_freq=1, required=True
    )
    with pytest.raises(OSError, match="can't be reached"):
        _fit(backup, {2: s3.stop})


def test_fit__server_away_at_the_start__is_an_error_not_a_new_run(
    s3, monkeypatch
):
    _fit(BackupAndRestore(f"{s3.address}/backup", save_freq=1))
    monkeypatch.setattr(retry, "PATIENCE_SECONDS", 0.2)
    backup = BackupAndRestore(f"{s3.address}/backup", save_freq=1)
    s3.stop()
    with pytest.raises(_files.UnreachableError):
        _fit(backup)
    s3.start()


def test_metrics__server_away__rows_come_with_the_next(s3, monkeypatch, capsys):
    monkeypatch.setattr(retry, "PATIENCE_SECONDS", 0.2)
    files = RunFiles(f"{s3.address}/run")
    files.claim()
    rows = [{"epoch": epoch} for epoch in (1, 2)]
    s3.stop()
    files.add_row([], rows[0])
    s3.start()
    files.add_row(rows[:1], rows[1])
    assert _files.read_rows(files.path("metrics.jsonl"), "epoch") == rows
    assert len(_lines(capsys, "kept for the next time")) == 1
