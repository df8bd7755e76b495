"""Models and data of the user's own."""

import json
import sys
import textwrap

import keras
import numpy as np
import pytest
import tensorflow as tf

from tf_gnc.cli.main import main
from tf_gnc.experiments import make_config, prepare, run, train, user_code
from tf_gnc.experiments.run.building import build_model

_MODULE = """
    import keras
    import numpy as np
    import tensorflow as tf
    import tf_gnc

    rng = np.random.default_rng(0)
    x = rng.normal(size=(96, 6)).astype("float32")
    y = (x[:, 0] > 0).astype("int64") + (x[:, 1] > 0)

    def load():
        return (x[:64], y[:64]), (x[64:], y[64:, None])

    def load_datasets():
        return tuple(tf.data.Dataset.from_tensor_slices(p)
                     for p in ((x[:64], y[:64]), (x[64:], y[64:])))

    def layers(activation=None):
        return [keras.Input((6,)), keras.layers.Dense(8, "relu"),
                keras.layers.Dense(3, activation)]

    def build():
        return keras.Sequential(layers())

    def with_softmax():
        return keras.Sequential(layers("softmax"))

    def compiled():
        model = build()
        model.compile(keras.optimizers.Adam(0.02),
                      keras.losses.SparseCategoricalCrossentropy(True))
        return model

    class Mine(tf_gnc.GNCTrainStep, keras.Sequential):
        pass

    def mixed_in():
        return Mine(layers())

    class Bare(keras.Model):
        def call(self, x):
            return x

    def subclassed():
        return Bare()

    def nothing():
        return None

    def floats():
        return (x, y.astype("float32")), (x, y)

    def one_hot():
        return (x, np.eye(3)[y].astype("int64")), (x, y)

    def unequal():
        return (x[:5], y), (x, y)

    def endless():
        data, test = load_datasets()
        return data.repeat(), test

    def broken():
        raise RuntimeError("a fault of its own")

    def rule():
        return tf_gnc.RandomNoise(0.5, seed=3)

    number = 3

    def my_loss(y_true, y_pred):
        return keras.losses.sparse_categorical_crossentropy(
            y_true, y_pred, from_logits=True)

    def shared():
        model = build()
        each = keras.optimizers.OptimizerMap(keras.optimizers.SGD(0.1))
        model.compile(keras.optimizers.MultiOptimizer(each), my_loss)
        return model

    def own_loss():
        model = build()
        model.compile("sgd", my_loss)
        return model

    def few_outputs():
        return keras.Sequential([keras.Input((6,)), keras.layers.Dense(2)])

    def other_input():
        return keras.Sequential([keras.Input((5,)), keras.layers.Dense(3)])

    def two_inputs():
        a, b = keras.Input((6,)), keras.Input((6,))
        return keras.Model([a, b], keras.layers.Dense(3)(a + b))

    def with_argument(x):
        return build()
"""


@pytest.fixture
def mine(tmp_path, monkeypatch):
    """The name of a module of the user's in the current directory."""
    name = f"mine_{tmp_path.name.replace('-', '_')}"
    (tmp_path / f"{name}.py").write_text(textwrap.dedent(_MODULE))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield name
    sys.modules.pop(name, None)


def _config(mine, model="build", data="load", **chosen):
    chosen = {"batch_size": 16, "num_workers": 4, "epochs": 2, **chosen}
    return make_config(f"{mine}:{data}", model=f"{mine}:{model}", **chosen)


@pytest.mark.parametrize(
    "model", ["build", "with_softmax", "compiled", "mixed_in", "own_loss"]
)
def test_run__own_model_and_data__learns(mine, tmp_path, model):
    config = _config(
        mine, model, epochs=20, weight_decay=0.0, learning_rate=0.2
    )
    summary = run(config, tmp_path / "run")
    assert summary.val_accuracy > 0.8  # a guess hits half


def test_run__own_optimizer__is_the_models(mine, tmp_path):
    config = _config(mine, "compiled", optimizer="model")
    prepared = prepare(config, tmp_path / "run")
    train(prepared)
    lines = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    rates = [json.loads(line)["learning_rate"] for line in lines]
    assert rates == pytest.approx([0.02, 0.02])
    assert isinstance(prepared.model.optimizer, keras.optimizers.Adam)


