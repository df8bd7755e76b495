"""Tiny scripts stand in for training, and files for what they tell each other.

Who has ended is read off a FIFO that the processes hold open: its end comes
when the last of them is gone.
"""

import json
import os
import pathlib
import pty
import signal
import subprocess
import sys
import textwrap

import pytest

from tf_gnc.launch import addresses, group, launcher
from tf_gnc.launch.launcher import Launcher, child_command
from tf_gnc.launch.output import LineCutter

LAUNCH = pathlib.Path(__file__).parents[2] / "scripts" / "launch.py"

CORES = os.sched_getaffinity(0)  # before any test could change them

PROLOGUE = """
import json, os, signal, subprocess, sys, time
me, restart = os.environ["TF_GNC_PROCESS"], os.environ["TF_GNC_RESTART"]
def hold(path):
    # With a child that holds it, too.
    subprocess.Popen(["sleep", "600"], stdout=open(path, "w"))
    file = open(path, "w", buffering=1)
    print("ready", file=file)
    return file
"""


@pytest.fixture(autouse=True)
def _no_last_words(monkeypatch):
    monkeypatch.setattr(group, "_SECONDS_FOR_LAST_WORDS", 0.0)


@pytest.fixture
def script(tmp_path):
    """Writes a script and returns its command line."""

    def write(text):
        path = tmp_path / "script.py"
        path.write_text(PROLOGUE + textwrap.dedent(text))
        return [sys.executable, "-S", str(path)]

    return write


@pytest.fixture
def launch(script, capfd):
    """Runs a script to its end: returns the code and the lines of both."""

    def run(text, **options):
        code = Launcher(script(text), **options).run()
        captured = capfd.readouterr()
        return code, captured.out.splitlines(), captured.err.splitlines()

    return run


@pytest.fixture
def fifo(tmp_path):
    path = tmp_path / "fifo"
    os.mkfifo(path)
    return path


def _by_process(lines):
    return dict(sorted(line.split(" ", 1) for line in lines))


def test_environment__three_processes__one_cluster_and_numbers(launch):
    code, out, err = launch(
        'print(os.environ["TF_CONFIG"], me, restart, sep=";", flush=True)',
        processes=3,
    )
    assert (code, err) == (0, [])
    configs = []
    for index, line in enumerate(_by_process(out).values()):
        config, number, restart = line.split(";")
        assert (number, restart) == (str(index), "0")
        configs.append(json.loads(config))
        assert configs[-1]["task"] == {"type": "worker", "index": index}
    assert configs[0]["cluster"] == configs[1]["cluster"]
    assert configs[0]["cluster"] == configs[2]["cluster"]
    assert len(set(configs[0]["cluster"]["worker"])) == 3


def test_environment__one_process__no_cluster_and_all_cores(launch):
    code, out, _ = launch(
        'print("TF_CONFIG" in os.environ, *sorted(os.sched_getaffinity(0)))'
    )
    cores = " ".join(map(str, sorted(os.sched_getaffinity(0))))
    assert (code, out) == (0, [f"[0] False {cores}"])


def test_environment__second_machine__counts_on_from_the_first(launch):
    code, out, _ = launch(
        'print(me, os.environ["TF_CONFIG"], sep=";")',
        processes=2, machines=["a:10", "b:20"], machine_rank=1,
    )  # fmt: skip
    assert code == 0
    lines = _by_process(out)
    assert list(lines) == ["[2]", "[3]"]
    number, config = lines["[3]"].split(";")
    assert number == "3"
    assert json.loads(config) == json.loads(
        addresses.tf_config(["a:10", "a:11", "b:20", "b:21"], 3)
    )


def test_cores__two_processes__split_them_and_the_launcher_keeps_all(launch):
    _, out, _ = launch("print(*os.sched_getaffinity(0))", processes=2)
    shares = [set(map(int, s.split())) for s in _by_process(out).values()]
    assert shares == addresses.split_cores(CORES, 2)
    assert os.sched_getaffinity(0) == CORES


