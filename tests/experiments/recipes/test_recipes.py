"""The paper's numbers by another road, and a step of every recipe."""

import dataclasses
import math
import statistics
from types import SimpleNamespace

import keras
import numpy as np
import pytest

from tests import imagenet_files, problems
from tf_gnc import data, schedules
from tf_gnc.experiments.methods.registry import METHODS
from tf_gnc.experiments.recipes import RECIPES, TABLES, paper
from tf_gnc.experiments.run.building import (
    build_datasets,
    build_model,
    learning_rates,
    updates_of,
)

EVERY_RECIPE = pytest.mark.parametrize("name", RECIPES)


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    """Made-up pictures for each data set."""
    rng = np.random.default_rng(0)
    found = {
        "imagenet2012": imagenet_files.load(tmp_path_factory.mktemp("imagenet"))
    }
    for name in ("digits", "cifar10", "cifar100"):
        settings = data.DATASETS[name]
        pictures = rng.integers(0, 256, (16, *settings.input_shape), np.uint8)
        labels = rng.integers(0, settings.num_classes, 16)
        found[name] = data.Images(
            pictures,
            labels,
            pictures,
            labels,
            settings.num_classes,
            settings.preprocess,
        )
    return found


# What recipes may differ in and still take the same kind of step: coefficients,
# rates, and how pictures are drawn, which each recipe's own test looks at.
NUMBERS = {
    "augment", "collapse_epoch", "decay_steps", "erasing", "learning_rate",
    "momentum", "schedule", "seed", "start_rate", "warmup", "weight_decay",
}  # fmt: skip


def _debug_config(name):
    recipe = RECIPES[name].debug()
    return recipe.config(recipe.methods[-1])


def _kind(config):
    """What decides which step a run takes; one string for all of a kind."""
    fields = config.to_dict()
    kind = {n: v for n, v in fields.items() if n not in NUMBERS}
    kind["signs"] = [bool(config.momentum), bool(config.weight_decay)]
    for coefficient in ("alpha", "alpha_rnc"):
        if kind.get(coefficient):
            kind[coefficient] = "positive"
    return repr(kind)


KINDS = {_kind(_debug_config(name)): name for name in RECIPES}


def _source(config, sources):
    source = sources[config.dataset]
    if config.image_size:
        source = imagenet_files.resized(source, config.image_size)
    return source


@pytest.mark.parametrize("name", KINDS.values())
def test_recipe__debug_of_each_kind__takes_a_step(name, sources):
    config = _debug_config(name)
    source = _source(config, sources)
    keras.utils.set_random_seed(0)
    model = build_model(
        config, learning_rates(config, problems.updates(config, 2)), source
    )
    model.run_eagerly = True  # A ResNet-50 takes its time to be traced.
    before = [v.numpy() for v in model.trainable_variables]
    training, _ = build_datasets(config, source)
    model.fit(training, epochs=1, steps_per_epoch=1, verbose=0)
    after = [v.numpy() for v in model.trainable_variables]
    moved = [(a != b).any() for a, b in zip(after, before, strict=True)]
    assert any(moved)
    assert all(np.isfinite(a).all() for a in after)


@EVERY_RECIPE
def test_recipe__debug__reaches_the_model_and_the_data(name, sources):
    config = _debug_config(name)
    source = _source(config, sources)
    rates = learning_rates(config, problems.updates(config, 2))
    # The network is its kind's affair; a small one is quickly built.
    small = dataclasses.replace(config, model="resnet8")
    model = build_model(small, rates, source)
    assert float(rates(0)) >= 0 and float(rates(1)) > 0
    settings = model.optimizer.get_config()
    assert settings["momentum"] == config.momentum
    assert settings["weight_decay"] == config.weight_decay
    assert model.step_plan.rule == config.noise().first
    assert model.step_plan.num_workers == config.num_workers == 4
    training, test = build_datasets(config, source)
    size = config.image_size
    shape = (size, size, 3) if size else source.input_shape
    batch = next(training.as_numpy_iterator())
    assert len(batch[0]) == config.batch_size
    for pictures, labels in (batch, next(test.as_numpy_iterator())):
        assert pictures.shape[1:] == shape
        assert np.isfinite(pictures).all()
        assert labels.max() < source.num_classes


@EVERY_RECIPE
def test_recipe__header__says_what_one_needs_to_know(name):
    recipe = RECIPES[name]
    text = recipe.header()
    assert recipe.command in text
    for word in ("Source:", "Cost:", "Seen here:"):
        assert word in text
    for value in recipe.published.values():
        assert str(value) in text.replace("\n              ", " ")
    assert all(len(line) <= 78 for line in text.splitlines())
    assert name in TABLES[recipe.table]


