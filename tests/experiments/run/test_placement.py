"""Where a run takes place, and what may differ when it is taken up."""

import json

import pytest
import tensorflow as tf

from tf_gnc.experiments import Placement, make_config
from tf_gnc.experiments.run.placement import Workspace

CONFIG = {"num_workers": 2, "batch_size": 512, "epochs": 2}


def _config(**changes):
    return make_config("digits", "gnc", **{**CONFIG, **changes})


def _workspace(run_dir, resume=True, save_freq="epoch", **changes):
    placement = Placement(tf.distribute.get_strategy(), save_freq, resume)
    return Workspace(_config(**changes), run_dir, placement)


@pytest.fixture
def begun(tmp_path):
    """The directory of a run that was cut short."""
    workspace = _workspace(tmp_path / "run", resume=False)
    workspace.claim({"config": _config().to_dict()})
    return tmp_path / "run"


def test_workspace__looking__makes_nothing(tmp_path):
    _workspace(tmp_path / "run")
    assert list(tmp_path.iterdir()) == []


def test_workspace__begun_run_without_resume__says_how_to_take_it_up(begun):
    with pytest.raises(FileExistsError, match="--resume"):
        _workspace(begun, resume=False)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"seed": 5}, "got seed=5 where .* has 0"),
        ({"num_workers": 4}, "got num_workers=4 where .* has 2"),
        ({"alpha": 0.25}, "got alpha=0.25 where .* has"),
        ({"epochs": 9}, "got epochs=9 where .* has 2"),
    ],
)
def test_workspace__other_settings__are_refused_with_both_values(
    changes, words, begun
):
    before = (begun / "config.json").read_text()
    with pytest.raises(ValueError, match=words):
        _workspace(begun, **changes)
    assert (begun / "config.json").read_text() == before


def test_workspace__what_changes_no_result__may_differ(begun, tmp_path):
    workspace = _workspace(
        begun, threads=3, data_dir=str(tmp_path), download=True
    )
    workspace.claim({"config": "another"})
    written = json.loads((begun / "config.json").read_text())
    assert written["config"] == _config().to_dict()
    assert workspace.summary is None


def test_workspace__run_has_ended__knows_the_summary(begun):
    (begun / "summary.json").write_text('{"epochs": 2}')
    workspace = _workspace(begun)
    workspace.claim({})
    assert workspace.summary == {"epochs": 2}


def test_note_start__each_time_that_it_is_taken_up__is_kept(tmp_path):
    for step, known in ((0, []), (0, [0]), (3, [0, 3])):
        workspace = _workspace(tmp_path / "run")
        workspace.claim({"config": _config().to_dict()})
        workspace.note_start(step)
        assert workspace.resumed_steps() == known
    workspace.end()
    assert workspace.files.names() == ["config.json", "metrics.jsonl"]


def test_workspace__config_is_no_json__is_refused_by_name(begun):
    (begun / "config.json").write_text("{")
    with pytest.raises(ValueError, match=r"config\.json can't be read"):
        _workspace(begun)


@pytest.mark.parametrize(
    ("save_freq", "expected"),
    [("auto", ("epoch", 30.0)), ("epoch", ("epoch", 0.0)), (7, (7, 0.0))],
)
def test_backups__save_freq__is_that_of_the_callback(
    save_freq, expected, tmp_path
):
    (backup,) = _workspace(tmp_path / "run", save_freq=save_freq).backups()
    assert (backup.save_freq, backup.min_seconds) == expected


def test_backups__never__are_none(tmp_path):
    assert _workspace(tmp_path / "run", save_freq=None).backups() == []


def test_end__backups__are_removed_and_nothing_else(begun):
    (begun / "backup" / "step-000000000001").mkdir(parents=True)
    _workspace(begun).end()
    names = sorted(path.name for path in begun.iterdir())
    assert names == ["config.json", "metrics.jsonl"]


def test_workspace__directory_in_the_home_folder__is_found_again(
    tmp_path, monkeypatch
):
    monkeypatch.setenv("HOME", str(tmp_path))
    workspace = _workspace("~/run")
    workspace.claim({"config": _config().to_dict()})
    (tmp_path / "run" / "summary.json").write_text('{"epochs": 2}')
    again = _workspace("~/run")
    again.claim({})
    assert again.summary == {"epochs": 2}
