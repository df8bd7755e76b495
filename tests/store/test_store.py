"""What a store takes and gives back, and what it refuses."""

import errno
import os
import shutil
import tracemalloc

import ml_dtypes
import numpy as np
import pytest

from tests.store import saving
from tf_gnc.store import DamagedError, Generation, Store, generation_name

DTYPES = [
    *(
        np.dtype(name)
        for name in (
            "bool int8 uint8 int16 uint16 int32 uint32 int64 uint64 float16 "
            "float32 float64 complex64 complex128 >f4 >i8 S3 U2 V5 M8[ns]"
        ).split()
    ),
    *(
        np.dtype(getattr(ml_dtypes, name))
        for name in "bfloat16 float8_e4m3fn float8_e5m2 int4".split()
    ),
]
SHAPES = [(), (1,), (0,), (3, 0, 2), (7,), (4, 5), (2, 3, 4)]


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "backup")


def names(store):
    return sorted(os.listdir(store.directory))


def write_one(store, arrays, step=1):
    draft = store.begin(step)
    draft.write("model", arrays)
    draft.finish(0)
    return draft.seal(1, {})[0]


def random_bytes_as(dtype, shape):
    num_bytes = int(np.prod(shape)) * dtype.itemsize
    data = np.random.default_rng(1).integers(0, 2, num_bytes, np.uint8)
    return data.view(dtype).reshape(shape)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_arrays__any_dtype_and_shape__come_back_to_the_bit(store, dtype):
    arrays = {str(shape): random_bytes_as(dtype, shape) for shape in SHAPES}
    write_one(store, arrays)
    read = Store(store.directory).latest()[0].arrays("model")
    assert list(read) == list(arrays)
    for name, array in arrays.items():
        assert read[name].dtype == array.dtype
        assert read[name].shape == array.shape
        assert read[name].tobytes() == array.tobytes()


@pytest.mark.parametrize(
    "arrays", [{}, {"nothing": np.zeros((0, 3))}, {"a": 1.5, "b": [1, 2]}]
)
def test_arrays__hardly_any__come_back(store, arrays):
    read = write_one(store, arrays).arrays("model")
    assert store.latest()[1] == []
    assert {k: v.tolist() for k, v in read.items()} == {
        k: np.asarray(v).tolist() for k, v in arrays.items()
    }


@pytest.mark.parametrize("turn", ["T", "reversed", "every second", "none"])
def test_arrays__larger_than_a_chunk_in_any_order__come_back(
    store, monkeypatch, turn
):
    monkeypatch.setattr("tf_gnc.store.array_file.CHUNK_BYTES", 1000)
    array = np.arange(3 * 1001, dtype="float64").reshape(1001, 3)
    array = {
        "T": array.T,
        "reversed": array[::-1],
        "every second": array[::2],
        "none": array,
    }[turn]
    generation = write_one(store, {"a": array, "b": array})
    for read in generation.arrays("model").values():
        np.testing.assert_array_equal(read, array)
    assert generation.problems() == []


@pytest.mark.parametrize("turn", ["as it lies", "transposed"])
def test_write__large_array__is_not_copied(store, turn):
    array = np.ones((2**10, 2**12), "float64")  # 32 MiB
    array = array.T if turn == "transposed" else array
    draft = store.begin(1)
    tracemalloc.start()
    try:
        draft.write("model", {"a": array})
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < array.nbytes / 2


def test_arrays__after_one_of_odd_size__start_where_they_can_be_used(store):
    arrays = {"odd": np.zeros(3, "u1"), "a": np.zeros(3), "b": np.zeros(3)}
    read = write_one(store, arrays).arrays("model")
    assert [array.ctypes.data % 64 for array in read.values()] == [0, 0, 0]


def test_arrays__read__cannot_change_the_backup(store):
    read = write_one(store, {"a": np.arange(3)}).arrays("model")["a"]
    with pytest.raises(ValueError, match="read-only"):
        read[0] = 7


def test_arrays__of_objects__are_refused_by_name(store):
    draft = store.begin(1)
    with pytest.raises(TypeError, match="dtype object for 'odd'"):
        draft.write("model", {"odd": np.array([None])})
    with pytest.raises(TypeError, match="for 'odd'"):
        draft.write("model", {"odd": np.zeros(2, [("x", "f4")])})
    with pytest.raises(TypeError, match="for 'odd'"):
        draft.write("model", {"odd": np.zeros(2, "V0")})
    with pytest.raises(ValueError, match="must have names, got 3"):
        draft.write("model", {3: np.zeros(2)})
    assert os.listdir(draft.path) == []


