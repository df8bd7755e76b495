import json
import os
import subprocess
import sys

from tests.processes import free_addresses
from tf_gnc.cli.main import main


def test_test__one_process__is_ready_in_one_sentence(capsys):
    assert main(["test"]) == 0
    out = capsys.readouterr().out.splitlines()
    assert out[-1] == "Ready: 1 process with 1 replica in all train as one."
    assert [line.split()[1] for line in out[:-1]] == [
        "software:", "alone:", "together:",
    ]  # fmt: skip


def test_test__process_that_never_comes__is_named_and_not_waited_for():
    hosts = free_addresses(2)
    config = {
        "cluster": {"worker": hosts},
        "task": {"type": "worker", "index": 0},
    }
    environment = {**os.environ, "TF_CONFIG": json.dumps(config)}
    ended = subprocess.run(
        [sys.executable, "-m", "tf_gnc.cli.main", "test", "--wait=1"],
        capture_output=True, text=True, timeout=120, env=environment,
    )  # fmt: skip
    assert ended.returncode == 2, ended.stderr
    (line,) = ended.stderr.splitlines()
    assert line.startswith("tf-gnc test: error: Not ready: nobody answers")
    assert f"{hosts[0]} at {hosts[1]}, got no connection in 1 sec" in line