def test_run__own_optimizer_without_a_rate__notes_none(mine, tmp_path):
    config = _config(mine, "shared", optimizer="model", method="sam")
    run(config, tmp_path / "run")
    lines = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["learning_rate"] for line in lines] == [None, None]


def test_build_model__last_layer__decides_what_the_loss_expects(mine):
    losses = [
        build_model(_config(mine, model), 0.1).loss
        for model in ("build", "with_softmax")
    ]
    assert [loss.from_logits for loss in losses] == [True, False]


@pytest.mark.parametrize("data", ["load", "load_datasets"])
def test_own_data__an_epoch__is_each_example_once(mine, data):
    source = user_code.load_data(f"{mine}:{data}")
    assert (source.num_train, source.num_classes) == (64, 3)
    assert source.input_shape == (6,)
    batches = source.training(batch_size=16, seed=1).take(8)
    seen = np.concatenate([x for x, _ in batches.as_numpy_iterator()])
    want = np.sort(source.train[0], axis=0)
    np.testing.assert_array_equal(np.sort(seen[:64], axis=0), want)
    np.testing.assert_array_equal(np.sort(seen[64:], axis=0), want)
    assert (seen[:64] != seen[64:]).any()
    late = source.training(batch_size=16, seed=1, rows=(4, 8), first_step=6)
    x, y = next(late.as_numpy_iterator())
    np.testing.assert_array_equal(x, seen[6 * 16 + 4 : 6 * 16 + 8])
    truth = (x[:, 0] > 0).astype(int) + (x[:, 1] > 0)
    np.testing.assert_array_equal(y, truth)
    assert sum(len(y) for _, y in source.evaluation()) == 32


@pytest.mark.parametrize(
    ("model", "data", "message"),
    [
        ("subclassed", "load", "mixes in tf_gnc.GNCTrainStep, got a Bare"),
        ("nothing", "load", "must return a keras.Model .*got None"),
        ("build", "nothing", r"must return \(\(x_train.*got None"),
        ("build", "floats", "whole numbers from 0 as labels.*float32"),
        ("build", "one_hot", "argmax"),
        ("build", "unequal", "got 5 and 96"),
        ("build", "endless", "Leave out `repeat`"),
        ("build", "missing", "must have a function 'missing', got None"),
        ("number", "load", "must have a function 'number', got a int"),
        ("few_outputs", "load", r"3 or more, got outputs of shape \(2,\)"),
        ("other_input", "load", r"of shape \(6,\), .* got \(5,\)"),
        ("two_inputs", "load", r"got \(6,\) and \(6,\)"),
        ("with_argument", "load", "must be a function without arguments"),
    ],
)
def test_run__own_function_gives_something_else__says_what(
    mine, tmp_path, model, data, message
):
    with pytest.raises(ValueError, match=message):
        run(_config(mine, model, data), tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("no_such_module:load", "There is no module 'no_such_module'"),
        ("a:b:c", "must be module:function"),
        (":load", "must be module:function"),
        ("mine.py:", "must be module:function"),
        ("wrong_syntax:load", "can't be imported: SyntaxError"),
    ],
)
def test_make_config__no_such_function__says_so(
    tmp_path, monkeypatch, name, message
):
    (tmp_path / "wrong_syntax.py").write_text("def (:")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    with pytest.raises(ValueError, match=message):
        run(make_config(name, model="resnet8"), tmp_path / "run")


def test_make_config__own_data_without_a_model__asks_for_one():
    with pytest.raises(
        ValueError, match="`model` .* must be chosen with mine:load"
    ):
        make_config("mine:load")


def test_make_config__model_optimizer_for_our_network__is_refused():
    with pytest.raises(ValueError, match="optimizer='model'"):
        make_config(optimizer="model")


def test_run__uncompiled_model_with_its_own_optimizer__is_refused(
    mine, tmp_path
):
    with pytest.raises(ValueError, match="must return a compiled model"):
        run(_config(mine, optimizer="model"), tmp_path / "run")


