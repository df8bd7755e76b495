"""Finished models with the fused layer put in."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import tf_gnc
from tf_gnc.layers import BatchNormalization, fuse_batch_norm
from tf_gnc.layers.fuse import has_own_call, with_stock_batch_norm


def _functional(model_class=keras.Model):
    inputs = keras.Input((6, 6, 3))
    h = keras.layers.Conv2D(4, 3)(inputs)
    norm = keras.layers.BatchNormalization(momentum=0.5, name="norm")
    h = norm(norm(h))  # one layer, called twice
    frozen = keras.layers.BatchNormalization(trainable=False, name="frozen")
    h = keras.layers.Flatten()(frozen(h))
    return model_class(inputs, keras.layers.Dense(2)(h))


def _sequential():
    return keras.Sequential(
        [
            keras.Input((6, 6, 3)),
            keras.layers.Conv2D(4, 3),
            keras.layers.BatchNormalization(name="norm"),
            keras.layers.Flatten(),
            keras.layers.Dense(2),
        ]
    )


def _nested():
    inputs = keras.Input((6, 6, 3))
    return keras.Model(inputs, keras.layers.Dense(2)(_functional()(inputs)))


def _applications():
    return keras.applications.MobileNetV2(
        (32, 32, 3), alpha=0.35, weights=None, classes=2
    )


def _norms(model):
    return [
        layer
        for layer in model._flatten_layers()
        if isinstance(layer, keras.layers.BatchNormalization)
    ]


@pytest.mark.parametrize(
    "make",
    [
        _functional,
        lambda: _functional(tf_gnc.GNCModel),
        _sequential,
        _nested,
        _applications,
    ],
    ids=["functional", "gnc", "sequential", "nested", "applications"],
)
def test_fuse__finished_model__same_network_on_same_variables(make):
    model = make()
    fused = fuse_batch_norm(model)
    assert type(fused) is type(model)
    assert {type(n) for n in _norms(fused)} == {BatchNormalization}
    assert {type(n) for n in _norms(model)} == {keras.layers.BatchNormalization}
    assert all(
        a is b for a, b in zip(model.variables, fused.variables, strict=True)
    )
    assert [n.get_config() for n in _norms(fused)] == [
        n.get_config() for n in _norms(model)
    ]
    shape = (4, *model.input_shape[1:])
    x = np.random.default_rng(0).normal(size=shape).astype("float32")
    before = model.get_weights()
    found = []
    for network in (model, fused):
        model.set_weights(before)
        found.append([network(x, training=True), *network.get_weights()])
    for a, b in zip(*found, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4)
    back = with_stock_batch_norm(fused)
    assert {type(n) for n in _norms(back)} == {keras.layers.BatchNormalization}
    np.testing.assert_array_equal(back(x), model(x))


def test_fuse__subclassed_model__error_says_what_to_write():
    class Own(keras.Model):
        def call(self, x):
            return x

    with pytest.raises(TypeError, match="write tf_gnc.layers.BatchNorm"):
        fuse_batch_norm(Own())


def test_to_keras__of_a_fused_model__is_stock_and_loads_as_such(tmp_path):
    model = fuse_batch_norm(_functional(tf_gnc.GNCModel))
    plain = model.to_keras()
    assert {type(n) for n in _norms(plain)} == {keras.layers.BatchNormalization}
    plain.save(tmp_path / "plain.keras")
    x = tf.ones((2, 6, 6, 3))
    loaded = keras.models.load_model(tmp_path / "plain.keras")
    np.testing.assert_array_equal(loaded(x), model(x))


def test_save__fused_model__loads_with_the_layer(tmp_path):
    model = fuse_batch_norm(_functional())
    model.save(tmp_path / "fused.keras")
    loaded = keras.models.load_model(tmp_path / "fused.keras")
    assert {type(n) for n in _norms(loaded)} == {BatchNormalization}


class Doubled(tf_gnc.GNCTrainStep, keras.Sequential):
    def call(self, inputs, training=None):
        return 2 * super().call(inputs, training=training)


def test_to_keras__layers_under_a_call_of_its_own__is_refused():
    model = Doubled([keras.Input((3,)), keras.layers.Dense(2)])
    assert has_own_call(model)
    assert not has_own_call(_functional(tf_gnc.GNCModel))
    assert not has_own_call(_sequential())
    with pytest.raises(TypeError, match="Doubled"):
        fuse_batch_norm(model)
