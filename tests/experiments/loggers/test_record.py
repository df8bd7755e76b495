"""What is sent to a library and when, with one that is away now and then."""

import keras
import pytest

import tf_gnc
from tests import problems
from tf_gnc import _files
from tf_gnc.experiments.loggers import record as record_module
from tf_gnc.experiments.loggers.logger import Logger
from tf_gnc.experiments.loggers.record import Record
from tf_gnc.experiments.loggers.run_log import LogTo, RunLog, steps_between


class Library(Logger):
    """Remembers what it was given; refuses while `away`."""

    def __init__(self):
        self.away, self.calls, self.opened, self.steps = False, 0, [], []
        self.ended = []

    def _answer(self):
        self.calls += 1
        if self.away:
            raise ConnectionError("nobody\nthere")

    def open(self, kept):
        self._answer()
        self.opened.append(kept)
        return "the-id"

    def write(self, points):
        self._answer()
        self.steps += [point.step for point in points]

    def finish(self, summary, curves):
        self._answer()
        self.ended.append(summary)

    def close(self, outcome):
        self._answer()
        self.ended.append(outcome)


@pytest.fixture
def clock(monkeypatch):
    """The seconds that have passed, in a list."""
    now = [1000.0]
    monkeypatch.setattr(record_module.time, "monotonic", lambda: now[0])
    return now


def _record(library, kept=None):
    saved = []
    record = Record("lib", library, kept, lambda n, c: saved.append(dict(c)))
    return record, saved


def _note(record, *steps):
    record.unsent += [[step, 0.0, {"loss": 1.0}] for step in steps]


def test_send__library_away__one_line_and_all_is_there_afterwards(
    clock, capsys
):
    library = Library()
    record, saved = _record(library)
    _note(record, 1)
    record.send()
    library.away = True
    for step in (2, 3, 4):
        _note(record, step)
        record.send()
    assert library.calls == 3  # opened, written, refused; then it waits
    clock[0] += 14
    record.send()
    assert library.calls == 3
    clock[0] += 2
    record.send()
    assert library.calls == 4
    library.away = False
    clock[0] += 31  # The pause has doubled.
    record.send()
    assert library.steps == [1, 2, 3, 4] and library.opened == [None]
    assert saved[-1] == {"id": "the-id", "step": 4}
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("lib can't be written to now (nobody there); ")
    library.away = True
    _note(record, 5)
    record.send()
    assert len(capsys.readouterr().err.splitlines()) == 1  # Another outage.


def test_send__away_from_the_beginning__opens_when_it_is_there(clock):
    library = Library()
    library.away = True
    record, saved = _record(library)
    record.send()
    _note(record, 1)
    library.away = False
    clock[0] += 16
    record.send()
    assert (library.opened, library.steps) == ([None], [1])
    record.finish({"a": 1}, None)
    record.close("finished")
    assert library.ended == [{"a": 1}, "finished"]


def test_close__never_reached__says_how_much_is_missing(clock, capsys):
    library = Library()
    library.away = True
    record, _ = _record(library)
    _note(record, 1, 2)
    record.finish({}, None)
    record.close("finished")
    assert library.calls == 1
    first, second = capsys.readouterr().err.splitlines()
    assert "can't be written" in first
    assert second == "lib: 2 points were not logged."


def test_send__taken_up__steps_that_were_written_are_not_written_again():
    library = Library()
    record, saved = _record(library, {"id": "the-id", "step": 3})
    _note(record, 2, 3, 3, 4)
    record.send()
    assert (library.opened, library.steps) == (["the-id"], [4])
    assert saved[-1] == {"id": "the-id", "step": 4}


