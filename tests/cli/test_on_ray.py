import json
import os
import re
import signal
import sys
import threading
import time
import types
from pathlib import Path

import pytest

from tests.cli.test_compare import FAKE, TINY
from tests.problems import DIGITS_NETWORK
from tf_gnc import _files
from tf_gnc.cli.main import main
from tf_gnc.cli.runs import child, on_ray, ray_node
from tf_gnc.launch.addresses import free_ports

ROOT = Path(__file__).parents[2]

# Precedes the fake run: the first time, the one run sends a signal and waits
# to be told to stop.
SIGNALS = """
import os, json, pathlib, signal, sys, time
folder = pathlib.Path(json.loads(sys.argv[1])["run_dir"])
begun = folder.with_name("begun")
if folder.name == "gnc-seed0" and not begun.exists():
    def save(*_):
        begun.write_text("saved")
        sys.exit(75)
    signal.signal(signal.SIGTERM, save)
    begun.parent.mkdir(exist_ok=True)
    begun.touch()
    os.kill({process}, {number})
    time.sleep(60)
"""


# Precedes a real run: it is backed up as each epoch ends, not first after 30
# seconds.
OFTEN = """
import sys
from tf_gnc.cli.tensorflow_start import quiet_start
with quiet_start():
    from tf_gnc.experiments.run import placement
backup = placement.BackupAndRestore
placement.BackupAndRestore = lambda directory, required, min_seconds: (
    backup(directory, required=required)
)
"""


@pytest.fixture(scope="module")
def cluster():
    """Two nodes of one CPU each, where RAY_ADDRESS leads."""
    os.environ.setdefault("RAY_DEDUP_LOGS_SKIP_REGEX", ".")  # As a command.
    utils = pytest.importorskip(
        "ray.cluster_utils", reason="needs Ray: pip install 'tf-gnc[ray]'"
    )
    node = {
        "num_cpus": 1,
        "object_store_memory": 80 * 2**20,
        # Ray takes 127.0.0.1 for what other machines call this one.
        "node_ip_address": "127.0.0.2",
        "include_dashboard": False,
    }
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("PYTHONPATH", str(ROOT), os.pathsep)  # For nodes.
        # A lost node is found out in seconds.
        often = {"health_check_period_ms": 1000}
        nodes = utils.Cluster(
            initialize_head=True,
            head_node_args={**node, "_system_config": often},
        )
        try:
            nodes.add_node(**node)
            patch.setenv("RAY_ADDRESS", nodes.address)
            yield nodes
        finally:
            nodes.shutdown()


@pytest.fixture
def fake(monkeypatch, digits_dir, tmp_path):
    """Returns flags of a comparison on Ray of fake runs, and its directory."""
    real, out_dir = child.command_line, tmp_path / "out"

    def begin(source=""):
        monkeypatch.setattr(
            child,
            "command_line",
            lambda task: [sys.executable, "-c", source + FAKE, real(task)[-1]],
        )
        flags = [f"--data_dir={digits_dir}", f"--out_dir={out_dir}"]
        return [*flags, *TINY, "--on=ray"], out_dir

    return begin


def test_on_ray__without_the_extra__one_line_names_it(
    digits_dir, tmp_path, monkeypatch, capsys
):
    monkeypatch.setitem(sys.modules, "ray", None)
    out_dir = tmp_path / "out"
    flags = [f"--data_dir={digits_dir}", f"--out_dir={out_dir}", *TINY]
    assert main(["compare", *flags, "--on=ray"]) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1 and "pip install 'tf-gnc[ray]'" in err, err
    assert not out_dir.exists()


@pytest.mark.parametrize(
    ("nodes", "threads", "share", "text"),
    [
        ([{"CPU": 4.0}, {"CPU": 2.0}], None, (1, 0), "1 of 6 CPUs on 2 Ray"),
        ([{"CPU": 4.0}, {"CPU": 8.0}], 3, (3, 0), "3 of 12 CPUs"),
        # No node has more: it would wait for ever.
        ([{"CPU": 4.0}, {"CPU": 2.0}], 6, (4, 0), "4 of 6 CPUs"),
        (
            [{"CPU": 9.0, "GPU": 4.0}, {"CPU": 64.0}],
            None,
            (2, 1),
            "1 of 4 GPUs",
        ),
        ([{"CPU": 1.0, "GPU": 2.0}], None, (1, 1), "on 1 Ray node"),
        ([{}], None, (1, 0), "1 of 0 CPUs"),  # Others are to come.
    ],
)
def test_cluster__its_nodes__give_a_run_what_one_of_them_has(
    nodes, threads, share, text, monkeypatch
):
    listed = [{"Alive": True, "Resources": node} for node in nodes]
    listed.append({"Alive": False, "Resources": {"CPU": 99.0, "GPU": 9.0}})
    ray = types.SimpleNamespace(nodes=lambda: listed, is_initialized=lambda: 1)
    monkeypatch.setitem(sys.modules, "ray", ray)
    cluster = on_ray.Cluster(2, threads, None)
    assert tuple(cluster._share().values()) == share
    assert text in cluster.describe()


