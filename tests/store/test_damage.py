"""A backup damaged in any way is never used, and never touched again."""

import hashlib
import json
import os
import shutil

import numpy as np
import pytest

from tests.store import saving
from tf_gnc.store import DamagedError, Generation, Store

FILES = ["manifest.json", "noise-0.bin", "noise-1.bin"]
NEWEST = "step-000000000002"


@pytest.fixture
def store(tmp_path):
    store = Store(tmp_path / "backup", keep=2)
    for step in (1, 2):
        saving.save(store, step)
    return store


def cut(path):
    os.truncate(path, path.stat().st_size - 1)


def lengthen(path):
    with open(path, "ab") as file:
        file.write(b"\n")


def empty(path):
    os.truncate(path, 0)


def replace_by_folder(path):
    path.unlink()
    path.mkdir()


def flip(path, place, bit=0):
    data = bytearray(path.read_bytes())
    data[place] ^= 1 << bit
    path.write_bytes(data)


def snapshot(folder):
    """Names, bytes and inodes of all that is in a folder."""
    return {
        str(path.relative_to(folder)): (
            path.stat().st_ino,
            path.is_file() and path.read_bytes(),
        )
        for path in folder.rglob("*")
    }


def check_falls_back(store, *files):
    """The backup before is used and the files at fault are named."""
    latest, problems = Store(store.directory).latest()
    assert latest.step == 1
    saving.check(latest)
    assert len(problems) == len(files)
    for problem, file in zip(problems, files, strict=True):
        assert problem.startswith(f"{store.directory / NEWEST / file}: it")
    return problems


@pytest.mark.parametrize("file", FILES)
@pytest.mark.parametrize(
    "damage", [cut, lengthen, empty, os.unlink, replace_by_folder]
)
def test_latest__a_file_is_damaged__the_backup_before_is_used(
    store, file, damage
):
    damage(store.directory / NEWEST / file)
    check_falls_back(store, file)


@pytest.mark.parametrize("file", FILES)
def test_latest__any_byte_flipped__the_backup_before_is_used(store, file):
    path = store.directory / NEWEST / file
    sound = path.read_bytes()
    for place in range(len(sound)):
        flip(path, place, bit=place % 8)
        check_falls_back(store, file)
        path.write_bytes(sound)
    assert Store(store.directory).latest()[0].step == 2


def test_latest__checksum_at_fault__the_sentence_is_plain(store):
    flip(store.directory / NEWEST / "noise-0.bin", 3)
    assert check_falls_back(store, "noise-0.bin") == [
        f"{store.directory}/{NEWEST}/noise-0.bin: its checksum is not the one "
        "in the manifest."
    ]


def test_latest__two_files_damaged__both_are_named(store):
    cut(store.directory / NEWEST / "noise-0.bin")
    flip(store.directory / NEWEST / "noise-1.bin", 3)
    check_falls_back(store, "noise-0.bin", "noise-1.bin")


def test_latest__empty_folder_of_that_name__is_named(store):
    shutil.rmtree(store.directory / NEWEST)
    (store.directory / NEWEST).mkdir()
    check_falls_back(store, "manifest.json")


def test_latest__all_damaged__is_none_and_names_all(store):
    for step in (1, 2):
        empty(store.directory / f"step-00000000000{step}" / "noise-1.bin")
    latest, problems = store.latest()
    assert latest is None
    assert len(problems) == 2
    assert saving.save(store, 1)[0].serial == 2


def test_latest__folder_renamed_to_another_step__is_not_used(store):
    os.rename(store.directory / NEWEST, store.directory / "step-000000000003")
    latest, problems = store.latest()
    assert latest.step == 1
    assert "step-000000000003/manifest.json: it is of step 2" in problems[0]


def test_latest__format_of_another_version__is_not_used(store):
    path = store.directory / NEWEST / "manifest.json"
    manifest = json.loads(path.read_bytes())
    del manifest["sha256"]
    manifest["format"] = 99
    rest = json.dumps(manifest)[1:]
    checksum = hashlib.sha256(rest.encode()).hexdigest()
    path.write_text(f'{{"sha256": "{checksum}",{rest}')
    (problem,) = check_falls_back(store, "manifest.json")
    assert "format 99, and this version of tf_gnc reads 1" in problem


def test_generation__manifest_damaged__is_refused(store):
    cut(store.directory / NEWEST / "manifest.json")
    with pytest.raises(DamagedError, match=r"manifest\.json: its checksum"):
        Generation(store.directory / NEWEST)


def test_verify__one_backup__looks_at_that_one(store):
    flip(store.directory / NEWEST / "noise-0.bin", 3)
    assert store.verify("step-000000000001") == []
    assert "noise-0.bin: its checksum" in store.verify(NEWEST)[0]
    assert (
        "manifest.json: it is missing" in store.verify("step-000000000009")[0]
    )


@pytest.mark.parametrize("restarts", [False, True])
@pytest.mark.parametrize("file", FILES)
def test_seal__after_damage_was_found__it_is_left_alone_for_good(
    store, file, restarts
):
    # A flipped bit is invisible but to the checksum, and so to a process that
    # has not itself looked.
    flip(store.directory / NEWEST / file, 50)
    damaged = snapshot(store.directory / NEWEST)
    store.latest()
    for step in (2, 3, 4, 5):
        if restarts and step > 2:
            store = Store(store.directory, keep=2)
            assert store.latest()[0].step == step - 1
        saving.save(store, step)
        # `keep` counts the sound ones.
        sound = [g for g in os.listdir(store.directory) if g != NEWEST]
        assert len(sound) == 2
    assert snapshot(store.directory / NEWEST) == damaged
    latest, problems = store.latest()
    assert (latest.step, problems) == (5, [])


def test_begin__behind_a_backup_known_to_be_damaged__is_allowed(store):
    saving.save(store, 9)
    flip(store.directory / "step-000000000009" / "noise-0.bin", 3)
    assert store.latest()[0].step == 2
    for step in (3, 4, 5):
        saving.save(store, step)
    latest, problems = Store(store.directory).latest()
    assert latest.step == 5
    assert "step-000000000009/noise-0.bin" in problems[0]


def test_latest__damaged_one_was_mended__it_counts_again(store):
    path = store.directory / NEWEST / "noise-0.bin"
    flip(path, 3)
    store.latest()
    flip(path, 3)
    assert store.latest()[0].step == 2
    for step in (3, 4):
        saving.save(store, step)
    assert NEWEST not in os.listdir(store.directory)


def test_begin__damaged_one_was_deleted__its_name_starts_afresh(store):
    flip(store.directory / NEWEST / "noise-0.bin", 3)
    store.latest()
    shutil.rmtree(store.directory / NEWEST)
    assert saving.save(store, 2)[0].name == NEWEST
    for step in (3, 4):
        saving.save(store, step)
    assert NEWEST not in os.listdir(store.directory)


def test_generation__of_a_sound_backup__has_no_problems(store):
    generation = Generation(store.directory / NEWEST)
    assert generation.problems() == []
    np.testing.assert_array_equal(
        generation.read_rows("noise-1", "weights", 1, 3),
        saving.arrays_of(2, 1)["weights"][1:3],
    )
