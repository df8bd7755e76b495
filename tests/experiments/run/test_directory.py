import errno
import json
import os
import resource
import shutil
import signal

import pytest

from tf_gnc import _files
from tf_gnc.experiments.run.directory import RunFiles, new_run_dir


def test_run_files__empty_directory__is_taken(tmp_path):
    files = RunFiles(tmp_path)
    files.claim()
    assert files.names() == ["metrics.jsonl"]


def test_run_files__looking__makes_nothing(tmp_path):
    RunFiles(tmp_path / "a" / "b")
    assert list(tmp_path.iterdir()) == []


def test_run_files__directory_with_a_file__is_refused_and_untouched(tmp_path):
    (tmp_path / "notes").write_text("mine")
    with pytest.raises(FileExistsError, match="which holds files"):
        RunFiles(tmp_path)
    assert (tmp_path / "notes").read_text() == "mine"
    assert len(list(tmp_path.iterdir())) == 1


def test_run_files__a_file_of_that_name__is_refused(tmp_path):
    (tmp_path / "run").write_text("mine")
    with pytest.raises(NotADirectoryError, match="which is a file"):
        RunFiles(tmp_path / "run")


def test_run_files__remote_address__is_refused():
    with pytest.raises(ValueError, match="run_dir='ftp://host/run'"):
        RunFiles("ftp://host/run")


def test_claim__two_runs_at_once__one_is_refused(tmp_path):
    first, second = RunFiles(tmp_path), RunFiles(tmp_path)
    first.claim()
    with pytest.raises(FileExistsError, match="which holds files"):
        second.claim()


def test_run_files__full_disk__error_has_the_numbers(tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)._replace(free=2**20)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    with pytest.raises(OSError, match="needs 32 MiB, got 1.0 MiB") as caught:
        RunFiles(tmp_path / "run")
    assert caught.value.errno == errno.ENOSPC


def test_write__writer_fails__leaves_neither_half_nor_whole(tmp_path):
    def write_half(path):
        path.write_text("half")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with pytest.raises(OSError, match="No space left"):
        _files.write(tmp_path / "model.keras", write_half)
    assert list(tmp_path.iterdir()) == []


def test_write_json__nan__is_refused_rather_than_written(tmp_path):
    with pytest.raises(ValueError, match="not JSON compliant"):
        _files.write_json(tmp_path / "summary.json", {"loss": float("nan")})
    assert list(tmp_path.iterdir()) == []


def test_append_row__two_rows__each_is_a_line_at_once(tmp_path):
    path = tmp_path / "metrics.jsonl"
    for epoch in (1, 2):
        _files.append_row(path, {"epoch": epoch})
        lines = path.read_text().splitlines()
        assert json.loads(lines[-1]) == {"epoch": epoch}
    assert len(lines) == 2


def test_append_row__disk_fills_up_halfway__takes_the_half_line_back(
    tmp_path,
):
    path = tmp_path / "metrics.jsonl"
    _files.append_row(path, {"epoch": 1})
    before = path.read_bytes()
    # A limit on the size of files stands in for the end of the disk: the
    # system writes what fits, then fails.
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) + 5, limits[1]))
    try:
        with pytest.raises(OSError, match="File too large"):
            _files.append_row(path, {"epoch": 2})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert path.read_bytes() == before


def test_new_run_dir__name_taken__counts_on(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    # The clock may tick between two calls, so up to three names are tried.
    names = []
    for _ in range(3):
        names.append(new_run_dir("digits", "gnc"))
        names[-1].mkdir(parents=True)
    assert len(set(names)) == 3
    assert all(path.name.startswith("digits-gnc-2") for path in names)
    assert any(path.name.endswith(("-2", "-3")) for path in names)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_finite_or_none__not_finite__is_none(value):
    assert _files.finite_or_none(value) is None


def _begun(path):
    files = RunFiles(path)
    files.claim()
    _files.write_json(files.path("config.json"), {})
    return files


def test_resume__begun_run__may_go_on_and_keeps_its_rows(tmp_path):
    _files.append_row(_begun(tmp_path).path("metrics.jsonl"), {"epoch": 1})
    files = RunFiles(tmp_path, resume=True)
    files.claim()
    assert files.path("metrics.jsonl").read_text() == '{"epoch": 1}\n'


def test_resume__somebody_elses_files__are_refused_and_untouched(tmp_path):
    (tmp_path / "notes").write_text("mine")
    with pytest.raises(FileExistsError, match="which holds files"):
        RunFiles(tmp_path, resume=True)
    assert [path.name for path in tmp_path.iterdir()] == ["notes"]


@pytest.mark.parametrize("name", ["config.json", "model.keras"])
def test_resume__killed_while_it_wrote_a_file__goes_on_without_it(
    name, tmp_path
):
    RunFiles(tmp_path).claim()
    (tmp_path / f".unfinished-123-{name}").write_text("{")
    files = RunFiles(tmp_path, resume=True)
    files.claim()
    assert files.names() == ["metrics.jsonl"]


def test_resume__killed_when_it_had_taken_a_bucket__goes_on():
    address = "memory://killed-at-once/run"
    _files.Owner(_files.as_path(address)).take()
    with pytest.raises(FileExistsError):
        RunFiles(address)
    files = RunFiles(address, resume=True)
    files.claim()
    assert files.names() == ["metrics.jsonl", "owner.json"]
    files.owner.check()  # It is this one's now.
    _files.remove_tree(files.directory)


def test_keep_rows__rows_after_the_backup__are_cut_off(tmp_path):
    files = _begun(tmp_path)
    rows = [{"epoch": n, "loss": 0.1 * n} for n in (1, 2, 3)]
    for row in rows:
        _files.append_row(files.path("metrics.jsonl"), row)
    files.keep_rows(rows[:2])
    lines = files.path("metrics.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == rows[:2]


def test_keep_rows__lost_and_half_rows__are_written_again(tmp_path):
    files = _begun(tmp_path)
    files.path("metrics.jsonl").write_text('{"epoch": 1}\n{"ep')
    files.keep_rows([{"epoch": 1}, {"epoch": 2}])
    text = files.path("metrics.jsonl").read_text()
    assert text == '{"epoch": 1}\n{"epoch": 2}\n'


def test_read_json__not_there__is_none(tmp_path):
    assert _files.read_json(tmp_path / "config.json") is None
