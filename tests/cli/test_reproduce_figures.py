"""`tf-gnc reproduce fig3` to `fig11`: runs, what they record, what is drawn."""

import json
import re

import keras
import numpy as np
import pytest

from tests import imagenet_files
from tests.cli import in_this_process
from tf_gnc import data
from tf_gnc.cli.main import main
from tf_gnc.experiments.figures.registry import DRAWINGS
from tf_gnc.experiments.recipes import RECIPES
from tf_gnc.experiments.recipes.figures import FIGURES, whole_epochs
from tf_gnc.experiments.recipes.paper import TABLE_7
from tf_gnc.models import MODELS


def _small(num_classes, input_shape, *, model_class, batch_norm=True):
    """A network that is quickly traced."""
    inputs = keras.Input(input_shape)
    h = keras.layers.Conv2D(4, 3, strides=4, name="conv")(inputs)
    h = keras.layers.GlobalAveragePooling2D()(h)
    outputs = keras.layers.Dense(num_classes, name="out")(h)
    return model_class(inputs, outputs)


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    settings = data.DATASETS["cifar100"]
    rng = np.random.default_rng(0)
    pictures = rng.integers(0, 256, (24, 32, 32, 3), np.uint8)
    labels = rng.integers(0, 100, 24)
    folder = tmp_path_factory.mktemp("imagenet")
    return {
        "imagenet2012": imagenet_files.load(folder),
        "cifar100": data.Images(
            pictures, labels, pictures, labels, 100, settings.preprocess
        ),
    }


@pytest.fixture
def quick(monkeypatch, sources):
    """Made-up pictures, a small network, and no processes to wait for."""
    monkeypatch.setitem(MODELS, "resnet8", _small)
    monkeypatch.setattr(data, "load", lambda name, *_: sources[name])
    in_this_process.use(monkeypatch)


