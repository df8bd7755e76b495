"""Paths that lead to a disk or into a bucket, and buckets that go away."""

import pathlib

import fsspec
import pytest

from tf_gnc import _files
from tf_gnc._files import as_path, bucket, retry


@pytest.fixture
def folder():
    yield as_path("memory://bucket/folder")
    fsspec.filesystem("memory").store.clear()


class Outage:
    """A bucket that can't be reached for a number of calls."""

    def __init__(self, monkeypatch, calls, error=None):
        self.left, self.waited = calls, []
        self.error = error or OSError("Connect call failed")
        monkeypatch.setattr(retry.time, "sleep", self.waited.append)

    def __call__(self):
        self.left -= 1
        if self.left >= 0:
            raise self.error
        return "there"


def test_as_path__local_names__are_plain_paths():
    assert as_path("~/a") == pathlib.Path("~/a").expanduser()
    assert isinstance(as_path(pathlib.Path("a")), pathlib.Path)


def test_bucket_path__parts__are_those_of_the_address():
    path = as_path("memory://bucket/a//b.txt/")
    assert (str(path), path.name) == ("memory://bucket/a/b.txt", "b.txt")
    assert path.parent / "c" == path.with_name("c")
    assert sorted([path, path.parent]) == [path.parent, path]


@pytest.mark.parametrize("address", ["ftp://host/a", "gs://", "file:///tmp/a"])
def test_as_path__another_kind_of_address__is_refused(address):
    with pytest.raises(ValueError, match=f"gs://bucket/name.*got '{address}'"):
        as_path(address)


@pytest.mark.parametrize(
    ("scheme", "extra"), [("gs", "tf-gnc[gcs]"), ("s3", "tf-gnc[s3]")]
)
def test_as_path__without_the_extra__a_line_names_it(
    scheme, extra, monkeypatch
):
    module, _ = bucket._NEEDS[scheme]
    monkeypatch.setitem(__import__("sys").modules, module, None)
    bucket._file_system.cache_clear()
    with pytest.raises(_files.MissingExtraError) as caught:
        as_path(f"{scheme}://bucket/run")
    assert extra in str(caught.value)
    assert module in str(caught.value)


def test_bucket__what_is_written__is_listed_and_read(folder):
    _files.write(folder / "a" / "one.txt", "1")
    _files.write(folder / "two.bin", lambda path: path.write_bytes(b"22"))
    assert sorted(p.name for p in folder.iterdir()) == ["a", "two.bin"]
    assert list(folder.glob("*/*.txt")) == [folder / "a" / "one.txt"]
    assert (folder / "a").is_dir() and not (folder / "a").is_file()
    assert (folder / "two.bin").read_bytes() == b"22"
    assert not (folder / "three").exists()
    assert list((folder / "three").iterdir()) == []
    _files.remove_tree(folder)
    assert not folder.exists()


def test_rows__added_one_by_one__are_all_there(folder):
    path = folder / "metrics.jsonl"
    for epoch in (1, 2):
        _files.append_row(path, {"epoch": epoch})
    assert _files.read_rows(path, "epoch") == [{"epoch": 1}, {"epoch": 2}]
    assert _files.read_json(folder / "none.json") is None


@pytest.mark.parametrize("made_so_far", [0, 3])
def test_write__the_writer_fails__leaves_what_there_was(folder, made_so_far):
    path = folder / "model.bin"
    path.write_bytes(b"before")

    def chunks():
        for _ in range(made_so_far):
            yield b"new"
        raise RuntimeError("no more")

    with pytest.raises(RuntimeError, match="no more"):
        _files.write(path, lambda local: local.write_bytes(b"".join(chunks())))
    assert path.read_bytes() == b"before"


def test_patience__an_outage__growing_pauses_and_one_line(monkeypatch, capsys):
    outage = Outage(monkeypatch, calls=7)
    assert retry.patiently("gs://b/x", outage) == "there"
    assert outage.waited == [1, 2, 4, 8, 16, 30, 30]
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("gs://b/x can't be reached (Connect call failed)")


def test_patience__a_second_outage__is_said_again(monkeypatch, capsys):
    for _ in range(2):
        retry.patiently("gs://b/x", Outage(monkeypatch, calls=1))
    assert len(capsys.readouterr().err.splitlines()) == 2


def test_patience__at_its_end__is_an_error(monkeypatch):
    outage = Outage(monkeypatch, calls=99)
    with _files.patience(0), pytest.raises(_files.UnreachableError):
        retry.patiently("gs://b/x", outage)
    assert (outage.left, outage.waited) == (98, [])


@pytest.mark.parametrize(
    "error", [FileNotFoundError("x"), PermissionError("x"), TypeError("x")]
)
def test_patience__a_final_answer__is_given_at_once(monkeypatch, error):
    outage = Outage(monkeypatch, 1, error)
    with pytest.raises(type(error)):
        retry.patiently("gs://b/x", outage)
    assert outage.waited == []


@pytest.mark.parametrize(("code", "is_final"), [(401, True), (429, False)])
def test_patience__an_answer_by_http__is_told_by_its_code(
    monkeypatch, code, is_final
):
    error = RuntimeError("no")
    error.code = code
    outage = Outage(monkeypatch, 1, error)
    if is_final:
        with pytest.raises(PermissionError, match="credentials"):
            retry.patiently("gs://b/x", outage)
    else:
        assert retry.patiently("gs://b/x", outage) == "there"


def test_exists__bucket_away__is_not_taken_for_empty(folder, monkeypatch):
    def info(*args, **kwargs):
        raise OSError("Connect call failed")

    monkeypatch.setattr(folder._system, "info", info)
    with _files.patience(0), pytest.raises(_files.UnreachableError):
        folder.exists()


def test_owner__another_one_comes__the_first_stops(folder):
    first, second = _files.Owner(folder), _files.Owner(folder)
    first.take()
    first.check()
    second.take()
    with pytest.raises(_files.TakenError, match="process .* since then"):
        first.check()
    first.give_back()  # It isn't its own any more.
    second.check()
    second.give_back()
    assert not folder.exists()
