import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tf_gnc.launch.pool import Pool


class Told:
    """A listener that writes down what it is told."""

    def __init__(self):
        self.names, self.most, self.problems, self.reports = [], 0, {}, []
        self.now = set()
        self.stops = 0
        self.on_report = lambda: None

    def started(self, name):
        self.names.append(name)
        self.now.add(name)
        self.most = max(self.most, len(self.now))

    def moved(self, name, report):
        self.reports.append((name, report))
        self.on_report()

    def ended(self, name, problem):
        self.now.remove(name)
        self.problems[name] = problem

    def stopping(self):
        self.stops += 1


def _pool(script, tmp_path, jobs=2, cores=None):
    told = Told()

    def command(name, num_cores):
        return [sys.executable, "-c", script, name, str(num_cores)]

    cores = cores or sorted(os.sched_getaffinity(0))
    return Pool(command, jobs, cores, tmp_path / "logs", told), told


REPORT = """
import json, os, sys
pipe = int(os.environ["TF_GNC_PROGRESS_FD"])
os.write(pipe, (json.dumps({"text": "here"}) + "\\n").encode())
"""


def test_pool__more_names_than_jobs__all_run_a_few_at_a_time(tmp_path):
    pool, told = _pool(REPORT, tmp_path)
    pool.run(["a", "b", "c", "d", "e"])
    assert told.names == ["a", "b", "c", "d", "e"]
    assert told.most == 2
    assert told.problems == dict.fromkeys("abcde")
    assert ("c", {"text": "here"}) in told.reports
    assert pool.stopped_by is None
    assert not (tmp_path / "logs").exists()  # They have printed nothing.


def test_pool__one_fails__others_go_on_and_its_words_are_kept(
    tmp_path,
):
    script = (
        "import sys\n"
        "print('working')\n"
        "if sys.argv[1] == 'b': sys.exit('first line\\nthe disk is full')\n"
    )
    pool, told = _pool(script, tmp_path, jobs=1)
    pool.run(["a", "b", "c"])
    assert told.problems == {"a": None, "b": "the disk is full", "c": None}
    log = (tmp_path / "logs" / "b.log").read_text().splitlines()
    assert sorted(log) == ["first line", "the disk is full", "working"]


def test_pool__one_is_killed__says_what_does_that(tmp_path):
    script = "import os; os.kill(os.getpid(), 9)"
    pool, told = _pool(script, tmp_path)
    pool.run(["a"])
    assert re.search("signal 9, .* memory runs out.*--jobs", told.problems["a"])


@pytest.mark.skipif(
    len(os.sched_getaffinity(0)) < 2, reason="needs two cores to split"
)
def test_pool__two_cores_two_jobs__each_has_one_of_its_own(tmp_path):
    script = (
        "import os, sys\n"
        "print(*sorted(os.sched_getaffinity(0)), 'of', sys.argv[2])\n"
    )
    cores = sorted(os.sched_getaffinity(0))[:2]
    pool, _ = _pool(script, tmp_path, jobs=2, cores=cores)
    pool.run(["a", "b"])
    logs = {(tmp_path / "logs" / f"{n}.log").read_text() for n in "ab"}
    assert logs == {f"{cores[0]} of 1\n", f"{cores[1]} of 1\n"}


SLEEP = REPORT + "import time\ntime.sleep(1000)\n"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_pool__told_to_stop__asks_them_to_save_and_starts_no_more(
    number, tmp_path
):
    script = (
        "import signal, sys\n"
        "def save(*_):\n"
        "    print('saved')\n"
        "    sys.exit(75)\n"
        "signal.signal(signal.SIGTERM, save)\n" + SLEEP
    )
    pool, told = _pool(script, tmp_path, jobs=1)
    told.on_report = lambda: os.kill(os.getpid(), number)
    before = signal.getsignal(number)
    pool.run(["a", "b"])
    assert pool.stopped_by == number
    assert told.stops == 1
    assert told.problems == {"a": "stopped"}
    assert (tmp_path / "logs" / "a.log").read_text() == "saved\n"
    assert signal.getsignal(number) == before


def test_pool__stopped_twice__kills(tmp_path):
    script = (
        "import signal\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\n" + SLEEP
    )
    pool, told = _pool(script, tmp_path)
    told.stopping = lambda: os.kill(os.getpid(), signal.SIGINT)
    told.on_report = lambda: os.kill(os.getpid(), signal.SIGINT)
    pool.run(["a"])
    assert told.problems == {"a": "stopped"}


def test_pool__a_second_sigterm__leaves_time_to_save(tmp_path):
    script = (
        "import signal, sys, time\n"
        "def save(*_):\n"
        "    signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "    time.sleep(0.5)\n"
        "    print('saved')\n"
        "    sys.exit(75)\n"
        "signal.signal(signal.SIGTERM, save)\n" + SLEEP
    )
    pool, told = _pool(script, tmp_path, jobs=1)
    told.stopping = lambda: os.kill(os.getpid(), signal.SIGTERM)
    told.on_report = lambda: os.kill(os.getpid(), signal.SIGHUP)
    pool.run(["a"])
    assert (tmp_path / "logs" / "a.log").read_text() == "saved\n"
    assert pool.stopped_by == signal.SIGHUP


def test_pool__an_error_of_ours__leaves_no_process(tmp_path):
    pool, told = _pool(SLEEP.replace('"here"', "os.getpid()"), tmp_path, jobs=1)
    told.on_report = lambda: 1 / 0
    with pytest.raises(ZeroDivisionError):
        pool.run(["a"])
    ((_, report),) = told.reports
    with pytest.raises(ProcessLookupError):
        os.kill(report["text"], 0)


def test_pool__cannot_be_started__is_an_error(tmp_path):
    pool = Pool(
        lambda *_: [str(tmp_path / "no-such")], 1, [0], tmp_path, Told()
    )
    with pytest.raises(FileNotFoundError):
        pool.run(["a"])


PARENT = """
import pathlib, sys
from unittest import mock
from tf_gnc.launch.pool import Pool
child, folder = sys.argv[1:]
Pool(
    lambda *_: [sys.executable, "-c", child, folder],
    1, [0], pathlib.Path(folder), mock.MagicMock()
).run(["a"])
"""


def test_pool__this_process_is_killed__the_others_are_too(tmp_path):
    child = (
        "import os, pathlib, sys, time\n"
        "draft = pathlib.Path(sys.argv[1], 'draft')\n"
        "draft.write_text(str(os.getpid()))\n"
        "draft.rename(draft.with_name('pid'))\n"
        "time.sleep(1000)\n"
    )
    deadline = time.monotonic() + 120
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT, child, str(tmp_path)]
    )
    try:
        while not (tmp_path / "pid").exists():
            assert time.monotonic() < deadline and parent.poll() is None
            time.sleep(0.02)
    finally:
        parent.kill()
        parent.wait()
    pid = int((tmp_path / "pid").read_text())
    try:
        while _runs(pid):
            assert time.monotonic() < deadline
            time.sleep(0.02)
    finally:
        if _runs(pid):
            os.kill(pid, signal.SIGKILL)


def _runs(pid):
    """Tells whether there is a process that is more than a dead one's name."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2]
    except FileNotFoundError:
        return False
    return state.split()[0] != "Z"


def test_import__of_this_folder__leaves_tensorflow_and_keras_alone():
    modules = "addresses child group launcher output pool processes".split()
    program = "".join(f"import tf_gnc.launch.{name}\n" for name in modules)
    program += (
        "import sys; print(sorted({'tensorflow', 'keras'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True
    )
    assert done.stdout == "[]\n", done.stderr