def test_output__both_streams__stay_apart_with_prefixes(launch):
    _, out, err = launch('print("o"); print("e", file=sys.stderr)', processes=2)
    assert sorted(out) == ["[0] o", "[1] o"]
    assert sorted(err) == ["[0] e", "[1] e"]


def test_output__junk_and_no_line_end__readable_and_whole(launch):
    _, out, _ = launch(
        r'sys.stdout.buffer.write(b"\xff\x00\n half\r\n 1%\r 2%\r 3%\nlast")'
    )
    assert out == ["[0] \N{REPLACEMENT CHARACTER}\0", "[0]  half", "[0]  3%",
                   "[0] last"]  # fmt: skip


def test_output__megabytes_from_all__no_line_lost_or_mixed(launch):
    code, out, err = launch(
        """
        for i in range(20_000):
            print(me * 100, i)
            print(me * 100, i, file=sys.stderr)
        """,
        processes=2,
    )
    assert code == 0
    for lines in (out, err):
        for me in "01":
            mine = [line for line in lines if line.startswith(f"[{me}]")]
            assert mine == [f"[{me}] {me * 100} {i}" for i in range(20_000)]


def test_output__left_in_the_pipe_by_the_dead__is_shown(launch):
    # A pipe larger than what is read at a time, filled just before the end.
    code, out, _ = launch(
        """
        import fcntl
        fcntl.fcntl(1, fcntl.F_SETPIPE_SZ, 2**20)
        os.write(1, 2**16 * b"0123456789abcde\\n")
        os.kill(os.getpid(), signal.SIGKILL)
        """,
        max_restarts=0,
    )
    assert code == 137
    assert out == 2**16 * ["[0] 0123456789abcde"]


def test_line_cutter__line_without_end__comes_in_pieces():
    cutter = LineCutter()
    pieces = [piece for _ in range(40) for piece in cutter.feed(9999 * b"x")]
    pieces += cutter.end()
    assert "".join(pieces) == 40 * 9999 * "x"
    assert max(map(len, pieces)) < 80_000


def test_line_cutter__progress_bar__shows_a_state_every_ten_seconds():
    now = 0.0
    cutter = LineCutter(lambda: now)
    shown = []
    for now in range(25):
        shown += cutter.feed(b"\r%d" % now)
    assert shown == ["0", "10", "20"]
    assert cutter.feed(b"\r99\r") + cutter.feed(b"\n") == ["99"]


def test_death__one_of_three__ends_all_with_their_children(launch, fifo):
    reader = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    code, _, err = launch(
        f"""
        file = hold({str(fifo)!r})
        if me == "1":
            sys.exit(3)
        time.sleep(600)
        """,
        processes=3, max_restarts=0,
    )  # fmt: skip
    assert code == 3
    assert err == [
        "tf-gnc launch: process 1 exited with code 3",
        "tf-gnc launch: gives up after 1 attempts: process 1 exited with "
        "code 3",
    ]
    os.set_blocking(reader, True)
    with os.fdopen(reader) as file:
        file.read()  # It has an end.


def test_death__by_signal__gives_128_and_the_signal(launch):
    code, _, err = launch(
        """
        if me == "1":
            os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(600)
        """,
        processes=2, max_restarts=0,
    )  # fmt: skip
    assert code == 137
    assert "process 1 was ended by SIGKILL" in err[0]


def test_death__after_another_ended_well__is_a_death(launch):
    code, out, _ = launch(
        """
        if me == "0":
            sys.exit()
        time.sleep(0.5)
        print("still here")
        sys.exit(7)
        """,
        processes=2, max_restarts=0,
    )  # fmt: skip
    assert (code, out) == (7, ["[1] still here"])


def test_restarts__used_up__counted_in_environment_and_on_new_ports(launch):
    code, out, err = launch(
        """
        if me == "0":
            print(restart, os.environ["TF_CONFIG"])
            sys.exit(5)
        time.sleep(600)
        """,
        processes=2, max_restarts=2,
    )  # fmt: skip
    assert code == 5
    attempts = [line.split(" ", 2) for line in out]
    assert [number for _, number, _ in attempts] == ["0", "1", "2"]
    assert len({config for _, _, config in attempts}) == 3
    assert err[-1] == (
        "tf-gnc launch: gives up after 3 attempts: process 0 exited with code 5"
    )


