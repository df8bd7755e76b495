"""Exchanges the batch normalizations of a finished model."""

import keras

from tf_gnc.layers.batch_normalization import BatchNormalization


def fuse_batch_norm(model: keras.Model) -> keras.Model:
    """Returns the same network with tf_gnc's batch normalization in it.

    The new model shares all other layers and every variable with `model`:
    training one trains both. Models inside the model are treated alike.
    Compile the new one; it is not compiled.

    Args:
        model: A functional or Sequential model, of `keras.applications` for
            instance, GNCModel or not. It stays as it is.

    Returns:
        A model of the same class.

    Raises:
        TypeError: If `model` has a `call` of its own: the layers it names
            are in its code. Write `tf_gnc.layers.BatchNormalization` there.

    Example:
        >>> inputs = keras.Input((8, 8, 3))
        >>> outputs = keras.layers.BatchNormalization(name="bn")(inputs)
        >>> fused = fuse_batch_norm(keras.Model(inputs, outputs))
        >>> type(fused.get_layer("bn")).__module__
        'tf_gnc.layers.batch_normalization'
    """
    return exchange(model, keras.layers.BatchNormalization, BatchNormalization)


def with_stock_batch_norm(model: keras.Model) -> keras.Model:
    """Returns the same network on Keras's own batch normalization."""
    return exchange(model, BatchNormalization, keras.layers.BatchNormalization)


def has_own_call(model: keras.Model) -> bool:
    """Tells whether a model is code of its own, no graph of layers alone."""
    is_graph = getattr(model, "inputs", None) is not None
    is_graph = is_graph or isinstance(model, keras.Sequential)
    return not (is_graph and type(model).call.__module__.startswith("keras."))


def exchange(model: keras.Model, old: type, new: type) -> keras.Model:
    """Returns the model with layers of type `new` where `old` ones were."""
    if has_own_call(model):
        raise TypeError(
            "`model` must be a functional or Sequential model, got the "
            f"subclassed model {type(model).__name__}. Its layers are made "
            f"in its own code: write tf_gnc.layers.{new.__name__} there."
        )
    return keras.models.clone_model(
        model,
        clone_function=lambda layer: (
            _on_same_variables(layer, new) if type(layer) is old else layer
        ),
        recursive=True,
    )


def _on_same_variables(
    layer: keras.layers.Layer, new: type
) -> keras.layers.Layer:
    """Returns a layer of type `new` on the variables of `layer`."""
    twin = new.from_config(layer.get_config())
    if layer.built:
        # Each weight is an attribute of the name that it is added under.
        twin.add_weight = lambda *, name, **_: getattr(layer, name)
        twin.build(layer.get_build_config()["input_shape"])
        del twin.add_weight
    return twin