@pytest.mark.parametrize("dtype", ["float32", ml_dtypes.bfloat16])
def test_read_rows__every_range__is_that_slice(store, dtype):
    array = np.arange(28).astype(dtype).reshape(7, 4)
    arrays = {"before": np.ones(5, "u1"), "noise": array}
    generation = write_one(store, arrays)
    for start in range(8):
        for stop in range(start, 8):
            rows = generation.read_rows("model", "noise", start, stop)
            assert rows.dtype == array.dtype
            np.testing.assert_array_equal(rows, array[start:stop])


@pytest.mark.parametrize(
    ("file", "array", "rows", "message"),
    [
        ("model", "noise", (-1, 2), "0 <= start <= stop <= 7, got start=-1"),
        ("model", "noise", (3, 2), "start=3, stop=2 for shape"),
        ("model", "noise", (0, 8), "stop=8"),
        ("model", "scalar", (0, 1), r"stop=1 for shape \(\)"),
        ("model", "other", (0, 1), r"\['noise', 'scalar'\], got array='other'"),
        ("other", "noise", (0, 1), r"one of \['model'\], got file='other'"),
    ],
)
def test_read_rows__that_are_not_there__are_refused(
    store, file, array, rows, message
):
    arrays = {"noise": np.zeros((7, 2)), "scalar": np.float32(1)}
    with pytest.raises(ValueError, match=message):
        write_one(store, arrays).read_rows(file, array, *rows)


def test_reading__file_cut_after_verifying__is_noticed(store):
    generation = write_one(store, {"a": np.zeros((4, 4))})
    os.truncate(generation.path / "model.bin", 100)
    with pytest.raises(DamagedError, match=r"model\.bin: it is too short"):
        generation.arrays("model")
    with pytest.raises(DamagedError, match=r"model\.bin: it is too short"):
        generation.read_rows("model", "a", 3, 4)
    (generation.path / "model.bin").unlink()
    with pytest.raises(DamagedError, match=r"model\.bin: it is missing"):
        generation.arrays("model")


def test_latest__no_directory__is_none_and_makes_none(store):
    assert store.latest() == (None, [])
    assert not store.directory.exists()


def test_seal__two_processes__latest_is_what_they_wrote(store):
    sealed, problems = saving.save(store, 1234)
    assert problems == []
    assert names(store) == ["step-000000001234"]
    assert sorted(os.listdir(sealed.path)) == [
        "manifest.json",
        "noise-0.bin",
        "noise-1.bin",
    ]
    latest, problems = Store(store.directory).latest()
    assert problems == []
    assert (latest.name, latest.step) == ("step-000000001234", 1234)
    assert latest.path == sealed.path
    assert latest.files == ["noise-0", "noise-1"]
    saving.check(latest)


def test_seal__written_by_real_processes__latest_is_what_they_wrote(store):
    draft = store.begin(5)
    code = (
        "directory, process = sys.argv[3], int(sys.argv[4])\n"
        "draft = saving.store_.Store(directory).open_draft(5)\n"
        "draft.write(f'noise-{process}', saving.arrays_of(5, process))\n"
        "draft.finish(process)\n"
        "sys.exit('tensorflow' in sys.modules)\n"
    )
    processes = [
        saving.start(code, store.directory, process) for process in range(3)
    ]
    # The exit code also says that none has imported TensorFlow.
    assert [p.communicate(timeout=60) and p.returncode for p in processes] == [
        0,
        0,
        0,
    ]
    saving.check(draft.seal(3, saving.contents_of(5))[0], num_processes=3)


def test_seal__big_step__sorts_as_a_number(store):
    for step in (0, 10**12 - 1, 10**12):
        saving.save(store, step)
    assert names(store) == ["step-1000000000000", "step-999999999999"]
    assert store.latest()[0].step == 10**12


@pytest.mark.parametrize("keep", [1, 2, 3])
def test_seal__more_than_keep__only_the_newest_stay(tmp_path, keep):
    store = Store(tmp_path, keep=keep)
    for step in range(1, 6):
        saving.save(store, step)
        expected = range(max(1, step + 1 - keep), step + 1)
        assert names(store) == [generation_name(s) for s in expected]


def test_seal__same_step_again__the_older_one_is_kept_too(store):
    store.keep = 3
    for serial in range(1, 12):
        assert saving.save(store, 7)[0].serial == serial
    assert names(store) == [generation_name(7, s) for s in (10, 11, 9)]
    assert store.latest()[0].name == "step-000000000007.11"