def test_train__own_functions__from_the_command_line(mine, tmp_path, capfd):
    flags = [
        f"--data_fn={mine}:load", f"--model_fn={mine}:build", "--workers=2",
        "--batch_size=32", "--epochs=1", f"--run_dir={tmp_path / 'run'}",
    ]  # fmt: skip
    assert main(["train", *flags]) == 0, capfd.readouterr().err
    assert (tmp_path / "run" / "summary.json").exists()


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--data_fn=a:b", "--dataset=digits"], "--data_fn replaces --dataset"),
        (["--model_fn=mymodel"], "must be module:function"),
    ],
)
def test_train__flags_that_contradict__are_refused(flags, message, capfd):
    assert main(["train", *flags]) == 2
    assert message in capfd.readouterr().err


def test_train__fault_in_the_users_function__is_named(mine, tmp_path, capfd):
    with pytest.raises(ValueError, match="RuntimeError: a fault of its own"):
        run(_config(mine, "broken"), tmp_path / "run")
    flags = [f"--data_fn={mine}:load", f"--model_fn={mine}:broken"]
    flags += ["--batch_size=32", f"--run_dir={tmp_path / 'run'}"]
    assert main(["train", *flags]) == 2
    assert capfd.readouterr().err.count("\n") == 1
    assert main(["train", *flags, "--verbose"]) == 2
    assert "Traceback" in capfd.readouterr().err


def test_compare__own_functions__gives_a_table(mine, tmp_path, capfd):
    code = main(
        [
            "compare",
            f"--data_fn={mine}:load", f"--model_fn={mine}:compiled",
            "--workers=2", "--batch_size=32", "--epochs=1", "--seeds=1",
            f"--methods=dpsgd,{mine}:rule", f"--out_dir={tmp_path / 'out'}",
            "--optimizer=model", "--jobs=2",
        ]
    )  # fmt: skip
    assert code == 0, capfd.readouterr().err
    table = (tmp_path / "out" / "table.txt").read_text()
    assert f"{mine}:rule" in table and "%" in table
    assert f"{mine}:rule" in (tmp_path / "out" / "report.html").read_text()
    run_dir = tmp_path / "out" / "runs" / f"{mine}-rule-seed0"
    assert (run_dir / "summary.json").exists()


def test_smoothed_loss__by_hand__and_in_a_saved_model(tmp_path):
    model = build_model(make_config(label_smoothing=0.1), 0.1)
    logits = np.log([[0.7, 0.2, 0.1]]).astype("float32")
    got = float(model.loss(np.array([0]), tf.constant(logits)))
    target = np.array([0.9, 0, 0]) + 0.1 / 3
    assert got == pytest.approx(-(target * np.log([0.7, 0.2, 0.1])).sum())
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert loaded.loss.smoothing == 0.1


def test_run__lars_bfloat16_polynomial__reaches_the_model(tmp_path, digits_dir):
    config = make_config(
        data_dir=digits_dir, batch_size=512, num_workers=4, epochs=1,
        model="tests.problems:digits_network", optimizer="lars",
        lars_variant="mlperf", dtype="mixed_bfloat16", schedule="polynomial",
        collapse_epoch=1, weight_decay=0.01,
    )  # fmt: skip
    prepared = prepare(config, tmp_path / "run")
    train(prepared)
    optimizer = prepared.model.optimizer
    assert optimizer.get_config()["variant"] == "mlperf"
    model = keras.saving.load_model(tmp_path / "run" / "model.keras")
    assert model.layers[1].compute_dtype == "bfloat16"
    assert keras.config.dtype_policy().name == "float32"


def test_build_model__without_batch_norm__has_none_of_it():
    model = build_model(make_config(batch_norm=False), 0.1)
    kinds = {type(layer).__name__ for layer in model.layers}
    assert "BatchNormalization" not in kinds
    assert all(
        layer.use_bias
        for layer in model.layers
        if isinstance(layer, keras.layers.Conv2D)
    )


@pytest.mark.parametrize(
    ("chosen", "message"),
    [
        ({"decay_steps": 5}, "schedule='polynomial' only"),
        ({"collapse_epoch": 5}, "schedule='polynomial' only"),
        ({"image_size": 32}, "dataset='imagenet2012' only"),
        ({"model": "resnet50", "batch_norm": False}, "`batch_norm` does"),
    ],
)
def test_make_config__a_setting_that_does_nothing__is_refused(chosen, message):
    with pytest.raises(ValueError, match=message):
        make_config(**chosen)