def _rows(run_dir):
    lines = (run_dir / "probe.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


@pytest.mark.parametrize(
    ("figure", "row", "methods"),
    [
        ("fig3", "cifar100-8192", ["dpsgd", "gnc"]),
        ("fig4", "cifar100-8192", ["gnc", "rnc"]),
        ("fig5", "cifar100-8192", ["dpsgd", "gnc"]),
        ("fig7", "cifar100-8192-wd", ["dpsgd", "gnc"]),
        ("fig8", "imagenet-32768", ["gnc", "rnc"]),
        ("fig9", "cifar100-8192-mm", ["dpsgd", "gnc"]),
        ("fig10", "imagenet-131072", ["dpsgd", "gnc"]),
        ("fig11", "cifar100-4096", ["dpsgd", "gnc"]),
    ],
)
def test_figure__debug__runs_what_it_needs_and_is_drawn(
    figure, row, methods, quick, tmp_path, capfd, monkeypatch
):
    out = tmp_path / "out"
    command = [
        "reproduce", figure, f"--rows={row}", "--scale=debug",
        "--model=resnet8", f"--out_dir={out}",
    ]  # fmt: skip
    assert main(command) == 0, capfd.readouterr().err
    part = next(part for part in FIGURES[figure] if row in part.rows)
    drawn = {path.name for path in (out / "figures" / row).glob("*.png")}
    assert drawn == {f"{name}.png" for name in part.drawings}
    runs = {path.name for path in (out / row / "runs").iterdir()}
    assert runs == {f"{method}-seed0" for method in methods}
    for name in runs:
        rows = _rows(out / row / "runs" / name)
        assert {m for r in rows for m in r if m in part.measures} == set(
            part.measures
        )
        for found in rows:
            if "sharpness" in found:
                assert found["sharpness"]["rows"] == "all"
    # Once more: nothing is trained again, and it is drawn anew.
    monkeypatch.setattr(
        in_this_process.InThisProcess,
        "run",
        lambda self, names: names and 1 / 0,
    )
    assert main(command) == 0, capfd.readouterr().err


def test_fig4__other_epochs_and_measures__are_recorded_and_drawn(
    quick, tmp_path, capfd
):
    command = [
        "reproduce", "fig4", "--scale=debug", "--model=resnet8",
        "--probe=noise_norm", f"--out_dir={tmp_path}",
    ]  # fmt: skip
    assert main([*command, "--probe_around=9"]) == 2
    assert "got probe_around=9 with epochs=2" in capfd.readouterr().err
    assert main([*command, "--probe_around=1"]) == 0, capfd.readouterr().err
    rows = _rows(tmp_path / "cifar100-8192" / "runs" / "gnc-seed0")
    measured = [row["step"] for row in rows if "sharpness" in row]
    assert measured == [1, 2, 3, 4]
    assert [row["step"] for row in rows if "noise_norm" in row] == [2, 4]


def test_fig3__three_batch_sizes__are_drawn_together(quick, tmp_path, capfd):
    command = [
        "reproduce", "fig3", "--rows=simple-2048,simple-8192",
        "--scale=debug", f"--out_dir={tmp_path / 'out'}",
    ]  # fmt: skip
    assert main(command) == 0, capfd.readouterr().err
    folder = tmp_path / "out" / "figures" / "simple-2048+simple-8192"
    assert (folder / "fig3b_similarity.png").exists()
    page = (folder / "index.html").read_text()
    assert page.count("<h2 id=") == 1


def test_figures__of_the_paper__have_drawings_recipes_and_epochs():
    assert list(FIGURES) == [f"fig{n}" for n in (3, 4, 5, 7, 8, 9, 10, 11)]
    for name, parts in FIGURES.items():
        for part in parts:
            assert set(part.drawings) <= set(DRAWINGS)
            assert set(part.rows) <= set(RECIPES)
            number = name.removeprefix("fig")
            for drawing in part.drawings:
                title = DRAWINGS[drawing].title.partition(":")[0]
                numbers = title.replace("Fig.", "").replace(",", " ").split()
                assert number in {n.partition("(")[0] for n in numbers}
    (part,) = FIGURES["fig4"]
    assert part.around_in(RECIPES["cifar100-8192"].plan()) == [10, 140]
    half = RECIPES["cifar100-8192"].plan(scale=0.5)
    assert part.around_in(half) == [5, 70]
    # 10 and 140 of 160 epochs, at the same share of the digits' run.
    digits = part.of("digits")
    epochs = whole_epochs("digits")
    assert digits.around == [epochs / 16, epochs * 7 / 8]
    assert digits.around_in(RECIPES["digits"].plan()) == digits.around


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["fig3", "--rows=digits"], "--rows must be some of cifar100-8192"),
        (["fig3", "--recipe=digit"], "got recipe='digit'"),
        (["table2", "--recipe=digits"], "with table2. Choose rows"),
        (["fig6"], "table7, fig3, fig4, .*got 'fig6'"),
        (["fig3", "--probe=loudness"], "got probe='loudness'"),
        (["table2", "--probe_around=3"], "needs it, got probe_around"),
        (["fig4", "--probe_around=x"], "--probe_around must be epochs"),
        (["fig5", "--methods=gnc"], "compares 2 runs or more, got 1"),
        (["table7", "--rows=digits"], "takes --out_dir alone, got --rows"),
    ],
)
def test_figure__bad_command__one_line_and_nothing_left(
    words, message, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    assert main(["reproduce", *words]) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert re.search(message, err)
    assert list(tmp_path.iterdir()) == []


def test_table7__no_run_of_ours__says_so_beside_the_published(tmp_path, capsys):
    assert main(["reproduce", "table7", f"--out_dir={tmp_path}"]) == 0
    out = capsys.readouterr().out
    for who, _, batch_size, accuracy in TABLE_7:
        (line,) = [line for line in out.splitlines() if line.startswith(who)]
        assert f"{batch_size:,}" in line and f"{accuracy:g}" in line
    assert "not run here" in out
    assert "tf-gnc reproduce table2 --rows=imagenet-32768" in out


def test_table7__runs_of_ours__the_best_after_the_last_epoch(tmp_path, capsys):
    """Of the recipe's GNC alone, whatever else was run there."""
    recipe = RECIPES["imagenet-32768"]
    runs = [
        (recipe.config("gnc", 0), 0.7512),
        (recipe.config("gnc", 1), 0.7534),
        (recipe.config("gnc", 2, epochs=100), 0.77),
        (recipe.config("dpsgd", 3), 0.78),
    ]
    for config, accuracy in runs:
        folder = tmp_path / "imagenet-32768" / "runs" / f"seed{config.seed}"
        folder.mkdir(parents=True)
        content = {"val_accuracy": accuracy, "best_val_accuracy": 0.9}
        (folder / "summary.json").write_text(json.dumps(content))
        about = {"config": config.to_dict()}
        (folder / "config.json").write_text(json.dumps(about))
    assert main(["reproduce", "table7", f"--out_dir={tmp_path}"]) == 0
    out = capsys.readouterr().out
    assert "75.34" in out and "best of 2" in out and "not run" not in out


def test_comparison__taken_up_with_other_measures__is_refused(
    quick, tmp_path, capfd
):
    command = [
        "reproduce", "table2", "--rows=cifar100-8192", "--methods=gnc",
        "--scale=debug", "--model=resnet8",
        f"--out_dir={tmp_path / 'out'}",
    ]  # fmt: skip
    assert main([*command, "--probe=noise_norm"]) == 0, capfd.readouterr().err
    run_dir = tmp_path / "out" / "cifar100-8192" / "runs" / "gnc-seed0"
    assert [row["step"] for row in _rows(run_dir)] == [2, 4]
    assert main(command) == 2
    assert "got probe=[] where" in capfd.readouterr().err