def test_restarts__second_attempt_goes_well__is_a_success(launch):
    code, out, _ = launch('print(restart); sys.exit(restart == "0")')
    assert (code, out) == (0, ["[0] 0", "[0] 1"])


def test_restarts__asked_for__do_not_count(launch):
    code, out, _ = launch(
        "print(restart); sys.exit(75 * (int(restart) < 2))", max_restarts=0
    )
    assert (code, out) == (0, ["[0] 0", "[0] 1", "[0] 2"])


def test_restarts__asked_for_by_one__others_finish_what_they_save(launch):
    code, out, _ = launch(
        """
        if restart == "0":
            if me == "0":
                time.sleep(0.5)
                print("saved")
            sys.exit(75)
        """,
        processes=2, max_restarts=0,
    )  # fmt: skip
    assert (code, out) == (0, ["[0] saved"])


def test_restarts__usage_error__none(launch):
    code, out, _ = launch("print(restart); sys.exit(2)", max_restarts=3)
    assert (code, out) == (2, ["[0] 0"])


def test_restarts__several_machines__ports_stay_and_others_get_time(
    launch, monkeypatch
):
    monkeypatch.setattr(launcher, "_SECONDS_BETWEEN_CLUSTERS", 0.5)
    code, out, _ = launch(
        'print(time.time()); sys.exit(restart == "0")',
        machines=["a:1", "b:1"], machine_rank=0,
    )  # fmt: skip
    first, second = (float(line.split()[1]) for line in out)
    assert code == 0
    assert second - first >= 0.5


@pytest.fixture
def waiting(script, fifo):
    """Starts a launcher whose two processes do `then` when a signal comes.

    Returns it, and the FIFO that they and their children hold open.
    """
    started = []

    def start(then):
        command = script(
            f"""
            def stop(number, frame):
                print("got", signal.Signals(number).name)
                {then}
            for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1):
                signal.signal(number, stop)
            file = hold({str(fifo)!r})
            while True:
                time.sleep(600)
            """
        )
        process = subprocess.Popen(
            [sys.executable, LAUNCH, "--processes=2", "--", *command],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        started.append(process)
        reader = fifo.open()
        assert [reader.readline() for _ in range(2)] == 2 * ["ready\n"]
        return process, reader

    yield start
    for process in started:
        process.kill()
        process.communicate()


def test_stop__processes_save_and_ask_for_a_restart__75_and_no_restart(waiting):
    process, reader = waiting("sys.exit(75)")
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=30)
    assert process.returncode == 75
    assert sorted(out.splitlines()) == ["[0] got SIGTERM", "[1] got SIGTERM"]
    assert "passed SIGTERM on" in err
    assert "restart" not in err
    assert reader.read() == ""


@pytest.mark.parametrize(("name", "code"), [("SIGTERM", 143), ("SIGINT", 130)])
def test_stop__processes_just_end__code_of_the_signal(waiting, name, code):
    process, _ = waiting("sys.exit(1)")
    process.send_signal(signal.Signals[name])
    out, _ = process.communicate(timeout=30)
    assert process.returncode == code
    assert out.count(f"got {name}") == 2


def test_stop__all_end_well__is_a_success(waiting):
    process, _ = waiting("sys.exit()")
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=30)
    assert process.returncode == 0


def test_stop__processes_do_not_listen__second_interrupt_kills(waiting):
    process, reader = waiting("pass")
    process.send_signal(signal.SIGINT)
    while "Ctrl-C" not in process.stderr.readline():
        pass
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=30)
    assert process.returncode == 130
    assert reader.read() == ""


def test_signals__others__are_passed_on_and_stop_nothing(waiting):
    process, _ = waiting("sys.exit()")
    process.send_signal(signal.SIGUSR1)
    out, err = process.communicate(timeout=30)
    assert (process.returncode, err) == (0, "")
    assert out.count("got SIGUSR1") == 2