def test_records__run_in_a_bucket__are_kept_there():
    run_dir = _files.as_path("memory://loggers/run")
    _files.write_json(run_dir / "loggers.json", {"wandb": {"id": "a"}})
    log_to = LogTo("tensorboard", folder="tb")
    log_to.check(run_dir)
    (record,) = log_to.records(run_dir, {})
    record._logger = Library()
    _note(record, 7)
    record.send()
    assert _files.read_json(run_dir / "loggers.json") == {
        "wandb": {"id": "a"},
        "tensorboard": {"id": "the-id", "step": 7},
    }
    for log_to in (LogTo("tensorboard"), LogTo("tensorboard", folder=__file__)):
        with pytest.raises(ValueError, match="need a local directory"):
            log_to.check(run_dir)
    LogTo("").check(run_dir)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"log": "tensorboard,paper"}, "`log` must be .*'paper'"),
        ({"log_every": 3}, "got log_every=3 alone"),
        ({"log": "tensorboard", "log_every": 0}, "log_every=0"),
    ],
)
def test_log_to__what_makes_no_sense__is_refused(arguments, words):
    with pytest.raises(ValueError, match=words):
        LogTo(**arguments)


class Cut(keras.callbacks.Callback):
    """Ends a run with its sixth step."""

    backed_up = ()

    def on_train_batch_end(self, batch, logs=None):
        if self.model.optimizer.iterations == 6:
            raise KeyboardInterrupt


def _fit(library, folder, cut=None):
    """Eight steps in two epochs, backed up with the fifth; its record."""
    x, y = problems.vectors(64)
    records = [_record(library)[0]]
    rows = [{"epoch": 1, "loss": 0.5, "alpha": None, "rule": "a"}]
    log = RunLog(records, lambda: rows[-1], lambda step: step / 10, 1)
    backup = tf_gnc.callbacks.BackupAndRestore(folder, save_freq=5)
    ours = [log if library else None, cut, backup]
    problems.trained(
        problems.dense_network(), x, y, epochs=2, num_workers=2,
        fit={"callbacks": [callback for callback in ours if callback]},
    )  # fmt: skip
    return records[0]


def test_fit__taken_up_after_an_outage__the_backup_brings_what_was_unsent(
    tmp_path,
):
    library = Library()
    library.away = True
    with pytest.raises(KeyboardInterrupt):
        _fit(library, tmp_path, Cut())
    library.away = False
    record = _fit(library, tmp_path)
    # An epoch's row stands beside its last step.
    assert library.steps == [1, 2, 3, 4, 4, 5, 6, 7, 8, 8]
    assert record.unsent == []


def test_fit__first_logged_when_taken_up__has_the_steps_from_there_on(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        _fit(None, tmp_path, Cut())
    library = Library()
    _fit(library, tmp_path)
    assert library.steps == [6, 7, 8, 8]


def test_run_log__of_a_step__has_loss_rate_and_probes(tmp_path):
    x, y = problems.vectors(64)
    points = []
    library = Library()
    library.write = points.extend
    records = [_record(library)[0]]
    rows = [{"epoch": 1, "loss": 0.5, "val_loss": None, "rule": "a"}]
    log = RunLog(records, lambda: rows[-1], lambda step: step / 10, 3)
    probe = tf_gnc.callbacks.Probe(["noise_norm"], every=2)
    _, history = problems.trained(
        problems.dense_network(), x, y, epochs=1, num_workers=2,
        noise=tf_gnc.GradientNoise(alpha=0.1),
        fit={"callbacks": [probe, log]},
    )  # fmt: skip
    numbers = {}
    for point in points:
        numbers.setdefault(point.step, {}).update(point.numbers)
    assert set(numbers) == {2, 3, 4}
    assert set(numbers[2]) == {"step/probe_noise_norm"}
    assert set(numbers[3]) == {"step/loss", "step/learning_rate"}
    assert numbers[3]["step/learning_rate"] == 0.2  # after two steps
    assert numbers[4]["epoch"] == 1 and numbers[4]["loss"] == 0.5
    assert not {"rule", "val_loss"} & set(numbers[4])
    both = numbers[2], numbers[4]
    mean = sum(n["step/probe_noise_norm"] for n in both) / 2
    assert history["probe_noise_norm"] == [pytest.approx(mean)]


def test_steps_between__not_said__an_epoch_has_a_hundred_at_most():
    for per_epoch in (1, 6.1, 100, 101, 5004):
        every = steps_between(None, per_epoch)
        assert per_epoch / every <= 100
        assert every == 1 or per_epoch / (every - 1) > 100
    assert steps_between(7, 5004) == 7
