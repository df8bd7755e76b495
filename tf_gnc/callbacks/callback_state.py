"""The state of callbacks: counters, best values, weights.

Keras's callbacks have no common way to save it. So: every attribute made of
numbers, texts, lists and mappings of them is kept, arrays too; functions, files
and models are not. A callback may name the attributes itself, in `backed_up`.
What hasn't changed since the training began, a path or a patience, is a
setting, and the new run's own counts.
"""

import math
from collections.abc import Mapping, MutableMapping
from typing import Any

import keras
import numpy as np

State = tuple[dict[str, Any], dict[str, np.ndarray]]
"""Attributes of callbacks, by the callbacks' names: as JSON, and the arrays."""

# What Keras or the run itself puts there anew. Keras turns the sign of
# `min_delta` together with a function, which isn't kept.
_NOT_STATE = ("params", "_model", "model", "min_delta")


def capture(
    callbacks: list[keras.callbacks.Callback],
    settled: State = ({}, {}),
) -> State:
    """Returns the state of the callbacks.

    `settled` is what this returned when the training began; it is left out as
    far as it is still the same.
    """
    arrays: dict[str, np.ndarray] = {}
    states = {}
    for name, callback in _named(callbacks):
        state = states[name] = {}
        before = settled[0].get(name, {})
        for attribute in getattr(callback, "backed_up", vars(callback)):
            if attribute in _NOT_STATE:
                continue
            value = getattr(callback, attribute)
            found: dict[str, np.ndarray] = {}
            plain = _encode(value, f"{name}/{attribute}", found)
            changed = found or plain != before.get(attribute)
            if plain is not None and changed:
                state[attribute] = plain
                arrays |= found
    return states, arrays


def put_back(
    callbacks: list[keras.callbacks.Callback],
    kept: State,
    settled: State = ({}, {}),
) -> None:
    """Restores the state of callbacks; one without a saved state keeps its own.

    `kept` is what `capture` returned; `settled`, from the start of this
    training, is for what had not changed by then.
    """
    arrays = {**settled[1], **kept[1]}
    for name, callback in _named(callbacks):
        if name not in kept[0]:
            continue
        states = {**settled[0].get(name, {}), **kept[0][name]}
        for attribute, plain in states.items():
            value = _decode(plain, arrays)
            there = getattr(callback, attribute, None)
            if isinstance(there, dict) and isinstance(value, dict):
                # It may be a Counter, a defaultdict.
                there.clear()
                there.update(value)
            else:
                setattr(callback, attribute, value)


def _named(callbacks: list) -> list[tuple[str, Any]]:
    """Names each callback by its class and its number within that class."""
    count: dict[str, int] = {}
    named = []
    for callback in callbacks:
        kind = type(callback).__name__
        count[kind] = count.get(kind, 0) + 1
        named.append((f"{kind}-{count[kind]}", callback))
    return named


def _encode(
    value: Any, where: str, arrays: MutableMapping[str, np.ndarray]
) -> Any:
    """Returns `value` as JSON that tells its type, or None if it can't be."""
    if value is None:
        return {"none": True}
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return {"float": repr(value)}
    if isinstance(value, bool | int | float | str):
        return {"plain": value}
    if isinstance(value, np.ndarray) and _is_plain(value.dtype):
        arrays[where] = value
        return {"array": where}
    if isinstance(value, list | tuple):
        kind, keys, items = type(value).__name__, None, list(value)
        if kind not in ("list", "tuple"):
            return None
    elif isinstance(value, dict) and all(
        isinstance(k, str | int) for k in value
    ):
        kind, keys, items = "dict", list(value), list(value.values())
    else:
        return None
    parts = [_encode(v, f"{where}/{n}", arrays) for n, v in enumerate(items)]
    if any(part is None for part in parts):
        return None
    return {kind: parts} if keys is None else {"dict": [keys, parts]}


def _is_plain(dtype: np.dtype) -> bool:
    """Tells whether the store can write such arrays."""
    return dtype.kind in "biufcSUV" and dtype.names is None


def _decode(plain: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> Any:
    (kind, value), *_ = plain.items()
    if kind == "none":
        return None
    if kind == "float":
        return float(value)
    if kind == "array":
        return np.array(arrays[value])
    if kind == "dict":
        keys, parts = value
        parts = [_decode(part, arrays) for part in parts]
        return dict(zip(keys, parts, strict=True))
    if kind in ("list", "tuple"):
        parts = [_decode(part, arrays) for part in value]
        return parts if kind == "list" else tuple(parts)
    return value
