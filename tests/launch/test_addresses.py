import json
import socket

import pytest

from tf_gnc.launch import addresses


def test_tf_config__each_index__same_cluster_and_a_task_of_its_own():
    hosts = ["a:1", "b:2", "c:3"]
    configs = [json.loads(addresses.tf_config(hosts, i)) for i in range(3)]
    assert [c["cluster"] for c in configs] == 3 * [{"worker": hosts}]
    assert [c["task"] for c in configs] == [
        {"type": "worker", "index": i} for i in range(3)
    ]


@pytest.mark.parametrize("index", [-1, 2])
def test_tf_config__no_such_process__error_names_both(index):
    with pytest.raises(ValueError, match=f"index={index} with 2 addresses"):
        addresses.tf_config(["a:1", "b:1"], index)


def test_free_ports__many__differ_and_can_be_listened_on():
    ports = addresses.free_ports(50)
    assert len(set(ports)) == 50
    for port in ports[:5]:
        with socket.create_server(("127.0.0.1", port)):
            pass


def test_free_ports__only_one_and_it_is_taken__error(monkeypatch):
    (port,) = addresses.free_ports(1)
    monkeypatch.setattr(addresses, "_FREE_PORTS", range(port, port + 1))
    assert addresses.free_ports(1) == [port]
    taken = socket.create_server(("127.0.0.1", port))
    with taken, pytest.raises(OSError, match="no 1 free ports"):
        addresses.free_ports(1)


def test_machine_addresses__two_processes_each__take_the_ports_after():
    machines = ["a:1000", "[::1]:1000", "a:1002"]
    assert addresses.machine_addresses(machines, 2) == [
        "a:1000", "a:1001", "[::1]:1000", "[::1]:1001", "a:1002", "a:1003",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("machines", "message"),
    [
        (["a"], "must be host:port .* got 'a'"),
        (["a:"], "got 'a:'"),
        ([":1000"], "got ':1000'"),
        (["a:b"], "got 'a:b'"),
        (["a:-1"], "got 'a:-1'"),
        (["a:0"], "port from 1"),
        ([""], "got ''"),
        (["a:65535"], "at most 65535, got 'a:65535' with 2 processes"),
        (["a:1000", "a:1000"], "a:1000 in both 'a:1000' and 'a:1000'"),
        (["a:1001", "a:1000"], "a:1001 in both .* 2 apart"),
    ],
)
def test_machine_addresses__malformed_or_overlapping__error_names_it(
    machines, message
):
    with pytest.raises(ValueError, match=message):
        addresses.machine_addresses(machines, processes=2)


@pytest.mark.parametrize(
    ("num_cores", "processes"), [(4, 1), (4, 2), (4, 4), (5, 2), (2, 3), (1, 4)]
)
def test_split_cores__any_numbers__equal_work_and_no_core_idle(
    num_cores, processes
):
    cores = {2 * i + 7 for i in range(num_cores)}
    shares = addresses.split_cores(cores, processes)
    assert len(shares) == processes
    assert set().union(*shares) == cores
    # At most a core at each end is shared with the neighbour.
    exact = num_cores / processes
    assert all(exact <= len(share) < exact + 2 for share in shares)


def test_split_cores__a_multiple_of_the_processes__shares_none():
    assert addresses.split_cores({3, 2, 1, 0}, 2) == [{0, 1}, {2, 3}]
