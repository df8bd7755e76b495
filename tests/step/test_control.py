"""What callbacks and checks may do with the steps of a model."""

import types

import pytest

import tf_gnc
from tests import problems
from tf_gnc.step.control import StepControl, control_of


def _control(steps_per_execution=1):
    logs = {"loss": 1.0}
    return StepControl(
        types.SimpleNamespace(
            steps_per_execution=steps_per_execution,
            get_metrics_result=lambda: logs,
        )
    )


def test_skip_steps__data_read__passes_over_so_many_calls_and_batches():
    control, batches, calls = _control(2), iter(range(5)), 0
    assert not control.is_skipping
    control.skip_steps(4, read_data=True)
    while (logs := control.pass_over(batches)) is not None:
        assert control.is_skipping
        assert logs == {"loss": 1.0}
        calls += 1
    assert calls == 2
    assert next(batches) == 4
    assert not control.is_skipping


def test_skip_steps__data_begin_where_they_must__reads_nothing():
    control, batches = _control(), iter(range(5))
    control.skip_steps(2, read_data=False)
    control.pass_over(batches)
    assert next(batches) == 0


def test_skip_steps__ends_inside_a_call__is_refused():
    with pytest.raises(ValueError, match="whole call, got 3 steps with"):
        _control(2).skip_steps(3, read_data=True)


@pytest.mark.parametrize(("steps", "whole"), [(0, 0), (3, 4), (4, 4)])
def test_whole_calls__two_steps_a_call__rounds_up(steps, whole):
    assert _control(2).whole_calls(steps) == whole


def test_control_of__same_model__is_the_same():
    first, second = problems.dense_network(), problems.dense_network()
    assert control_of(first) is control_of(first)
    assert control_of(first) is not control_of(second)


def test_model__public_names__are_for_users():
    theirs = {n for n in dir(tf_gnc.GNCModel) if not n.startswith("_")}
    keras_own = {
        n for cls in tf_gnc.GNCModel.__mro__ if "keras" in cls.__module__
        for n in vars(cls)
    }  # fmt: skip
    assert theirs - keras_own == {
        "compiled_noise_rule",
        "noise_alpha",
        "noise_rule",
        "num_workers",
        "step_plan",
        "to_keras",
    }