@pytest.mark.parametrize(
    ("name", "workers", "rate", "alphas"),
    [
        # Tables 3, 4 and 5: RNC, GNC, then GNC and RNC of GNCtoRNC.
        ("imagenet-32768", 1024, 23.0, (0.01, 0.0001, 0.01, 0.01)),
        ("imagenet-131072", 4096, 42.0, (0.01, 0.0001, 0.01, 0.01)),
        ("cifar10-4096", 128, 3.2, (0.01, 0.1, 0.1, 4.0)),
        ("cifar10-8192", 256, 6.4, (0.01, 0.1, 0.1, 2.0)),
        ("cifar100-4096", 128, 3.2, (0.001, 0.1, 0.1, 2.0)),
        ("cifar100-8192", 256, 6.4, (0.01, 0.1, 0.1, 4.0)),
    ],
)
def test_recipe__of_table_2__has_the_settings_of_tables_3_to_5(
    name, workers, rate, alphas
):
    configs = {m: RECIPES[name].config(m) for m in RECIPES[name].methods}
    for config in configs.values():
        assert (config.num_workers, config.examples_per_worker) == (workers, 32)
        assert (config.learning_rate, config.weight_decay) == (rate, 1e-4)
        assert config.momentum == 0.9
        imagenet = config.dataset == "imagenet2012"
        assert config.optimizer == ("lars" if imagenet else "momentum")
        assert config.epochs == (90 if imagenet else 160)
        assert config.model == ("resnet50" if imagenet else "resnet32")
    switching = configs["gnc_to_rnc"].settings
    assert switching["switch_epoch"] == (80 if imagenet else 120)
    found = (
        configs["rnc"].settings["alpha"], configs["gnc"].settings["alpha"],
        switching["alpha"], switching["alpha_rnc"],
    )  # fmt: skip
    assert found == alphas


@pytest.mark.parametrize(
    ("names", "total", "switch", "decays"),
    [
        (["imagenet-32768"], 3_518, 3_127, [3_127]),
        (["imagenet-131072"], 879, 781, [781]),
        (["cifar10-4096", "cifar100-4096"], 1_953, 1_464, [976, 1_464]),
        (["cifar10-8192", "cifar100-8192"], 976, 732, [488, 732]),
        (TABLES["table1"][:5], 1_953, None, [976, 1_464]),
        (TABLES["table1"][5:], 976, None, [488, 732]),
        (["simple-2048"], 3_906, None, [1_953, 2_929]),
        (["simple-8192"], 976, None, [488, 732]),
    ],
)
def test_recipe__of_the_paper__has_all_its_updates(
    names, total, switch, decays
):
    """By hand: epochs x examples / batch, rounded down."""
    for name in names:
        config = RECIPES[name].config(RECIPES[name].methods[-1])
        imagenet = config.dataset == "imagenet2012"
        images = SimpleNamespace(num_train=1_281_167 if imagenet else 50_000)
        updates = updates_of(config, images)
        assert updates.before(config.epochs) == total
        epoch = config.settings.get("switch_epoch")
        assert (epoch and updates.before(epoch)) == switch
        rates = learning_rates(config, updates)(range(total)).numpy()
        falls = np.flatnonzero(rates[1:] < 0.5 * rates[:-1]) + 1
        assert falls.tolist() == decays


@pytest.mark.parametrize("name", TABLES["table2"])
def test_published__table_6__has_the_means_and_deviations_of_table_2(name):
    for method, found in RECIPES[name].published.items():
        assert len(found.runs) == 5, method
        # Both are printed to two digits, as are the runs.
        assert statistics.mean(found.runs) == pytest.approx(
            found.mean, abs=0.0101
        )
        assert statistics.stdev(found.runs) == pytest.approx(
            found.std, abs=0.0151
        )


def test_published__full_ablation__is_the_cell_of_table_2():
    for batch_size in (4096, 8192):
        whole = RECIPES[f"cifar100-{batch_size}"].published
        full = RECIPES[f"cifar100-{batch_size}-full"].published
        for method, found in full.items():
            assert str(found) == str(whole[method])


@pytest.mark.parametrize("batch_size", [4096, 8192])
def test_recipe__full_ablation__is_the_recipe_of_table_2(batch_size):
    full = RECIPES[f"cifar100-{batch_size}-full"]
    for method in full.methods:
        want = RECIPES[f"cifar100-{batch_size}"].config(method)
        assert full.config(method) == want


@pytest.mark.parametrize(
    ("technique", "values"),
    [
        ("baseline", (0.0, 0.0, False)),
        ("wd", (1e-4, 0.0, False)),
        ("mm", (0.0, 0.9, False)),
        ("da", (0.0, 0.0, True)),
        ("full", (1e-4, 0.9, True)),
    ],
)
def test_recipe__of_table_1__has_its_technique_alone(technique, values):
    config = RECIPES[f"cifar100-8192-{technique}"].config("gnc")
    found = (config.weight_decay, config.momentum, config.augment)
    assert found == values
    assert config.batch_norm


