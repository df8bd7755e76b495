"""Every way in and out of `compile`, `fit`, saving and loading."""

import gc
import weakref

import keras
import numpy as np
import pytest
import tensorflow as tf

import tf_gnc
from tests import problems

M = 4
GNC = tf_gnc.GradientNoise


class SubclassedModel(tf_gnc.GNCTrainStep, keras.Model):
    """A user's own subclass, built by its first call."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.flatten = keras.layers.Flatten()
        self.norm = keras.layers.BatchNormalization()
        self.dense = keras.layers.Dense(problems.CLASSES)

    def call(self, x):  # without `training`
        return self.dense(self.norm(self.flatten(x)))


class SequentialModel(tf_gnc.GNCTrainStep, keras.Sequential):
    """A Sequential without Input, built by its first call."""


def _sequential():
    return SequentialModel(
        [
            keras.layers.Flatten(),
            keras.layers.BatchNormalization(),
            keras.layers.Dense(problems.CLASSES),
        ]
    )


def _compiled(model, **arguments):
    arguments = {"noise": GNC(alpha=1.0), "num_workers": M, **arguments}
    model.compile(problems.sgd(), problems.cross_entropy(), **arguments)
    return model


# Kinds of models and data.


@pytest.mark.parametrize(
    ("make", "replicas"), [(SubclassedModel, 2), (_sequential, 1)]
)
def test_fit__unbuilt_model__trains_as_the_built_one(make, replicas):
    x, y = problems.images()
    weights = []
    for built in (False, True):
        with problems.mirrored(replicas):
            keras.utils.set_random_seed(1)
            model = make()
            if built:
                model.build((None, *problems.SHAPE))
            _compiled(model).fit(
                x, y, batch_size=16, epochs=2, shuffle=False, verbose=0
            )
        weights.append(model.get_weights())
    assert len(weights[0]) == 6
    assert problems.largest_difference(*weights) < 1e-6


def test_fit__arrays_data_set_generator_or_batch_by_batch__same_run():
    x, y = problems.vectors(64)

    def generator():
        for _ in range(2):
            for i in range(0, 64, 16):
                yield x[i : i + 16], y[i : i + 16]

    def run(*data, **arguments):
        model = _compiled(problems.dense_network(dropout=0.3))
        model.fit(*data, epochs=2, verbose=0, **arguments)
        return model

    arrays = run(x, y, batch_size=16, shuffle=False)
    data_set = tf.data.Dataset.from_tensor_slices((x, y)).batch(16)
    others = [
        run(data_set),
        run(data_set.batch(1).unbatch()),  # of unknown size
        run(generator(), steps_per_epoch=4),
    ]
    for model in others:
        difference = problems.largest_difference(
            problems.float_weights(arrays), problems.float_weights(model)
        )
        assert difference < 1e-6
    by_batch = _compiled(problems.dense_network(dropout=0.3))
    for batch in generator():
        by_batch.train_on_batch(*batch)
    for a, b in zip(arrays.variables, by_batch.variables, strict=True):
        np.testing.assert_array_equal(a.numpy(), b.numpy())


def test_fit__validation_data_and_callbacks__as_stock_keras(tmp_path):
    x, y = problems.images(64)
    model = _compiled(problems.full_network(), metrics=["accuracy"])
    history = model.fit(
        x,
        y,
        batch_size=16,
        epochs=2,
        validation_split=0.25,
        callbacks=[keras.callbacks.CSVLogger(tmp_path / "log.csv")],
        verbose=0,
    ).history
    assert set(history) == {"loss", "accuracy", "val_loss", "val_accuracy"}
    assert len((tmp_path / "log.csv").read_text().splitlines()) == 3


def test_evaluate__after_training_with_noise__uses_the_clean_weights():
    x, y = problems.images(16)
    model, _ = problems.trained(
        problems.full_network(), x, y, noise=GNC(alpha=5.0), num_workers=M
    )
    plain = keras.models.clone_model(model.to_keras())
    plain.compile(loss=problems.cross_entropy())
    plain.set_weights(model.get_weights())
    ours = model.evaluate(x, y, verbose=0)
    assert ours == pytest.approx(plain.evaluate(x, y, verbose=0), rel=1e-6)


def test_fit__users_own_train_step__runs_as_in_stock_keras():
    class Mine(SubclassedModel):
        def train_step(self, data):
            return {"mine": tf.constant(1.0)}

    x, y = problems.images(8)
    history = _compiled(Mine()).fit(x, y, batch_size=8, verbose=0).history
    assert history == {"mine": [1.0]}


def test_fit__model_without_trainable_weights__warns_as_stock_keras():
    inputs = keras.Input((2,))
    model = tf_gnc.GNCModel(inputs, keras.layers.ReLU()(inputs))
    model.compile("sgd", "mse", num_workers=2)
    x = np.ones((4, 2), "float32")
    with pytest.warns(UserWarning, match="no trainable weights"):
        model.fit(x, x, verbose=0)


# Trainable flags.


def test_fit__layer_frozen__warns_and_trains_it_until_compiled_again():
    x, y = problems.images()
    model, _ = problems.trained(
        problems.plain_network(), x, y, noise=GNC(alpha=1.0), num_workers=M
    )
    before = model.get_weights()
    model.layers[1].trainable = False
    with pytest.warns(UserWarning, match="takes effect with the next `compile"):
        model.fit(x, y, batch_size=16, verbose=0)
    assert np.abs(before[0] - model.get_weights()[0]).max() > 1e-4
    before = model.get_weights()
    problems.trained(model, x, y, noise=GNC(alpha=1.0), num_workers=M)
    after = model.get_weights()
    np.testing.assert_array_equal(before[0], after[0])
    assert np.abs(before[2] - after[2]).max() > 1e-3
    assert problems.memory(model)[0].shape == (M, 32 * 3 + 3)


# Errors.


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"noise": 0.1}, r"noise=0.1"),
        ({"noise": GNC}, r"`noise` must be a noise rule"),
        ({"num_workers": 0}, r"num_workers=0"),
        ({"num_workers": 2.0}, r"num_workers=2.0"),
        ({"num_workers": True}, r"num_workers=True"),
    ],
)
def test_compile__bad_argument__error_shows_it(arguments, message):
    with pytest.raises(ValueError, match=message):
        problems.plain_network().compile("sgd", "mse", **arguments)


def test_compile__workers_not_a_multiple_of_replicas__error_names_both():
    with problems.mirrored(2):
        model = problems.plain_network()
        with pytest.raises(ValueError, match=r"num_workers=3 with 2 replicas"):
            model.compile("sgd", "mse", num_workers=3)
        model.compile("sgd", "mse", num_workers=4)


@pytest.mark.parametrize("policy", ["float32", "mixed_float16"])
def test_compile__gradient_accumulation__error_says_what_replaces_it(policy):
    keras.config.set_dtype_policy(policy)
    optimizer = keras.optimizers.SGD(gradient_accumulation_steps=4)
    with pytest.raises(
        ValueError, match=r"gradient_accumulation_steps=4.*num_workers=32"
    ):
        problems.plain_network().compile(optimizer, "mse", num_workers=8)


def test_compile__gradient_noise_for_one_worker__warns_that_it_does_nothing():
    with pytest.warns(UserWarning, match="does nothing with num_workers=1"):
        problems.plain_network().compile("sgd", "mse", noise=GNC(alpha=0.1))


@pytest.mark.parametrize(
    ("data", "numbers"),
    [
        (lambda x, y: {"x": x, "y": y, "batch_size": 18}, "18 rows for 4"),
        (lambda x, y: {"x": x[:30], "y": y[:30]}, "30 rows for 4"),
        (
            lambda x, y: {"x": x[:58], "y": y[:58], "batch_size": 16},
            "10 rows for 4",
        ),
        (
            lambda x, y: {
                "x": tf.data.Dataset.from_tensor_slices((x, y)).batch(
                    18, drop_remainder=True
                )
            },
            "18 rows for 4",
        ),
        (
            lambda x, y: {
                "x": x,
                "y": y,
                "batch_size": 16,
                "validation_split": 0.1,
            },
            "9 rows for 4",
        ),
    ],
)
def test_fit__batch_that_workers_cannot_share__error_before_any_step(
    data, numbers
):
    x, y = problems.images(64)
    model = _compiled(problems.plain_network())
    before = model.get_weights()
    with pytest.raises(ValueError, match=numbers):
        model.fit(**data(x, y), verbose=0)
    for a, b in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("jit_compile", [False, True])
def test_fit__uneven_batch_found_at_run_time__error_and_no_step(jit_compile):
    x = np.ones((26, 3), "float32")
    inputs = keras.Input((3,))
    model = tf_gnc.GNCModel(inputs, keras.layers.Dense(1)(inputs))
    model.compile("sgd", "mse", num_workers=M, jit_compile=jit_compile)
    data_set = tf.data.Dataset.from_tensor_slices((x, x[:, :1])).batch(8)
    with pytest.raises(ValueError, match=r"2 rows for 4.*drop_remainder=True"):
        model.fit(data_set, verbose=0)
    assert int(model.optimizer.iterations.numpy()) == 3  # 8 + 8 + 8, not 2


def test_fit__last_batch_partial_but_even__trains():
    x, y = problems.images(40)
    model = _compiled(problems.plain_network())
    model.fit(x, y, batch_size=16, verbose=0)
    assert int(model.optimizer.iterations.numpy()) == 3


# Saving and loading.


@pytest.mark.parametrize(
    "rule",
    [
        None,
        GNC(0.2, "none", False, 0.5, "bfloat16"),
        tf_gnc.RandomNoise(0.3, seed=9),
    ],
)
def test_save__keras_file__keeps_the_compile_configuration(tmp_path, rule):
    model = _compiled(problems.dense_network(), noise=rule)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert isinstance(loaded, tf_gnc.GNCModel)
    assert loaded.num_workers == M
    assert type(loaded.noise_rule) is type(rule)
    if rule is not None:
        assert loaded.noise_rule.get_config() == rule.get_config()


def test_save__after_training__keeps_weights_and_optimizer_and_goes_on(
    tmp_path,
):
    x, y = problems.images()
    model, _ = problems.trained(
        problems.full_network(), x, y, noise=GNC(alpha=0.2), num_workers=M
    )
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    # As all of Keras, the file leaves out the state of Dropout's seed.
    for a, b in zip(
        problems.float_weights(model),
        problems.float_weights(loaded),
        strict=True,
    ):
        np.testing.assert_array_equal(a, b)
    for a, b in zip(
        model.optimizer.variables, loaded.optimizer.variables, strict=True
    ):
        np.testing.assert_array_equal(a.numpy(), b.numpy())
    loaded.fit(x, y, batch_size=16, verbose=0)


def test_save__model_with_noise__holds_no_memory_of_it(tmp_path):
    sizes = {}
    for num_workers in (2, 16):
        model = _compiled(problems.full_network(), num_workers=num_workers)
        # All that a step needs is made.
        assert len(problems.memory(model)[0]) == num_workers
        model.save(tmp_path / "model.keras")
        sizes[num_workers] = (tmp_path / "model.keras").stat().st_size
    assert abs(sizes[16] - sizes[2]) < 100  # of some 1,000 bytes a worker


def test_to_keras__sequential_and_nested_inputs__same_predictions():
    x, _ = problems.images(8)
    sequential = _sequential()
    sequential.build((None, *problems.SHAPE))
    inputs = {
        "a": keras.Input((2,), name="a"),
        "b": keras.Input((2,), name="b"),
    }
    outputs = {"sum": keras.layers.Add()([inputs["a"], inputs["b"]])}
    nested = tf_gnc.GNCModel(inputs, outputs)
    data = {"a": np.ones((4, 2)), "b": np.full((4, 2), 2.0)}
    np.testing.assert_allclose(
        sequential.to_keras().predict(x, verbose=0),
        sequential.predict(x, verbose=0),
    )
    assert type(sequential.to_keras()) is keras.Sequential
    np.testing.assert_array_equal(
        nested.to_keras().predict(data, verbose=0)["sum"], np.full((4, 2), 3.0)
    )


def test_to_keras__subclassed__error_says_the_ways_out():
    with pytest.raises(TypeError, match=r"SubclassedModel.*model.export"):
        SubclassedModel().to_keras()


def test_gnc_model__without_inputs__error_says_what_to_subclass():
    class Mine(tf_gnc.GNCModel):
        def __init__(self):
            super().__init__()

    for _ in range(2):  # before a functional use, and after
        with pytest.raises(TypeError, match="class Mine.tf_gnc.GNCTrainStep"):
            Mine()
        problems.plain_network()


def test_gnc_train_step__functional_then_subclassed__both_work():
    class Functional(tf_gnc.GNCTrainStep, keras.Model):
        pass

    problems.trained(
        problems.plain_network(Functional),
        *problems.images(16),
        noise=GNC(alpha=0.1),
        num_workers=M,
    )
    model = _compiled(SubclassedModel())
    x, y = problems.images(16)
    model.fit(x, y, batch_size=16, verbose=0)
    assert model.predict(x, verbose=0).shape == (16, problems.CLASSES)


# A rule put in force between steps.


def test_noise__assigned_between_fits__old_memory_is_freed():
    x, y = problems.images()
    model, _ = problems.trained(
        problems.plain_network(), x, y, noise=GNC(alpha=1.0), num_workers=M
    )
    old = weakref.ref(model.step_plan.memory.gradients)
    model.noise_rule = tf_gnc.RandomNoise(alpha=0.1, seed=1)
    model.fit(x, y, batch_size=16, verbose=0)
    gc.collect()
    assert old() is None
    assert model.step_plan.memory is None


def test_alpha__assigned__is_the_rule_with_that_alpha():
    x, y = problems.vectors(64)

    def run(alpha, assigned=None):
        model = _compiled(problems.dense_network(), noise=GNC(alpha=alpha))
        if assigned is not None:
            model.noise_alpha = assigned
        model.fit(x, y, batch_size=16, shuffle=False, verbose=0)
        return problems.float_weights(model)

    expected = run(0.7)
    for a, b in zip(expected, run(0.1, assigned=0.7), strict=True):
        np.testing.assert_array_equal(a, b)
    assert problems.largest_difference(expected, run(0.1)) > 1e-4
    with pytest.raises(ValueError, match="noise_alpha=-1"):
        problems.full_network().noise_alpha = -1


def test_fit__under_a_strategy__makes_no_variable_once_steps_have_begun():
    # What a TPU needs. The first step's trace would be the place to be late.
    # Of all optimizers, Adam has the most variables of its own.
    x, y = problems.images(16)
    begun, made = [], []

    def note(next_creator, **kwargs):
        made.append(bool(begun))
        return next_creator(**kwargs)

    class Begin(keras.callbacks.Callback):
        def on_train_batch_begin(self, batch, logs=None):
            begun.append(batch)

    with tf.variable_creator_scope(note):
        with problems.mirrored(2):
            model = problems.full_network()
            model.compile(
                "adam",
                problems.cross_entropy(),
                metrics=["accuracy"],
                noise=tf_gnc.GradientNoise(0.1),
                num_workers=4,
            )
        model.fit(x, y, batch_size=8, verbose=0, callbacks=[Begin()])
    assert begun
    assert len(made) > 30
    assert not any(made)


@pytest.mark.parametrize(
    "layer_class",
    [keras.layers.BatchNormalization, tf_gnc.layers.BatchNormalization],
)
def test_fit__synchronized_batch_norm__is_refused_among_workers(layer_class):
    inputs = keras.Input((4,))
    h = layer_class(synchronized=True, name="sync")(inputs)
    model = tf_gnc.GNCModel(inputs, keras.layers.Dense(1)(h))
    x, y = np.ones((8, 4)), np.ones((8, 1))
    model.compile("sgd", "mse", num_workers=2)
    with pytest.raises(ValueError, match="'sync'. Each worker normalizes"):
        model.fit(x, y, verbose=0)
    model.get_layer("sync").trainable = False
    model.compile("sgd", "mse", num_workers=2)
    model.fit(x, y, verbose=0)
    model.get_layer("sync").trainable = True
    model.compile("sgd", "mse", num_workers=1)  # Keras's own step
    model.fit(x, y, verbose=0)
