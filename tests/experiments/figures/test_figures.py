"""What is drawn is what was recorded, and what is missing is said."""

import html
import json
import os
from pathlib import Path

import numpy as np
import pytest

from tf_gnc.experiments.figures import page
from tf_gnc.experiments.figures.recorded_runs import (
    MEASURED,
    read_run,
    read_runs,
)
from tf_gnc.experiments.figures.registry import DRAWINGS, View, draw_all

KERNELS = ["stem_conv/kernel", "block_conv/kernel", "logits/kernel"]
STEPS = [2, 4, 6, 8]  # two an epoch


def _spectrum(step):
    layers = {
        path: {
            "condition_number": 10.0 * (place + 1) + step,
            "percentiles": {
                p: step * 10.0**n
                for n, p in enumerate(["0", "25", "50", "75", "100"])
            },
        }
        for place, path in enumerate(KERNELS)
    }
    layers["stem_norm/gamma"] = {
        "condition_number": 7.0,
        "percentiles": layers[KERNELS[0]]["percentiles"],
    }
    return {"layers": layers}


def _smoothness(step, factor):
    return {
        "loss": [factor * step, factor * (step + 1)],
        "gradient": [factor * 0.1, factor * 0.2 * step],
        "beta": factor * 3.0 + step,
    }


def _row(step):
    return {
        "step": step,
        "epoch": step // 2,
        "similarity": {"total": None if step == 4 else step / 10},
        "spectrum": _spectrum(step),
        "sharpness": {
            "clean_loss": 1 / step, "min": 0.5 / step, "max": 2 / step,
            "relative_displacement": step / 1000, "noise_scale": None,
        },
        "smoothness": {
            "plain": _smoothness(step, 2.0),
            "convolved": _smoothness(step, 1.0),
        },
        "landscape": {"coordinates": [-1, 0, 1], "loss": [2.0, 1.0, 2.0]},
    }  # fmt: skip


def _metric(epoch):
    return {
        "epoch": epoch, "loss": 3.0 / epoch, "val_accuracy": 0.1 * epoch,
        "learning_rate": 0.4 if epoch < 3 else 0.04,
    }  # fmt: skip


def _write(path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def _make(folder, rows=(), method="gnc", seed=0, **config):
    about = {
        "config": {"method": method, "seed": seed, "batch_size": 64, **config},
        "steps_per_epoch": 2,
    }
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(about))
    _write(folder / "metrics.jsonl", map(_metric, range(1, 5)))
    if rows:
        _write(folder / "probe.jsonl", rows)
    return folder


@pytest.fixture
def run_dirs(tmp_path):
    """One with all full measures, one with none."""
    return [
        _make(tmp_path / "a", [_row(step) for step in STEPS]),
        _make(tmp_path / "b", method="dpsgd"),
    ]


def _lines(axes, marks=True):
    """Data of an axes' lines by label, without the marks of the rate."""
    lines = [
        line for line in axes.lines if len(set(line.get_xdata())) > 1
    ]  # a mark is vertical
    return [(line.get_xdata(), line.get_ydata()) for line in lines]


def _bands(axes):
    """Points of an axes' shaded bands."""
    return [
        set(map(tuple, c.get_paths()[0].vertices)) for c in axes.collections
    ]


def test_accuracy_and_loss__two_runs__are_the_metrics(run_dirs):
    runs = read_runs(run_dirs)
    figures = draw_all(runs, View())
    (axes,) = figures["fig3a_accuracy"].axes
    assert len(_lines(axes)) == 2
    for x, y in _lines(axes):
        assert list(x) == [1, 2, 3, 4]
        np.testing.assert_allclose(y, [0.1, 0.2, 0.3, 0.4])
    labels = [text.get_text() for text in axes.get_legend().get_texts()]
    assert labels == ["gnc", "dpsgd"]
    (axes,) = figures["fig10_training_loss"].axes
    np.testing.assert_allclose(_lines(axes)[0][1], [3, 1.5, 1, 0.75])


def test_similarity__with_a_gap__over_epochs_with_the_rate_marked(run_dirs):
    (axes,) = draw_all(read_runs(run_dirs), View())["fig3b_similarity"].axes
    ((x, y),) = _lines(axes)
    assert list(x) == [1, 2, 3, 4]
    np.testing.assert_allclose(y, [0.2, np.nan, 0.6, 0.8])
    marks = [line for line in axes.lines if len(set(line.get_xdata())) == 1]
    assert [mark.get_xdata()[0] for mark in marks] == [2]