def test_on_ray__no_cluster_there__one_line_says_so(fake, monkeypatch, capsys):
    pytest.importorskip("ray")
    address = f"127.0.0.1:{free_ports(1)[0]}"
    monkeypatch.setenv("RAY_ADDRESS", address)
    flags, _ = fake()
    assert main(["compare", *flags]) == 1
    err = capsys.readouterr().err
    assert err.count("\n") == 1, err
    assert "RAY_ADDRESS" in err and address in err and "refused" in err


class FakeRay:
    """Two tasks that end when they are killed; a signal comes at each look."""

    exceptions = types.SimpleNamespace(RayError=RuntimeError)

    def __init__(self, numbers):
        self.numbers, self.cancelled, self.killed = numbers, [], []

    def wait(self, tasks, timeout):
        if self.numbers:
            os.kill(os.getpid(), self.numbers.pop(0))
        return [task for task in tasks if task in self.killed][:1], []

    def cancel(self, task, force):
        (self.killed if force else self.cancelled).append(task)

    def get(self, task):
        raise RuntimeError("it was cancelled")


@pytest.mark.parametrize(
    ("numbers", "patience"), [(["INT", "INT"], 60.0), (["TERM", "TERM"], 0.2)]
)
def test_tasks__told_to_stop__second_ctrl_c_or_time_kills_and_none_begins(
    numbers, patience, monkeypatch
):
    numbers = [signal.Signals[f"SIG{number}"] for number in numbers]
    monkeypatch.setattr(on_ray, "SECONDS_TO_SAVE", patience)
    monkeypatch.setattr(on_ray, "_SECONDS_TO_RETURN", 0.0)
    ray, told, begun = FakeRay(list(numbers)), [], []
    listener = types.SimpleNamespace(stopping=lambda: told.append("stopping"))
    take = types.SimpleNamespace(remote=lambda: None)
    tasks = on_ray._Tasks(ray, types.SimpleNamespace(take=take), listener)
    began = time.monotonic()
    stopped_by = tasks.run(
        ["a", "b", "c"], lambda name: begun.append(name) or name, 2
    )
    assert stopped_by == numbers[0]
    assert begun == ray.cancelled == ray.killed == ["a", "b"]
    assert told == ["stopping"]
    assert (time.monotonic() - began >= 0.2) == (patience == 0.2)


class Box:
    """Stands for the mailbox, an actor."""

    def __init__(self):
        self.put, self.names = self, []

    def remote(self, name, report):
        self.names.append(name)


def _run_one(tmp_path, source):
    (tmp_path / "about.json").touch()
    words = ["another node's python", "-c", source]
    return ray_node.run_one(
        "a", words, "about.json", "logs", str(tmp_path), Box()
    )