def test_seal__name_taken_by_somebodys_file__is_not_overwritten(store):
    store.directory.mkdir()
    (store.directory / "step-000000000007").write_text("mine")
    assert saving.save(store, 7)[0].name == "step-000000000007.2"
    assert (store.directory / "step-000000000007").read_text() == "mine"
    latest, problems = store.latest()
    assert (latest.serial, problems) == (2, [])


def test_seal__drafts__older_ones_are_removed_and_later_ones_named(store):
    for step in (3, 4, 9):
        store.begin(step).write("model", {})
    saving.save(store, 4)
    assert names(store) == [".draft-000000000009", "step-000000000004"]
    assert store.latest()[1] == [
        f"{store.directory}/.draft-000000000009: whoever wrote it was stopped "
        "before it was complete."
    ]


def test_begin__stale_draft_of_that_step__starts_empty(store):
    store.begin(4).write("left-over", {"a": np.zeros(3)})
    generation, _ = saving.save(store, 4)
    assert generation.files == ["noise-0", "noise-1"]
    assert not (generation.path / "left-over.bin").exists()


def test_begin__behind_a_sound_backup__is_refused(store):
    saving.save(store, 9)
    with pytest.raises(
        ValueError, match=r"got step=8 with .*step-000000000009"
    ):
        store.begin(8)
    assert names(store) == ["step-000000000009"]


def test_foreign_files__whatever_they_are_called__are_left_alone(tmp_path):
    store = Store(tmp_path, keep=1)
    foreign = ["notes.txt", "step-1", "step-0000000000001", ".draft-1"]
    foreign += ["step-000000000001.1", "step-000000000001.bak", ".removed-x"]
    for name in foreign:
        (tmp_path / name).mkdir()
        (tmp_path / name / "mine").write_text("mine")
    saving.save(store, 1)
    (tmp_path / "step-000000000001" / "notes").write_text("mine")
    for step in (2, 3):
        assert saving.save(store, step)[1] == []
    # A backup into which somebody has put a file is left as it is.
    assert names(store) == sorted(
        [*foreign, "step-000000000001", "step-000000000003"]
    )
    for name in foreign + ["step-000000000001"]:
        assert any(
            path.read_text() == "mine"
            for path in (tmp_path / name).glob("[mn]*[es]")
        )
    assert store.latest()[1] == []


def test_tidying__a_backup_moved_away_and_linked_to__is_left_alone(tmp_path):
    store = Store(tmp_path / "backup", keep=1)
    path = saving.save(store, 1)[0].path
    os.rename(path, tmp_path / "elsewhere")
    path.symlink_to(tmp_path / "elsewhere")
    assert saving.save(store, 2)[1] == []
    saving.check(Generation(store.directory / path.name))


def test_tidying__a_backup_that_cannot_be_removed__is_said_and_tried_again(
    tmp_path, monkeypatch
):
    store = Store(tmp_path, keep=1)
    saving.save(store, 1)

    def refuse(path):
        raise OSError(errno.EBUSY, "Device or resource busy", str(path))

    with monkeypatch.context() as patch:
        patch.setattr(shutil, "rmtree", refuse)
        generation, problems = saving.save(store, 2)
    saving.check(generation)
    assert len(problems) == 1
    assert "step-000000000001: it is old and can't be removed" in problems[0]
    assert store.latest()[0].step == 2
    assert saving.save(store, 3)[1] == []
    assert names(store) == ["step-000000000003"]


@pytest.mark.parametrize("keep", [0, -1, 1.5, True, None])
def test_store__keep_below_one__is_refused(tmp_path, keep):
    with pytest.raises(ValueError, match=f"at least 1, got keep={keep}"):
        Store(tmp_path, keep=keep)


def test_store__remote_address__is_refused():
    with pytest.raises(
        ValueError, match="got directory='memory://bucket/backup'"
    ):
        Store("memory://bucket/backup")


def test_store__directory_is_a_file__is_refused(tmp_path):
    (tmp_path / "backup").write_text("mine")
    with pytest.raises(NotADirectoryError, match="backup', which is a file"):
        Store(tmp_path / "backup")
    with pytest.raises(OSError, match="can't be written: File exists"):
        Store(tmp_path / "backup" / "below").begin(1)


def test_begin__directory_not_writable__is_refused(store, monkeypatch):
    # Changing permissions would not stop a test that runs as root.
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    with pytest.raises(
        PermissionError, match="must be writable, got directory"
    ):
        store.begin(1)