def test_condition_numbers__kernels_and_vectors__a_line_for_each_kernel(
    run_dirs,
):
    figure = draw_all(read_runs(run_dirs), View())["fig4a_condition_numbers"]
    (axes,) = figure.axes
    assert axes.get_yscale() == "log"
    assert [list(y) for _, y in _lines(axes)] == [
        [10.0 * place + step for step in STEPS] for place in (1, 2, 3)
    ]


def test_eigenvalues__a_layer__percentiles_without_the_zero(run_dirs):
    runs = read_runs(run_dirs)
    figure = draw_all(runs, View())["fig4a_eigenvalues"]
    assert figure.get_suptitle() == "block_conv/kernel"
    (axes,) = figure.axes
    assert [y[0] for _, y in _lines(axes)] == [20, 200, 2000, 20000]
    chosen = draw_all(runs, View(layer="stem_norm/gamma"))
    assert chosen["fig4a_eigenvalues"].get_suptitle() == "stem_norm/gamma"
    with pytest.raises(ValueError, match="one of stem_conv/kernel, .*'stem'"):
        draw_all(runs, View(layer="stem"))
    with pytest.raises(ValueError, match="layer=stem_conv/kernel and no run"):
        draw_all(runs[1:], View(layer="stem_conv/kernel"))


def test_losses__sharpness__clean_line_in_a_band_and_a_part_of_it(run_dirs):
    runs = read_runs(run_dirs)
    figures = draw_all(runs, View(around=[3]))
    (axes,) = figures["fig4bc_losses"].axes
    ((x, y),) = _lines(axes)
    assert list(x) == STEPS
    np.testing.assert_allclose(y, [1 / step for step in STEPS])
    (band,) = _bands(axes)
    assert {(s, 0.5 / s) for s in STEPS} | {(s, 2 / s) for s in STEPS} <= band
    (axes,) = figures["fig4bc_losses_around"].axes
    ((x, _),) = _lines(axes)
    assert list(x) == [4, 6, 8]
    with pytest.raises(ValueError, match="around=9. Choose another epoch"):
        draw_all(runs, View(around=[9]))


def test_losses__loss_spread_alone__mean_of_the_workers(tmp_path):
    spread = {"min": 1.0, "max": 3.0, "std": 0.5, "mean": 2.0}
    rows = [
        {"step": 1, "loss_spread": spread},
        {"step": 2, "loss_spread": None, "valid": False},
        {"step": 3, "loss_spread": spread},
    ]
    figures = draw_all(read_runs([_make(tmp_path / "a", rows)]), View())
    (axes,) = figures["fig4bc_losses"].axes
    ((x, y),) = _lines(axes)
    assert (list(x), list(y)) == ([1, 3], [2, 2])


def test_smoothness__one_run__plain_against_convolved(run_dirs):
    figures = draw_all(read_runs(run_dirs), View())
    assert "fig5_runs" not in figures  # one run has it
    loss, gradient, beta = figures["fig5_smoothness"].axes
    plain, convolved = _bands(loss)
    assert {(1.0, 4.0), (1.0, 6.0)} <= plain
    assert {(1.0, 2.0), (1.0, 3.0)} <= convolved
    plain, convolved = _bands(gradient)
    assert {(4.0, 0.2), (4.0, 3.2)} <= plain
    assert [list(y) for _, y in _lines(beta)] == [
        [6.0 + step for step in STEPS],
        [3.0 + step for step in STEPS],
    ]


def test_smoothness__two_runs__each_convolved_with_its_own_noise(tmp_path):
    rows = [_row(step) for step in STEPS]
    folders = [
        _make(tmp_path / name, rows, method=name) for name in ("gnc", "rnc")
    ]
    figures = draw_all(read_runs(folders), View())
    assert len(figures["fig5_smoothness"].axes) == 6
    _, _, beta = figures["fig5_runs"].axes
    assert [list(y) for _, y in _lines(beta)] == [[5, 7, 9, 11]] * 2


def test_landscape__many_epochs__five_curves_with_gaps(tmp_path):
    rows = [
        {
            "step": step,
            "landscape": {
                "coordinates": [-1.0, 0.0, 1.0],
                "loss": [100.0, step, None],
            },
        }
        for step in range(1, 10)
    ]
    runs = read_runs([_make(tmp_path / "a", rows)])
    (axes,) = draw_all(runs, View())["landscape"].axes
    assert axes.get_yscale() == "log"
    assert [list(y)[:2] for _, y in _lines(axes)] == [
        [100, step] for step in (1, 3, 5, 7, 9)
    ]
    for x, y in _lines(axes):
        assert list(x) == [-1, 0, 1]
        assert np.isnan(y[2])
    labels = [text.get_text() for text in axes.get_legend().get_texts()]
    assert labels[::4] == ["epoch 0.5", "epoch 4.5"]


