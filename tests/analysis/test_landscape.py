"""The loss around the weights, point by point in NumPy."""

import numpy as np
import pytest

import tf_gnc
from tests import oracles, problems
from tf_gnc.analysis import landscape
from tf_gnc.analysis.landscape import directions
from tf_gnc.noise.layout import WeightLayout

M, ROWS = 4, 16


def _model(replicas=1):
    with problems.mirrored(replicas):
        model = problems.plain_network()
        model.compile(
            "sgd",
            problems.cross_entropy(),
            noise=tf_gnc.RandomNoise(alpha=5.0, seed=1),
            num_workers=M,
        )
    return model


def _expected(model, x, y, moves):
    """The loss at the weights plus moves; all rows alike, so their mean."""
    layout = model.step_plan.layout
    weights = [
        v.numpy().astype("float64") + move.numpy()
        for v, move in zip(
            model.trainable_variables, layout.unpack(moves), strict=True
        )
    ]
    return oracles.gradient(weights, x, y)[0]


def _ways(model, dimensions):
    layout = model.step_plan.layout
    weights = layout.pack([v.value for v in model.trainable_variables])
    return directions(weights, layout, dimensions, seed=3).numpy()


@pytest.mark.parametrize("replicas", [1, 2])
def test_landscape__line__is_the_clean_loss_along_it(replicas):
    model = _model(replicas)
    x, y = problems.images(ROWS)
    found = landscape(model, (x, y), points=3, radius=0.5, seed=3)
    assert found["coordinates"] == [-0.5, 0.0, 0.5]
    (way,) = _ways(model, 1)
    expected = [_expected(model, x, y, a * way) for a in found["coordinates"]]
    np.testing.assert_allclose(found["loss"], expected, rtol=1e-5)


def test_landscape__plane__has_the_first_direction_down_the_rows():
    model = _model()
    x, y = problems.images(ROWS)
    found = landscape(model, (x, y), points=2, dimensions=2, seed=3)
    first, second = _ways(model, 2)
    expected = [
        [_expected(model, x, y, a * first + b * second) for b in (-1, 1)]
        for a in (-1, 1)
    ]
    np.testing.assert_allclose(found["loss"], expected, rtol=1e-5)


def test_directions__each_filter__is_as_long_as_the_weights_own():
    shapes = [(3, 3, 2, 4), (5, 3), (4,), ()]
    layout = WeightLayout(shapes)
    rng = np.random.default_rng(0)
    weights = [rng.normal(size=shape).astype("float32") for shape in shapes]
    one, two = directions(layout.pack(weights), layout, 2, seed=0)
    for way in (one, two):
        for part, weight in zip(layout.unpack(way), weights, strict=True):
            for p in oracles.filters_of(weight):
                length = oracles.norm(weight[p]) if weight.ndim > 1 else 0.0
                np.testing.assert_allclose(
                    oracles.norm(part.numpy()[p]), length, rtol=1e-5
                )
    assert np.abs(one - two).max() > 0.1


@pytest.mark.parametrize(
    ("name", "value"),
    [("points", 1), ("radius", 0), ("dimensions", 3), ("seed", -1)],
)
def test_landscape__bad_argument__is_refused(name, value):
    with pytest.raises(ValueError, match=f"`{name}` must be"):
        landscape(_model(), problems.images(ROWS), **{name: value})
