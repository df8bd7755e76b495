"""The validators: what they let through, what they refuse, what they say."""

import fractions
import math
import re

import numpy as np
import pytest

from tf_gnc import _check

BOUNDS = [
    # bounds, accepted (on the edge or just inside), refused, the message's need
    ({}, [-1e300, 0, 1e300], [], "a finite number"),
    ({"minimum": 0}, [0, 0.0, 5e-324], [-5e-324, -1], "at least 0"),
    ({"above": 0}, [5e-324, 1], [0, 0.0, -5e-324], "above 0"),
    ({"maximum": 1}, [1, -7], [math.nextafter(1, 2), 2], "at most 1"),
    (
        {"minimum": 0, "maximum": 1},
        [0, 1, 0.5],
        [-0.1, 1.1],
        "at least 0, at most 1",
    ),
    (
        {"above": 0, "maximum": 1},
        [1e-9, 1],
        [0, 1.1],
        "above 0, at most 1",
    ),
]


def _message(name, need, value):
    return f"`{name}` must be {need}, got {name}={value!r}."


@pytest.mark.parametrize(("bounds", "good", "bad", "need"), BOUNDS)
def test_real__both_sides_of_each_bound__accepts_or_names_bound_and_value(
    bounds, good, bad, need
):
    for value in good:
        assert _check.real("alpha", value, **bounds) == value
    for value in bad:
        message = _message("alpha", f"a finite number, {need}", value)
        with pytest.raises(ValueError, match=re.escape(message)):
            _check.real("alpha", value, **bounds)


@pytest.mark.parametrize(
    "value",
    [
        True,
        np.True_,
        math.nan,
        math.inf,
        -math.inf,
        np.float32("nan"),
        "1",
        None,
        1 + 0j,
        [1.0],
        np.array(1.0),
        10**400,  # finite, but no float can hold it
    ],
    ids=lambda value: repr(value)[:20],
)
def test_real__no_finite_number__error_holds_name_and_value(value):
    message = _message("alpha", "a finite number", value)
    with pytest.raises(ValueError, match=re.escape(message)):
        _check.real("alpha", value)


@pytest.mark.parametrize(
    "value",
    [
        1,
        1.0,
        np.float64(1),
        np.float32(1),
        np.float16(1),
        np.int64(1),
        np.uint8(1),
        fractions.Fraction(1),
    ],
    ids=repr,
)
def test_real__any_kind_of_number__returns_a_plain_float(value):
    result = _check.real("alpha", value, minimum=1, maximum=1)
    assert type(result) is float
    assert result == 1.0


@pytest.mark.parametrize(
    ("bounds", "good", "bad", "need"),
    [
        ({}, [-(10**30), 0, 10**30], [], ""),
        ({"minimum": 1}, [1, 2], [0, -1], ", at least 1"),
        ({"maximum": 3}, [3, -3], [4], ", at most 3"),
        ({"minimum": 1, "maximum": 3}, [1, 3], [0, 4], ", at least 1, at most"),
    ],
)
def test_integer__both_sides_of_each_bound__accepts_or_names_bound_and_value(
    bounds, good, bad, need
):
    for value in good:
        assert _check.integer("num_workers", value, **bounds) == value
    for value in bad:
        with pytest.raises(ValueError) as caught:
            _check.integer("num_workers", value, **bounds)
        message = str(caught.value)
        assert message.startswith(f"`num_workers` must be a whole number{need}")
        assert message.endswith(f", got num_workers={value}.")


@pytest.mark.parametrize(
    "value",
    [True, False, np.True_, 1.0, np.float64(1), math.nan, "1", None, [1]],
    ids=repr,
)
def test_integer__no_whole_number__error_holds_name_and_value(value):
    message = _message("num_workers", "a whole number", value)
    with pytest.raises(ValueError, match=re.escape(message)):
        _check.integer("num_workers", value)


@pytest.mark.parametrize(
    "value", [8, np.int32(8), np.int64(8), np.uint8(8)], ids=repr
)
def test_integer__any_kind_of_integer__returns_a_plain_int(value):
    result = _check.integer("num_workers", value, minimum=8, maximum=8)
    assert type(result) is int
    assert result == 8


@pytest.mark.parametrize("value", [True, False])
def test_boolean__a_bool__is_returned(value):
    assert _check.boolean("shuffle", value) is value


@pytest.mark.parametrize("value", [0, 1, np.True_, "True", None, []], ids=repr)
def test_boolean__anything_else__error_holds_name_and_value(value):
    message = _message("shuffle", "True or False", value)
    with pytest.raises(ValueError, match=re.escape(message)):
        _check.boolean("shuffle", value)


@pytest.mark.parametrize("choices", [("filter", "none"), iter(["none"])])
def test_choice__one_of_the_choices__is_returned(choices):
    assert _check.choice("scaling", "none", choices) == "none"


@pytest.mark.parametrize(
    "value", ["Filter", "filter ", "", None, 0, ("filter",)], ids=repr
)
def test_choice__none_of_them__error_lists_choices_in_order(value):
    message = _message("scaling", "one of 'filter', 'none'", value)
    with pytest.raises(ValueError, match=re.escape(message)):
        _check.choice("scaling", value, ("filter", "none"))


def test_choice__part_of_a_string_of_choices__is_refused():
    # `in` on a string would look for substrings.
    with pytest.raises(ValueError, match="got scaling='ab'"):
        _check.choice("scaling", "ab", "abc")
    assert _check.choice("scaling", "a", "abc") == "a"


@pytest.mark.parametrize("values", [[], [3, 3], (1, 2, 1)])
def test_distinct__none_or_two_alike__error_shows_them(values):
    with pytest.raises(ValueError, match=re.escape(f"got s={list(values)}.")):
        _check.distinct("s", values)
    _check.distinct("s", [*range(len(values) + 1)])
