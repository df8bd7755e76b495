"""The benchmark with the fewest kills: one at random, one during a save."""

import kill

from tests.problems import DIGITS_NETWORK


def test_kill__two_kills_and_a_sigterm__same_weights_and_no_step_lost(tmp_path):
    report = kill.measure(tmp_path, kills=2, stops=1, others=[DIGITS_NETWORK])
    assert report.good, report.table() + report.output
    assert [k.signal for k in report.kills] == ["SIGKILL", "SIGKILL", "SIGTERM"]
    assert report.restarts == 3
    assert "Stopped by SIGTERM at step" in report.output
    assert "exited with code 75, which asks for a restart" in report.output