def test_landscape__two_directions__a_map_of_the_last(tmp_path):
    rows = [
        {
            "step": step,
            "landscape": {
                "coordinates": [0.0, 1.0],
                "loss": [[step, 2.0], [None, 4.0]],
            },
        }
        for step in (1, 3)
    ]
    runs = read_runs([_make(tmp_path / "a", rows)])
    axes, _ = draw_all(runs, View())["landscape"].axes  # and a colour bar
    (mesh,) = axes.collections
    # The first direction goes to the right.
    assert mesh.get_array().tolist() == [[3, None], [2, 4]]
    assert "<svg" in page.to_html(runs, draw_all(runs, View()), "")


def test_noise__only_a_displacement__draws_no_empty_panel(run_dirs):
    # There are noise scales too, but none is a number.
    figure = draw_all(read_runs(run_dirs), View())["noise"]
    (axes,) = [axes for axes in figure.axes if axes.get_ylabel()[0] == "R"]
    ((_, y),) = _lines(axes)
    np.testing.assert_allclose(y, [0.002, 0.004, 0.006, 0.008])
    assert len(figure.axes) == 1


def test_labels__runs_that_differ__say_in_what(tmp_path):
    def labels(*settings):
        folder = tmp_path / str(len(list(tmp_path.iterdir())))
        folders = [
            _make(folder / f"run{n}", **s) for n, s in enumerate(settings)
        ]
        return [run.label for run in read_runs(folders)]

    assert labels({}, {"method": "rnc"}) == ["gnc", "rnc"]
    assert labels({}, {"seed": 1}) == ["gnc, seed 0", "gnc, seed 1"]
    assert labels({}, {"alpha": 1}) == ["gnc (run0)", "gnc (run1)"]
    twice = _make(tmp_path / "twice")
    assert [run.label for run in read_runs([twice, twice])] == ["gnc"]


def test_labels__folders_of_the_same_name__tell_the_runs_apart(tmp_path):
    a, b, c = (
        _make(
            tmp_path / way / "runs" / "gnc-seed0",
            [{"step": 2, "noise_norm": norm}] if norm else (),
        )
        for way, norm in (("A/x", 1.0), ("B/y", 2.0), ("B/x", None))
    )
    assert [r.label for r in read_runs([a, b])] == ["gnc (x)", "gnc (y)"]
    runs = read_runs([a, b, c])
    assert [run.label for run in runs] == [
        f"gnc ({way}/runs/gnc-seed0)" for way in ("A/x", "B/y", "B/x")
    ]  # no single part tells all three apart
    figures = draw_all(runs, View())
    (axes,) = figures["noise"].axes
    assert [list(line.get_ydata()) for line in axes.lines[:2]] == [[1], [2]]
    assert page.missing(runs, figures)["noise"] == [runs[2].label]


def test_labels__the_same__each_run_has_its_own_numbers(tmp_path):
    runs = [
        read_run(_make(tmp_path / name, rows))
        for name, rows in (
            ("a", [{"step": 2, "noise_norm": 1.0}]),
            ("b", [{"step": 2, "noise_norm": 2.0}]),
            ("c", ()),
        )
    ]
    figures = draw_all(runs, View())
    (axes,) = figures["noise"].axes
    assert [list(line.get_ydata()) for line in axes.lines[:2]] == [[1], [2]]
    assert page.missing(runs, figures)["noise"] == ["gnc"]


def test_read_runs__an_analysis_among_them__is_passed_over(tmp_path, run_dirs):
    out = tmp_path / "analysis"
    page.AnalysisFiles(out, run_dirs).write({}, "page", "command")
    begun = tmp_path / "begun"
    begun.mkdir()
    (begun / ".unfinished-analysis.json").write_text('{"ru')
    assert len(read_runs([out, *run_dirs, begun])) == 2
    for alone in (out, begun):
        with pytest.raises(ValueError, match="must be the directory of a run"):
            read_runs([alone])
    # A run may hold such a file, and others may have one of that name.
    (run_dirs[0] / "analysis.json").write_text('{"runs": [], "files": []}')
    assert len(read_runs(run_dirs)) == 2
    (begun / ".unfinished-analysis.json").rename(begun / "analysis.json")
    with pytest.raises(ValueError, match="must be the directory of a run"):
        read_runs([*run_dirs, begun])


