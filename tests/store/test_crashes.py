"""Whatever stops a save, wherever it stops it, no backup is lost."""

import builtins
import errno
import itertools
import os
import random
import shutil
import time

import numpy as np
import pytest

from tests.store import saving
from tf_gnc.store import Store

SYSTEM_CALLS = ["fsync", "rename", "mkdir", "unlink", "rmdir"]


class Killed(BaseException):
    """Ends a process at once: nothing of it runs any more."""


class Faults:
    """Counts what a save asks of the system, and fails at one place.

    Args:
        patch: pytest's monkeypatch.
        fail_at: The call that fails, counted from 1; 0 for none.
        error: What it raises. After `Killed`, every later call raises it too.
        write_half: A failing write leaves half of its bytes.
    """

    def __init__(self, patch, fail_at=0, error=None, write_half=True):
        self.count, self.fail_at, self.error = 0, fail_at, error
        self.write_half = write_half
        for name in SYSTEM_CALLS:
            patch.setattr(os, name, self._wrap(getattr(os, name)))
        self._open = builtins.open
        patch.setattr(builtins, "open", self._open_file)

    @property
    def struck(self):
        return 0 < self.fail_at <= self.count

    def tick(self):
        self.count += 1
        over = isinstance(self.error, Killed) and self.struck
        if over or self.count == self.fail_at:
            raise self.error

    def _wrap(self, function):
        def call(*args, **kwargs):
            self.tick()
            return function(*args, **kwargs)

        return call

    def _open_file(self, path, mode="r", *args, **kwargs):
        if "x" not in mode:
            return self._open(path, mode, *args, **kwargs)
        self.tick()
        return File(self, self._open(path, mode, *args, **kwargs))


class File:
    """A file whose writes count too."""

    def __init__(self, faults, file):
        self._faults, self._file = faults, file

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self._file.close()

    def __getattr__(self, name):
        return getattr(self._file, name)

    def write(self, data):
        try:
            self._faults.tick()
        except BaseException:
            if self._faults.write_half:
                self._file.write(data[: len(data) // 2])
            raise
        return self._file.write(data)


def scene(directory):
    """Two backups, one of which goes with the next, and an old draft."""
    store = Store(directory, keep=2)
    for step in (1, 2):
        saving.save(store, step)
    (directory / ".draft-000000000002").mkdir()
    (directory / ".draft-000000000002" / "noise-0.bin").write_text("half")
    (directory / "notes").write_text("mine")
    return store


def check_nothing_lost(directory):
    """Returns the newest step, having checked that all is in order."""
    latest, problems = Store(directory).latest()
    assert latest.step in (2, 3)
    saving.check(latest)
    for problem in problems:
        # A save that was cut short is a draft, never a damaged backup.
        assert "/.draft-" in problem
    assert (directory / "notes").read_text() == "mine"
    return latest.step


def check_goes_on(directory, step):
    """A new process saves that step again and tidies up."""
    store = Store(directory, keep=2)
    store.latest()
    saving.save(store, step)
    latest, problems = store.latest()
    assert (latest.step, problems) == (step, [])
    saving.check(latest)
    names = os.listdir(directory)
    assert "notes" in names
    assert len(names) == 3, names


def saves_that_fail(tmp_path, error):
    """Lets a save meet an error at its first call, at its second, ...

    Yields:
        The directory, and what came of it: what was raised, or what `seal`
        has returned in spite of the error.
    """
    for fail_at in itertools.count(1):
        directory = tmp_path / str(fail_at)
        directory.mkdir()
        store = scene(directory)
        with pytest.MonkeyPatch.context() as patch:
            faults = Faults(patch, fail_at, error)
            try:
                outcome = saving.save(store, 3)
            except (Killed, OSError) as caught:
                outcome = caught
        if not faults.struck:
            # 5 files at least were opened, written and synced.
            assert fail_at > 15
            return
        yield directory, outcome


def test_save__killed_at_any_call__nothing_is_lost(tmp_path):
    newest = []
    for directory, outcome in saves_that_fail(tmp_path, Killed()):
        assert isinstance(outcome, Killed)
        newest.append(check_nothing_lost(directory))
        check_goes_on(directory, 3)
    # There is one moment at which the new backup takes over.
    assert newest == sorted(newest)
    assert set(newest) == {2, 3}


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO])
def test_save__system_refuses_any_call__is_said_and_nothing_is_lost(
    tmp_path, code
):
    error = OSError(code, os.strerror(code))
    for directory, outcome in saves_that_fail(tmp_path, error):
        newest = check_nothing_lost(directory)
        if isinstance(outcome, OSError):
            assert outcome.errno == code
            assert str(directory) in str(outcome)
            assert "Older backups are as they were" in str(outcome)
            # What was written of it no longer takes up room.
            names = os.listdir(directory)
            assert ".draft-000000000003" not in names
        else:
            # Only the tidying may fail without being the save's failure.
            generation, (problem,) = outcome
            assert "can't be removed" in problem
            assert newest == generation.step == 3
        check_goes_on(directory, 3)