def test_begin__directory_cannot_be_made__is_refused(store, monkeypatch):
    def refuse(path, mode=0o777, *, dir_fd=None):
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr(os, "mkdir", refuse)
    message = "can't be written: Permission denied.*backup"
    with pytest.raises(PermissionError, match=message):
        store.begin(1)


@pytest.mark.parametrize("step", [-1, 1.5, None])
def test_begin__not_a_step__is_refused(store, step):
    with pytest.raises(ValueError, match=f"got step={step}"):
        store.begin(step)


def test_open_draft__directory_not_shared__says_so_and_names_it(
    store, tmp_path
):
    store.begin(5)
    elsewhere = Store(tmp_path / "elsewhere")
    message = r"All processes need the same directory.*elsewhere/\.draft-0+5'"
    with pytest.raises(FileNotFoundError, match=message):
        elsewhere.open_draft(5)


@pytest.mark.parametrize("method", ["write", "finish", "seal"])
def test_draft__removed_by_another_process__says_so(store, method):
    draft = store.begin(5)
    shutil.rmtree(draft.path)
    args = {"write": ("m", {"a": 1}), "finish": (0,), "seal": (1, {})}[method]
    message = r"another process has given up and removed it.*\.draft-0+5'"
    with pytest.raises(FileNotFoundError, match=message):
        getattr(draft, method)(*args)


@pytest.mark.parametrize("name", ["", "a/b", "../a", ".a", "-a", "a b", None])
def test_write__name_that_is_no_file_name__is_refused(store, name):
    draft = store.begin(5)
    with pytest.raises(ValueError, match="`name` must"):
        draft.write(name, {})
    assert os.listdir(draft.path) == []


def test_write__name_used_by_another_process__is_refused(store):
    store.begin(5).write("model", {"a": 1})
    with pytest.raises(ValueError, match="used once .* name='model'"):
        store.open_draft(5).write("model", {"a": 2})


def test_write__after_finish__is_refused(store):
    draft = store.begin(5)
    draft.finish(0)
    with pytest.raises(ValueError, match="before `finish`, got name='model'"):
        draft.write("model", {})


def test_finish__same_index_twice__is_refused(store):
    store.begin(5).finish(0)
    with pytest.raises(ValueError, match="process_index=0, which has finished"):
        store.open_draft(5).finish(0)


def test_seal__a_process_has_not_finished__is_named_and_can_follow(store):
    saving.save(store, 4)
    draft = store.begin(5)
    draft.finish(1)
    message = (
        r"parts of 3 processes, got missing=\['part-0.json', 'part-2.json'\]"
    )
    with pytest.raises(RuntimeError, match=message):
        draft.seal(3, {})
    assert store.latest()[0].step == 4
    for index in (0, 2):
        store.open_draft(5).finish(index)
    assert draft.seal(3, {})[0].step == 5


def test_seal__more_parts_than_processes__is_refused(store):
    draft = store.begin(5)
    for index in range(2):
        store.open_draft(5).finish(index)
    with pytest.raises(RuntimeError, match=r"unexpected=\['part-1.json'\]"):
        draft.seal(1, {})


def test_seal__a_part_or_file_is_damaged__is_refused(store):
    draft = store.begin(5)
    draft.write("model", {"a": np.zeros(3)})
    draft.finish(0)
    os.truncate(draft.path / "model.bin", 23)
    with pytest.raises(DamagedError, match="model.bin: it has 23 bytes, not"):
        draft.seal(1, {})
    os.truncate(draft.path / "part-0.json", 100)
    with pytest.raises(DamagedError, match="part-0.json: its checksum"):
        draft.seal(1, {})
    assert store.latest()[0] is None


@pytest.mark.parametrize(
    "contents", [{"a": float("nan")}, {"a": np.float32(1)}, {"a": {1}}, [1], 3]
)
def test_seal__contents_that_json_has_no_word_for__are_refused(store, contents):
    draft = store.begin(5)
    draft.finish(0)
    with pytest.raises(ValueError, match="mapping that JSON can hold"):
        draft.seal(1, contents)
    assert draft.seal(1, {"a": [1, 0.1, None, "ü\n", {}]})[0].contents == {
        "a": [1, 0.1, None, "ü\n", {}]
    }


def test_generation__by_its_path__is_the_same_backup(store):
    sealed, _ = saving.save(store, 4)
    saving.check(Generation(store.directory / sealed.name))


@pytest.mark.parametrize("name", ["step-4", "../x", "step-000000000004.1"])
def test_verify__no_name_of_a_backup__is_refused(store, name):
    saving.save(store, 4)
    with pytest.raises(ValueError, match="`name` must be that of a backup"):
        store.verify(name)