def test_read_run__measured_and_recorded__record_counts(tmp_path):
    folder = _make(tmp_path / "a", [{"step": 2, "similarity": {"total": 0.5}}])
    _write(
        folder / MEASURED,
        [
            {"step": 2, "similarity": {"total": 0.1}, "spectrum": "s"},
            {"step": 1, "similarity": {"total": 0.3}},
        ],
    )
    run = read_run(folder)
    assert run.series("similarity", "total") == ([0.5, 1.0], [0.3, 0.5])
    assert run.rows[1]["spectrum"] == "s"


def test_read_run__half_a_line__is_left_out(tmp_path):
    folder = _make(tmp_path / "a", [_row(2)])
    with (folder / "probe.jsonl").open("a") as file:
        file.write('{"step": 4, "simil')
    assert len(read_run(folder).rows) == 1
    (folder / "probe.jsonl").write_text("[1]\n")
    with pytest.raises(ValueError, match=r"Line 1 of .*probe.jsonl must"):
        read_run(folder)


def test_page__two_runs__has_all_figures_and_names_what_is_missing(run_dirs):
    runs = read_runs(run_dirs)
    figures = draw_all(runs, View())
    text = page.to_html(runs, figures, "tf-gnc analyze <a> b")
    assert text.count("<svg ") == len(figures) >= 7
    assert all(f'id="{name}"' in text for name in figures)
    assert "tf-gnc analyze &lt;a&gt; b" in text
    for loading in ("<script", "<img", "<link", "src=", "@import", "url(h"):
        assert loading not in text
    assert "#0b62c4" not in text.partition("</style>")[2]  # but --l0
    assert "Not recorded by: dpsgd." in text
    # Of the run without records nothing but its metrics can be drawn.
    figures = draw_all(runs[1:], View())
    assert list(figures) == ["fig3a_accuracy", "fig10_training_loss"]
    text = page.to_html(runs[1:], figures, "")
    absent = text.partition("Not drawn")[2]
    for name in ("fig3b_similarity", "fig4a_eigenvalues", "fig5_smoothness"):
        drawing = DRAWINGS[name]
        assert html.escape(drawing.title) in absent
        assert f"--measure={drawing.measures[0]}" in absent
    # Not asked for, and impossible with one run.
    assert DRAWINGS["fig5_runs"].title not in absent
    assert DRAWINGS["fig4bc_losses_around"].title not in absent


def test_files__of_others__are_refused_and_own_ones_replaced(
    tmp_path, run_dirs
):
    runs = read_runs(run_dirs)
    figures = draw_all(runs, View(around=[2]))
    out = tmp_path / "out"
    files = page.AnalysisFiles(out, run_dirs)
    names = files.write(figures, "page", "command")
    assert {path.name for path in out.iterdir()} == {*names, "analysis.json"}
    assert (out / "noise.png").read_bytes()[:4] == b"\x89PNG"
    files = page.AnalysisFiles(out, run_dirs[::-1])
    files.write(draw_all(runs, View()), "page", "command")
    assert not (out / "fig4bc_losses_around.png").exists()
    assert "landscape.png" in names
    before = {path: path.read_bytes() for path in out.iterdir()}
    with pytest.raises(FileExistsError, match="analysis of the same runs"):
        page.AnalysisFiles(out, run_dirs[:1])
    with pytest.raises(NotADirectoryError, match="which is a file"):
        page.AnalysisFiles(out / "noise.png", run_dirs)
    assert {path: path.read_bytes() for path in out.iterdir()} == before


def test_files__killed_at_the_very_first__are_written_at_the_next_call(
    tmp_path, run_dirs, monkeypatch
):
    out = tmp_path / "out"

    class Killed(BaseException):
        pass

    def kill(*names):
        raise Killed

    files = page.AnalysisFiles(out, run_dirs)
    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", kill)
        patch.setattr(Path, "unlink", lambda *_, **__: None)
        with pytest.raises(Killed):
            files.write({}, "page", "command")
    (out / ".unfinished-measured.jsonl").touch()  # in a run's own folder
    assert ".unfinished-analysis.json" in {p.name for p in out.iterdir()}
    page.AnalysisFiles(out, run_dirs).write({}, "page", "command")
    assert (out / "index.html").read_text() == "page"
    assert not (out / ".unfinished-analysis.json").exists()