def test_write__disk_full__says_what_it_needs_and_what_there_is(
    tmp_path, monkeypatch
):
    store = Store(tmp_path)
    saving.save(store, 1)
    draft = store.begin(2)
    usage = shutil.disk_usage(tmp_path)._replace(free=5 * 2**20)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    message = (
        "No space left on device. model.bin needs 24.0 MiB, got 5.0 MiB free "
        r".*Make room.*draft-0+2/model.bin"
    )
    with monkeypatch.context() as patch:
        # The file is opened by call 1; calls 2, 4, ... write empty padding.
        Faults(patch, 3, OSError(errno.ENOSPC, "No space left on device"))
        with pytest.raises(OSError, match=message) as caught:
            draft.write("model", {"a": np.zeros(3 * 2**20)})
    assert caught.value.errno == errno.ENOSPC
    assert os.listdir(tmp_path) == ["step-000000000001"]
    assert store.latest()[0].step == 1


@pytest.mark.parametrize("code", [errno.EINVAL, errno.EBADF])
def test_save__file_system_that_syncs_no_folders__goes_on(
    tmp_path, monkeypatch, code
):
    fsync = os.fsync

    def only_files(descriptor):
        if os.path.isdir(f"/proc/self/fd/{descriptor}"):
            raise OSError(code, os.strerror(code))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", only_files)
    saving.check(saving.save(Store(tmp_path), 1)[0])


def test_seal__before_the_rename__everything_is_on_the_disk(
    tmp_path, monkeypatch
):
    store = Store(tmp_path / "new" / "backup", keep=1)
    events = []
    fsync, rename = os.fsync, os.rename

    def record_fsync(descriptor):
        stat = os.fstat(descriptor)
        events.append((stat.st_ino, stat.st_size, stat.st_mtime_ns))
        fsync(descriptor)

    def record_rename(source, target):
        at_rename = [
            (stat.st_ino, stat.st_size, stat.st_mtime_ns)
            for stat in map(os.stat, [source, *source.iterdir()])
        ]
        # Synced when it had the bytes and names that it has now.
        assert set(at_rename) <= set(events)
        rename(source, target)
        events.append("rename")

    monkeypatch.setattr(os, "fsync", record_fsync)
    monkeypatch.setattr(os, "rename", record_rename)
    saving.save(store, 1)
    inodes = [event[0] for event in events]
    assert events.count("rename") == 1
    assert inodes[-1] == store.directory.stat().st_ino
    assert store.directory.parent.stat().st_ino in inodes
    assert tmp_path.stat().st_ino in inodes
    saving.save(store, 2)
    # Each new name is safe before anything goes: that of the new backup, and
    # that of the old one, no longer a backup's.
    events = events[len(inodes) :]
    first, second = (i for i, e in enumerate(events) if e == "rename")
    (between,) = events[first + 1 : second]
    (after,) = events[second + 1 :]
    assert between[0] == after[0] == inodes[-1]


@pytest.mark.parametrize("seed", range(10))
def test_save__process_killed_at_random__latest_is_sound_and_not_older(
    tmp_path, seed
):
    generator = random.Random(seed)
    # From files of one small write to files of many chunks.
    size = generator.choice([5, 1_000, 500_000])
    reported = 0
    code = "saving.save_forever(sys.argv[3], int(sys.argv[4]))"
    for _ in range(2):
        process = saving.start(code, tmp_path, size)
        try:
            for _ in range(generator.randrange(1, 6)):
                reported = int(process.stdout.readline())
            time.sleep(generator.uniform(0, 0.05))
        finally:
            process.kill()
            rest, _ = process.communicate(timeout=60)
        reported = max([reported, *map(int, rest.split())])
        latest, problems = Store(tmp_path).latest()
        assert latest.step in (reported, reported + 1)
        saving.check(latest, size=size)
        assert all("/.draft-" in problem for problem in problems)
    check_store = Store(tmp_path)
    saving.save(check_store, latest.step + 1, size=size)
    assert check_store.latest()[1] == []
    assert len(os.listdir(tmp_path)) == 2
