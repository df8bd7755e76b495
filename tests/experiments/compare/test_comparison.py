import dataclasses
import os

import pytest

from tf_gnc.experiments.compare.plan import Comparison, Plan, make_plan
from tf_gnc.experiments.methods.registry import METHODS


def test_make_plan__all_methods__runs_of_a_seed_differ_in_the_method_alone():
    plan = make_plan(list(METHODS), [3, 5], epochs=4, alpha=0.3)
    assert plan.baseline == "dpsgd"
    assert [(run.method, run.seed) for run in plan.runs] == [
        (method, seed) for seed in (3, 5) for method in METHODS
    ]
    for seed in (3, 5):
        shared = [
            {
                k: v
                for k, v in run.to_dict().items()
                if k not in run.settings and k != "method"
            }
            for run in plan.runs
            if run.seed == seed
        ]
        assert all(settings == shared[0] for settings in shared)
    alphas = {run.method: run.settings.get("alpha") for run in plan.runs}
    without = ("dpsgd", "sam", "worker_sam", "asam", "momentum_sam")
    assert alphas == {m: None if m in without else 0.3 for m in METHODS}


def test_make_plan__names_of_one_method__win_over_the_bare_one():
    chosen = {"alpha": 0.3, "alpha_rnc": 0.02, "gnc.alpha": 0.5}
    plan = make_plan(list(METHODS), [0], **chosen)
    settings = {run.method: run.settings for run in plan.runs}
    assert settings["rnc"]["alpha"] == 0.02  # As its older name says.
    assert settings["gnc"]["alpha"] == 0.5
    assert settings["gnc_to_rnc"]["alpha"] == 0.3
    assert settings["gnc_to_rnc"]["alpha_rnc"] == 0.02


@pytest.mark.parametrize(
    ("methods", "seeds", "chosen", "message"),
    [
        (["sgd"], [0], {}, "`methods` .* got methods='sgd'"),
        (["gnc", "gnc"], [0], {}, r"different .* got methods=\['gnc', 'gnc'\]"),
        (["gnc"], [1, 1], {}, r"different .* got seeds=\[1, 1\]"),
        ([], [1], {}, r"at least one, got methods=\[\]"),
        (["dpsgd"], [0], {"alpha": 1.0}, "`alpha` .*does nothing"),
        (["gnc"], [-1], {}, "`seed` .* got seed=-1"),
        (["gnc"], [0], {"baseline": "rnc"}, "`baseline` .* got baseline='rnc'"),
    ],
)
def test_make_plan__bad_values__are_refused(methods, seeds, chosen, message):
    with pytest.raises(ValueError, match=message):
        make_plan(methods, seeds, **chosen)


def test_plan__from_a_list_of_runs__must_be_a_full_grid():
    runs = make_plan(["dpsgd", "gnc"], [0, 1]).runs
    Plan(runs, "gnc")
    for wrong in (runs[:3], runs + runs[:1]):
        with pytest.raises(ValueError, match="exactly one run for each method"):
            Plan(wrong, "gnc")


def test_check__batch_larger_than_the_data__is_refused(digits_dir, tmp_path):
    plan = make_plan(["gnc"], [0], data_dir=digits_dir)
    Comparison(plan, tmp_path).check()
    plan = make_plan(["gnc"], [0], data_dir=digits_dir, batch_size=2048)
    with pytest.raises(ValueError, match="batch_size=2048 with 1437"):
        Comparison(plan, tmp_path).check()


PLAN = make_plan(["dpsgd", "gnc"], [0, 1], epochs=2)


def _claim(plan, path):
    with Comparison(plan, path).claimed("tf-gnc compare"):
        pass


def test_comparison__same_plan__goes_on(tmp_path):
    _claim(PLAN, tmp_path / "out")
    before = (tmp_path / "out" / "compare.json").read_bytes()
    elsewhere = Plan(
        tuple(
            dataclasses.replace(r, data_dir="else", threads=1)
            for r in PLAN.runs
        ),
        PLAN.baseline,
    )
    _claim(elsewhere, tmp_path / "out")
    assert (tmp_path / "out" / "compare.json").read_bytes() == before


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (
            make_plan(["dpsgd", "rnc"], [0, 1], epochs=2),
            r"methods=\['dpsgd', 'rnc'\] where .* has \['dpsgd', 'gnc'\]",
        ),
        (
            make_plan(["dpsgd", "gnc"], [0, 2], epochs=2),
            r"seeds=\[0, 2\] where .* has \[0, 1\]",
        ),
        (
            make_plan(["dpsgd", "gnc"], [0, 1], "gnc", epochs=2),
            "baseline='gnc' where .* has 'dpsgd'",
        ),
        (
            make_plan(["dpsgd", "gnc"], [0, 1], epochs=3),
            "dpsgd-seed0: epochs=3 where .* has 2",
        ),
        (
            make_plan(["dpsgd", "gnc"], [0, 1], epochs=2, alpha=0.7),
            "gnc-seed0: alpha=0.7 where .* has 0.1",
        ),
    ],
)
def test_comparison__other_plan__is_refused_with_both_values(
    other, message, tmp_path
):
    _claim(PLAN, tmp_path)
    before = (tmp_path / "compare.json").read_bytes()
    with pytest.raises(ValueError, match=message):
        Comparison(other, tmp_path)
    assert (tmp_path / "compare.json").read_bytes() == before
    assert os.listdir(tmp_path) == ["compare.json"]


def test_comparison__other_content__is_refused_untouched(tmp_path):
    (tmp_path / "thesis.txt").write_text("all of it")
    with pytest.raises(FileExistsError, match="holds other files"):
        Comparison(PLAN, tmp_path)
    with pytest.raises(NotADirectoryError, match="is a file"):
        Comparison(PLAN, tmp_path / "thesis.txt")
    with pytest.raises(ValueError, match="local directory"):
        Comparison(PLAN, "ftp://host/out")
    assert os.listdir(tmp_path) == ["thesis.txt"]


def test_comparison__killed_while_its_plan_was_written__goes_on(tmp_path):
    (tmp_path / ".unfinished-compare.json").write_text('{"ru')
    _claim(PLAN, tmp_path)
    assert os.listdir(tmp_path) == ["compare.json"]


def test_comparison__two_at_a_time__second_is_refused(tmp_path):
    first, second = Comparison(PLAN, tmp_path), Comparison(PLAN, tmp_path)
    with first.claimed("one"):
        with pytest.raises(OSError, match="in use by another comparison"):
            with second.claimed("two"):
                pass
    with second.claimed("two"):
        pass


def test_task__run_killed_before_it_had_begun__leaves_nothing(tmp_path):
    comparison = Comparison(PLAN, tmp_path)
    early, late, *_ = map(comparison.run_dir, comparison.configs)
    for path in (early, late):
        path.mkdir(parents=True)
        (path / "metrics.jsonl").touch()
    (early / ".unfinished-7-config.json").touch()
    (late / "config.json").touch()
    for name, run in comparison.configs.items():
        task = comparison.task(name, run, 3, "tf-gnc compare")
        assert task.config == dataclasses.replace(run, threads=3)
    assert not early.exists()
    assert len(os.listdir(late)) == 2