def test_task__on_a_node__runs_alone_and_leaves_its_log(tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv("TF_CONFIG", "one of several")
    monkeypatch.setenv("SLURM_PROCID", "0")
    source = "import os; print(*{'TF_CONFIG', 'SLURM_PROCID'} & {*os.environ})"
    assert _run_one(tmp_path, source) is None
    assert (tmp_path / "logs" / "a.log").read_text() == "\n"
    problem = _run_one(tmp_path, "import sys; sys.exit('the disk is full')")
    assert problem == "the disk is full"


def test_task__out_dir_is_not_on_the_node__is_said(tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    problem = ray_node.run_one(
        "a", [], str(tmp_path / "about.json"), "logs", str(tmp_path), Box()
    )
    assert "all nodes share" in problem and str(tmp_path) in problem
    assert list(tmp_path.iterdir()) == []


def test_task__told_to_stop__goes_on_elsewhere_unless_it_is_cancelled(
    tmp_path, monkeypatch
):
    monkeypatch.chdir(ROOT)
    source = "import os, time; os.kill(os.getppid(), {}); time.sleep(60)"
    with pytest.raises(ray_node.NodeStops):
        _run_one(tmp_path, source.format(int(signal.SIGTERM)))
    problem = _run_one(tmp_path, source.format(int(signal.SIGINT)))
    assert problem == "stopped"


def test_compare_on_ray__a_run_fails_and_a_node_stops__as_on_one_machine(
    cluster, fake, capsys
):
    handler = signal.getsignal(signal.SIGTERM)
    fails = "os.environ['FAIL'] = 'dpsgd-seed1'"
    stops = SIGNALS.format(process="os.getppid()", number=int(signal.SIGTERM))
    flags, out_dir = fake(f"{stops}\n{fails}\n")
    assert main(["compare", *flags]) == 1
    captured = capsys.readouterr()
    assert "4 of 4 runs to do, each with 1 of 2 CPUs on 2 Ray" in captured.out
    assert "dpsgd-seed1: No space left on device." in captured.out
    assert "gnc-seed0: started again" in captured.out
    assert "gnc-seed0: test accuracy 90.00%" in captured.out
    assert "these runs failed: dpsgd-seed1." in captured.err
    assert captured.err.count("\n") == 1, captured.err  # Ray is quiet.
    log = (out_dir / "logs" / "dpsgd-seed1.log").read_text()
    assert log == "No space left on device.\n"
    assert signal.getsignal(signal.SIGTERM) == handler
    flags, _ = fake()
    assert main(["compare", *flags]) == 0
    assert "1 of 4 runs to do" in capsys.readouterr().out


def test_compare_on_ray__told_to_stop__runs_save_and_it_goes_on_later(
    cluster, fake, capsys
):
    number = int(signal.SIGTERM)
    source = SIGNALS.format(process=os.getpid(), number=number)
    flags, out_dir = fake(source)
    assert main(["compare", *flags, "--jobs=1"]) == 75
    captured = capsys.readouterr()
    assert "stopping: each run saves" in captured.out
    assert "gnc-seed0: stopped" in captured.out
    assert "seed1" not in captured.out  # These were never begun.
    assert f"kept in {out_dir}" in captured.err
    assert (out_dir / "runs" / "begun").read_text() == "saved"
    assert not (out_dir / "table.txt").exists()
    assert main(["compare", *flags]) == 0
    assert "3 of 4 runs to do" in capsys.readouterr().out


def _table(out_dir):
    """Returns the table's lines, but for how long the runs took."""
    lines = (out_dir / "table.txt").read_text().splitlines()
    return [line for line in lines if not line.startswith("seconds")]


def _kill_when_backed_up(cluster, out_dir, killed):
    """Kills the node that isn't the head's when both runs have a backup.

    The first backup is there before the second row is.
    """
    deadline = time.monotonic() + 120
    while [len(_losses(p)) >= 2 for p in _logs(out_dir)] != [True, True]:
        if time.monotonic() > deadline:
            return
        time.sleep(0.05)
    (node,) = cluster.worker_nodes
    killed.append(node.node_id)
    cluster.remove_node(node, allow_graceful=False)


def test_compare_on_ray__a_node_is_killed__same_table_as_on_one_machine(
    cluster, digits_dir, tmp_path, monkeypatch, capsys
):
    monkeypatch.setenv("PYTHONPATH", str(ROOT), os.pathsep)
    real = child.command_line

    def command_line(task):
        *words, source, text = real(task)
        return [*words, OFTEN + source, text]

    monkeypatch.setattr(child, "command_line", command_line)
    flags = [
        f"--data_dir={digits_dir}", "--workers=2", "--batch_size=512",
        "--methods=dpsgd,gnc", "--seeds=1", "--epochs=20", DIGITS_NETWORK,
    ]  # fmt: skip
    here, there = tmp_path / "here", tmp_path / "there"
    assert main(["compare", *flags, f"--out_dir={here}"]) == 0
    killed = []
    killer = threading.Thread(
        target=_kill_when_backed_up, args=(cluster, there, killed)
    )
    killer.start()
    assert main(["compare", *flags, f"--out_dir={there}", "--on=ray"]) == 0
    killer.join()
    assert len(killed) == 1
    assert _table(there) == _table(here)
    assert re.search("^train loss", "\n".join(_table(here)), re.M)
    # One run, the lost node's, has gone on from its backup.
    out = capsys.readouterr().out
    assert out.count("started again") == 1
    assert "raylet" not in out  # Ray is quiet.
    resumed = [
        _files.read_json(path)["resumed_steps"]
        for path in there.glob("runs/*/summary.json")
    ]
    assert sorted(map(len, resumed)) == [0, 1]
    assert max(resumed)[0] > 0
    assert [*map(_losses, _logs(there))] == [*map(_losses, _logs(here))]


def _logs(out_dir):
    return sorted(out_dir.glob("runs/*/metrics.jsonl"))


def _losses(path):
    return [json.loads(line)["loss"] for line in path.read_text().splitlines()]
