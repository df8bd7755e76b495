import socket
import threading
import time

import pytest

from tests.processes import free_addresses
from tf_gnc.launch.meeting import silent_addresses


def test_meeting__three_that_come_one_after_another__miss_nobody():
    addresses, found, later = free_addresses(3), {}, []

    def come(number):
        time.sleep(0.5 * number)
        own = addresses[number]
        silent = silent_addresses(addresses, own, 20)
        if silent == []:  # The next to listen there is TensorFlow.
            port = int(own.split(":")[1])
            later.append(socket.create_server(("127.0.0.1", port)))
        found[number] = silent

    threads = [threading.Thread(target=come, args=(n,)) for n in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    for each in later:
        each.close()
    assert found == {0: [], 1: [], 2: []}


def test_meeting__nobody_there__is_silent_and_a_taken_port_is_refused():
    here, there, taken = free_addresses(3)
    assert silent_addresses([here, there, taken], here, 0) == [there, taken]
    port = int(taken.split(":")[1])
    with socket.create_server(("", port)):
        assert silent_addresses([here, taken], here, 0) == []
        with pytest.raises(OSError, match=f"at its port, got {taken}: .* End"):
            silent_addresses([here, taken], taken, 0)