@pytest.mark.parametrize("batch_size", [2048, 4096, 8192])
def test_recipe__of_fig_3c__has_the_rates_of_its_own(batch_size):
    config = RECIPES[f"simple-{batch_size}"].config("dpsgd")
    assert not config.batch_norm
    assert (config.weight_decay, config.momentum) == (0.0, 0.0)
    steps = 50_000 // batch_size
    ours = learning_rates(config, problems.updates(config, steps))
    paper = schedules.cifar_schedule(batch_size, steps, base_rate=0.001)
    for step in range(0, 160 * steps, steps):
        assert float(ours(step)) == pytest.approx(float(paper(step)), rel=1e-6)


@pytest.mark.parametrize("name", TABLES["mlperf"])
def test_recipe__of_mlperf__rates_climb_to_their_peak_and_stay_above_zero(name):
    config = RECIPES[name].config("dpsgd")
    steps = 1_281_167 // config.batch_size
    rates = learning_rates(config, problems.updates(config, steps))
    # At the end of each epoch, the last step included.
    curve = [float(rates(step * steps - 1)) for step in range(1, config.epochs)]
    warm_up = round(config.warmup * config.epochs)
    assert config.collapse_epoch == 0
    assert float(rates(0)) == 0
    after = (config.epochs * steps * 0.95) - warm_up * steps
    share = 1 - int(after) / config.decay_steps
    assert float(rates(warm_up * steps + int(after))) == pytest.approx(
        config.learning_rate * share**2, rel=1e-5
    )
    assert float(rates(warm_up * steps)) == pytest.approx(config.learning_rate)
    assert int(np.argmax(curve)) + 1 in (warm_up, warm_up + 1)
    assert min(curve) > 0 < float(rates(config.epochs * steps - 1))
    # Runs came to 75.9 % before the rate had all but gone.
    last = int(RECIPES[name].published_note.split()[-2])
    assert last <= config.epochs


# Whole updates in the row's epochs, and in those of its warm-up.
@pytest.mark.parametrize(
    ("name", "train_steps", "warm_up"),
    [
        ("mlperf-1632", 29_046, 1_570),
        ("mlperf-4096", 14_700, 1_563),
        ("mlperf-8192", 6_881, 781),
        ("mlperf-13056", 5_593, 883),
        ("mlperf-32768", 2_893, 625),
        ("mlperf-49152", 2_476, 625),
        ("mlperf-65536", 1_739, 606),
    ],
)
def test_recipe__of_mlperf__decays_as_its_reference_counts(
    name, train_steps, warm_up
):
    """decay_steps = train_steps - warmup_steps + 1, from the warm-up's end."""
    config = RECIPES[name].config("dpsgd")
    assert config.decay_steps == train_steps - warm_up + 1
    updates = data.Updates(1_281_167, config.batch_size, carry=True)
    assert updates.before(config.epochs) == train_steps
    rates, peak = learning_rates(config, updates), config.learning_rate
    for step, share in (
        (warm_up // 2, (warm_up // 2) / warm_up),
        (warm_up, 1),
        (warm_up + 100, (1 - 100 / (train_steps - warm_up + 1)) ** 2),
        (train_steps - 1, (2 / (train_steps - warm_up + 1)) ** 2),
    ):
        assert float(rates(step)) == pytest.approx(peak * share, rel=1e-5)


@pytest.mark.parametrize("name", ["cifar10-8192", "imagenet-32768"])
def test_plan__scaled__keeps_the_places_of_decay_and_switch(name):
    recipe = RECIPES[name]
    whole = recipe.config("gnc_to_rnc")
    plan = recipe.plan(["gnc_to_rnc"], [0], scale=0.1)
    short = plan.runs[0]
    assert short.epochs == math.ceil(whole.epochs / 10)
    assert (
        short.settings["switch_epoch"] * whole.epochs
        == whole.settings["switch_epoch"] * short.epochs
    )
    assert short.num_workers == whole.num_workers
    ours, theirs = (
        learning_rates(c, problems.updates(c, 100)) for c in (short, whole)
    )
    for share in (0.0, 0.02, 0.5, 0.9):
        assert float(ours(int(share * short.epochs * 100))) == pytest.approx(
            float(theirs(int(share * whole.epochs * 100))), rel=0.02
        )
    assert any("was not the recipe" in note for note in plan.notes)
    assert not any("was not" in n for n in recipe.plan(seeds=[0]).notes)


def test_plan__other_settings__says_that_it_is_another_experiment():
    recipe = RECIPES["cifar10-8192"]
    same = recipe.plan(data_dir="elsewhere")
    other = recipe.plan(model="resnet8")
    assert not any("was not the recipe" in note for note in same.notes)
    assert any("was not the recipe" in note for note in other.notes)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"methods": ["sgd"]}, "got methods='sgd'"),
        ({"scale": 0.0}, "`scale`"),
        ({"scale": 2.0}, "`scale`"),
    ],
)
def test_plan__illegal_value__is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        RECIPES["cifar10-8192"].plan(**arguments)


def test_recipes__a_fifth_method__are_still_the_papers_four(monkeypatch):
    monkeypatch.setitem(METHODS, "fifth", METHODS["gnc"])
    assert [len(r.published) for r in paper.table_2()] == [4] * 6
