"""The user's own model, data and noise rule, named as "module:function".

The functions take no arguments. `module` is found as `import` would find it,
in the current directory too. What can't be used raises a ValueError that names
the function.
"""

import importlib
import os
import re
import sys
from collections.abc import Callable, Iterable
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tf_gnc import _check
from tf_gnc.data import OwnData, Source
from tf_gnc.noise import NoiseRule
from tf_gnc.step.train_step import GNCModel, GNCTrainStep


def is_own(name: Any) -> bool:
    """Tells a function of the user's from a name of ours."""
    return isinstance(name, str) and ":" in name


def check_own(argument: str, name: str) -> str:
    """Returns the name of a function; raises a ValueError if it can't be."""
    if not re.fullmatch(r"[^\W\d]\w*(\.\w+)*:[^\W\d]\w*", name):
        raise ValueError(
            f"`{argument}` must be module:function, as in mymodel:build, got "
            f"{argument}={name!r}."
        )
    return name


def choice_or_own(argument: str, value: str, choices: Iterable[str]) -> str:
    """Returns one of our names, or that of a function of the user's.

    Raises:
        ValueError: If it is neither.
    """
    if is_own(value):
        return check_own(argument, value)
    try:
        return _check.choice(argument, value, choices)
    except ValueError as error:
        raise ValueError(
            f"{str(error).rstrip('.')}. Name a function of your own as "
            "module:function, as in mymodule:make."
        ) from None


def load_data(name: str) -> OwnData:
    """Returns what a function of the user's gives.

    It gives `((x_train, y_train), (x_test, y_test))`: arrays as the model
    takes them, and whole numbers from 0 as labels. A finite `tf.data.Dataset`
    of single examples `(x, y)` may stand for either pair; it is read into
    memory.
    """
    parts = _call(name)
    if not isinstance(parts, tuple | list) or len(parts) != 2:
        raise ValueError(
            f"{name} must return ((x_train, y_train), (x_test, y_test)), got "
            f"{_kind(parts)}."
        )
    return OwnData(*(_pair(name, part) for part in parts))


def load_model(name: str) -> GNCTrainStep:
    """Returns what a function of the user's gives, able to train with GNC.

    It gives a functional or sequential `keras.Model`, or one of a class of its
    own that mixes in `tf_gnc.GNCTrainStep`. It may be compiled.
    """
    model = _call(name)
    if isinstance(model, GNCTrainStep):
        return model
    functional = isinstance(model, keras.Model) and getattr(
        model, "inputs", None
    )
    if not functional:
        raise ValueError(
            f"{name} must return a keras.Model made from inputs and outputs, "
            "a keras.Sequential that begins with keras.Input, or a model "
            f"whose class mixes in tf_gnc.GNCTrainStep, got {_kind(model)}."
        )
    inputs, outputs = (
        tensors[0] if len(tensors) == 1 else tensors
        for tensors in (model.inputs, model.outputs)
    )
    ours = GNCModel(inputs, outputs, name=model.name)
    if model.compiled:
        ours.compile(model.optimizer, model.loss)
    return ours


def load_rule(name: str) -> NoiseRule:
    """Returns the noise rule that a function of the user's gives."""
    rule = _call(name)
    if not isinstance(rule, NoiseRule):
        raise ValueError(
            f"{name} must return a noise rule, such as tf_gnc.GradientNoise("
            f"alpha=0.1) or an object of a class of your own that inherits "
            f"from tf_gnc.NoiseRule, got {_kind(rule)}."
        )
    return rule


def check_fit(name: str, model: keras.Model, source: Source) -> None:
    """Checks that a model, made by a function of that name, suits the data."""
    inputs = getattr(model, "inputs", None)
    if not inputs:
        return  # Known once it is called.
    shapes = [tuple(tensor.shape[1:]) for tensor in inputs]
    shape = tuple(source.input_shape)
    fits = tf.TensorShape(shapes[0]).is_compatible_with(shape)
    if len(shapes) > 1 or not fits:
        raise ValueError(
            f"The model of {name} must take examples of shape {shape}, as the "
            f"data have them, got {' and '.join(map(str, shapes))}."
        )
    outputs = [tuple(tensor.shape[1:]) for tensor in model.outputs]
    enough = len(outputs) == 1 and len(outputs[0]) == 1
    if not enough or outputs[0][0] < source.num_classes:
        raise ValueError(
            f"The model of {name} must give one number for each class, "
            f"{source.num_classes} or more, got outputs of shape "
            f"{' and '.join(map(str, outputs))}."
        )


def _call(name: str) -> Any:
    function = _find(name)
    try:
        return function()
    except Exception as error:
        raise ValueError(
            f"{name} ended with {type(error).__name__}: {error}. It must be a "
            "function without arguments; --verbose shows where it ended."
        ) from error


def _find(name: str) -> Callable[[], Any]:
    """Returns the function of that name."""
    module_name, _, function_name = name.partition(":")
    # A command's own directory is that of its script, not the current one.
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())
    try:
        module = importlib.import_module(module_name)
    except Exception as error:
        sought = module_name, module_name.partition(".")[0]
        if isinstance(error, ModuleNotFoundError) and error.name in sought:
            raise ValueError(
                f"There is no module {module_name!r} to find {name} in. Start "
                "the command in its directory, or add that to PYTHONPATH."
            ) from error
        raise ValueError(
            f"{name} can't be imported: {type(error).__name__}: {error}."
        ) from error
    function = getattr(module, function_name, None)
    if not callable(function):
        raise ValueError(
            f"The module {module_name!r} ({module.__file__}) must have a "
            f"function {function_name!r}, got {_kind(function)}."
        )
    return function


def _pair(name: str, part: Any) -> tuple[np.ndarray, np.ndarray]:
    """Returns examples and labels as arrays that fit together."""
    if isinstance(part, tf.data.Dataset):
        if part.cardinality() == tf.data.INFINITE_CARDINALITY:
            raise ValueError(
                f"{name} must return finite data sets, got an endless one. "
                "Leave out `repeat`."
            )
        examples = list(part.as_numpy_iterator())
        if not examples or len(examples[0]) != 2:
            raise ValueError(
                f"{name} must return data sets of single examples (x, y), got "
                f"{part.element_spec}."
            )
        part = tuple(np.stack(column) for column in zip(*examples, strict=True))
    if not isinstance(part, tuple | list) or len(part) != 2:
        raise ValueError(
            f"{name} must return pairs (x, y), got {_kind(part)} for one."
        )
    x, y = (np.asarray(array) for array in part)
    if y.ndim == 2 and y.shape[1] == 1:  # As Keras's own data sets have it.
        y = y[:, 0]
    if y.dtype.kind not in "iu" or y.ndim != 1 or not len(y) or y.min() < 0:
        raise ValueError(
            f"{name} must return whole numbers from 0 as labels, one for each "
            f"example, got {y.dtype} of shape {y.shape}. A label in one-hot "
            "form becomes such a number by y.argmax(axis=1)."
        )
    if len(x) != len(y):
        raise ValueError(
            f"{name} must return as many examples as labels, got {len(x)} "
            f"and {len(y)}."
        )
    return x, y


def _kind(value: Any) -> str:
    if isinstance(value, tuple | list):
        return f"a {type(value).__name__} of {len(value)}"
    return "None" if value is None else f"a {type(value).__name__}"
