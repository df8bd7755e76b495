"""Backups in a bucket: whatever happens to it, none is restored wrongly."""

import fsspec
import pytest

from tests.store import saving
from tf_gnc._files import as_path, bucket
from tf_gnc.store import DamagedError, Generation, open_store

NEWEST = "step-000000000002"
FILES = ["manifest.json", "noise-0.bin", "noise-1.bin"]


class Killed(BaseException):
    """Ends a process at once: nothing of it runs any more."""


class Faults:
    """Counts a bucket's calls; at one it kills, and at each after it.

    A call that is killed has written nothing, or all, as `done` says: an
    object is there whole or not at all. `half` has a large one cut.
    """

    def __init__(self, patch, fail_at=0, done=False, half=False):
        self.count, self.fail_at, self.done = 0, fail_at, done
        real = bucket.patiently

        def call(address, function):
            self.count += 1
            if 0 < self.fail_at < self.count:
                raise Killed
            if self.count == self.fail_at:
                if self.done:
                    real(address, function)
                    if half and address.is_file():
                        cut(address)
                raise Killed
            return real(address, function)

        patch.setattr(bucket, "patiently", call)

    @property
    def struck(self):
        return 0 < self.fail_at <= self.count


@pytest.fixture
def directory():
    yield as_path("memory://bucket/run/backup")
    fsspec.filesystem("memory").store.clear()


@pytest.fixture
def store(directory):
    store = open_store(directory, keep=2)
    for step in (1, 2):
        saving.save(store, step)
    return store


def cut(path):
    path.write_bytes(path.read_bytes()[:-1])


def lengthen(path):
    path.write_bytes(path.read_bytes() + b"\n")


def empty(path):
    path.write_bytes(b"")


def remove(path):
    path.unlink()


def names(directory):
    return sorted(path.name for path in directory.iterdir())


def check_falls_back(directory, *files):
    latest, problems = open_store(directory).latest()
    assert latest.step == 1
    saving.check(latest)
    assert len(problems) == len(files)
    for problem, file in zip(problems, files, strict=True):
        assert problem.startswith(f"{directory / NEWEST / file}: it")


def test_save__some_times__is_read_back_and_old_ones_go(directory):
    store = open_store(directory, keep=2)
    for step in (1, 2, 2, 3):
        saving.save(store, step)
    assert names(directory) == ["step-000000000002.2", "step-000000000003"]
    assert names(directory / "step-000000000003") == FILES
    latest, problems = open_store(directory).latest()
    assert (latest.step, problems) == (3, [])
    saving.check(latest)
    rows = latest.read_rows("noise-1", "weights", 1, 4)
    assert (rows == saving.arrays_of(3, 1)["weights"][1:4]).all()


@pytest.mark.parametrize("file", FILES)
@pytest.mark.parametrize("damage", [cut, lengthen, empty, remove])
def test_latest__an_object_is_damaged__the_backup_before_is_used(
    store, damage, file
):
    damage(store.directory / NEWEST / file)
    check_falls_back(store.directory, file)


@pytest.mark.parametrize("file", FILES)
def test_latest__any_byte_flipped__the_backup_before_is_used(store, file):
    path = store.directory / NEWEST / file
    sound = path.read_bytes()
    for place in range(0, len(sound), 7):
        flipped = bytearray(sound)
        flipped[place] ^= 1 << place % 8
        path.write_bytes(bytes(flipped))
        check_falls_back(store.directory, file)


def test_latest__cut_after_it_was_checked__is_no_wrong_array(store):
    latest, _ = store.latest()
    cut(latest.path / "noise-0.bin")
    with pytest.raises(DamagedError, match="too short"):
        dict(Generation(latest.path).arrays("noise-0"))


@pytest.mark.parametrize("done", ["not", "half", "whole"])
def test_save__killed_at_any_call__nothing_is_lost(
    directory, monkeypatch, done
):
    """And the next save of the same step makes up for it."""
    fail_at, struck = 0, True
    while struck:
        fail_at += 1
        fsspec.filesystem("memory").store.clear()
        for step in (1, 2, 3):
            saving.save(open_store(directory, keep=2), step)
        with monkeypatch.context() as patch:
            faults = Faults(patch, fail_at, done != "not", done == "half")
            try:
                saving.save(open_store(directory, keep=2), 4)
            except Killed:
                pass
            struck = faults.struck
        latest, problems = open_store(directory).latest()
        assert latest.step in (3, 4)
        saving.check(latest)
        # What the kill has left is no damage.
        if done != "half":
            assert all(".draft-" in problem for problem in problems)
        if latest.step == 3:
            saving.save(open_store(directory, keep=2), 4)
        saving.save(open_store(directory, keep=2), 5)
        latest, problems = open_store(directory).latest()
        assert (latest.step, problems) == (5, [])
        if done != "half":
            assert len(names(directory)) == 2
    assert fail_at > 30


def test_latest__nothing_but_a_begun_one__is_none_and_no_damage(directory):
    store = open_store(directory)
    draft = store.begin(7)
    draft.write("noise-0", saving.arrays_of(7, 0))
    latest, (problem,) = open_store(directory).latest()
    assert latest is None
    assert ".draft-" in problem


def test_begin__behind_the_newest__is_refused(store):
    with pytest.raises(ValueError, match="step=1 with memory://bucket"):
        store.begin(1)


def test_tidy__somebody_elses_object_in_a_folder__is_left_alone(directory):
    store = open_store(directory, keep=1)
    saving.save(store, 1)
    (directory / "step-000000000001" / "notes.txt").write_bytes(b"mine")
    saving.save(store, 2)
    assert names(directory) == ["step-000000000001", "step-000000000002"]