def test_launcher__killed__leaves_nobody_behind(waiting):
    process, reader = waiting("pass")
    process.kill()
    assert reader.read() == ""  # It has an end.


def test_bar__on_a_terminal__shows_reports_under_the_lines(script):
    command = script(
        """
        if me == "0":
            report = {"epoch": 2, "epochs": 4, "step": 3, "steps": 5}
            for line in ("junk", json.dumps({**report, "text": "loss 1.5"})):
                os.write(int(os.environ["TF_GNC_PROGRESS_FD"]),
                         line.encode() + b"\\n")
                time.sleep(0.5)
        else:
            assert "TF_GNC_PROGRESS_FD" not in os.environ
        print("a line")
        """
    )
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, LAUNCH, "--processes=2", "--", *command],
        stdin=theirs, stdout=theirs, stderr=theirs,
        env={**os.environ, "TERM": "xterm", "COLUMNS": "100"},
    )  # fmt: skip
    os.close(theirs)
    shown = b""
    try:
        while chunk := os.read(ours, 4096):
            shown += chunk
    except OSError:  # Linux's way to say that the terminal is gone.
        pass
    os.close(ours)
    assert process.wait(timeout=30) == 0
    text = shown.decode()
    assert "epoch 2/4" in text
    assert "loss 1.5" in text
    assert text.count("[0] a line") == text.count("[1] a line") == 1
    assert text.count("\x1b[?25l") == text.count("\x1b[?25h") == 1


def test_bar__no_terminal__nobody_is_asked_for_reports(launch, monkeypatch):
    monkeypatch.setenv("TF_GNC_PROGRESS_FD", "99")
    _, out, _ = launch('print("TF_GNC_PROGRESS_FD" in os.environ)')
    assert out == ["[0] False"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"processes": 0}, "`processes` .* processes=0"),
        ({"max_restarts": -1}, "`max_restarts` .* max_restarts=-1"),
        ({"machines": ["a:1"]}, "given together"),
        ({"machine_rank": 0}, "given together"),
        ({"machines": ["a:1"], "machine_rank": 1}, "machine_rank=1"),
        ({"machines": ["a"], "machine_rank": 0}, "host:port"),
    ],
)
def test_launcher__illegal_argument__error_names_it(options, message):
    with pytest.raises(ValueError, match=message):
        Launcher(["true"], **options)


def test_launcher__cluster_set_up_by_another__error(monkeypatch):
    monkeypatch.setenv("TF_CONFIG", '{"cluster": {}}')
    with pytest.raises(ValueError, match="without the launcher"):
        Launcher(["true"])


@pytest.mark.parametrize("empty", ["", " ", "{}"])
def test_launcher__empty_tf_config__is_none(empty, monkeypatch):
    monkeypatch.setenv("TF_CONFIG", empty)
    Launcher(["true"])


def test_launcher__program_that_cannot_start__error_and_signals_as_before(
    tmp_path,
):
    before = signal.getsignal(signal.SIGTERM)
    path = tmp_path / "program"
    path.write_bytes(b"\x7fELF")
    path.chmod(0o755)
    with pytest.raises(OSError, match="Exec format"):
        Launcher([str(path)], processes=2).run()
    assert signal.getsignal(signal.SIGTERM) == before


def test_child_command__each_kind__is_run_as_what_it_is(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    script = tmp_path / "train.py"
    script.touch()
    python = sys.executable
    assert child_command(["train.py", "-x"]) == [python, "train.py", "-x"]
    assert child_command(["-m", "a.b", "c"]) == [python, "-m", "a.b", "c"]
    assert child_command(["sh", "c"])[0].endswith("/sh")
    assert child_command(["sh", "c"], ["sh"])[0] == python


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "got none"),
        (["-m"], "got '-m'"),
        (["no.py"], "got 'no.py'"),
        (["no-such-program"], r"\(train, doctor\), .* got 'no-such-program'"),
        (["--method=gnc"], "got '--method=gnc'"),
    ],
)
def test_child_command__nothing_to_run__error_names_the_word(words, message):
    with pytest.raises(ValueError, match=message):
        child_command(words, ["train", "doctor"])
