"""The members of the family, and how the tests train them."""

import functools

import keras
import numpy as np
import pytest

import tf_gnc
from tests import oracles_family, problems
from tf_gnc import GradientNoise, MomentumNoise, SharpnessAware

M, B, STEPS = 8, 16, 10
# Numbers that float32 has, as which Keras hands them to an optimizer.
RATE, MOMENTUM, DECAY = 2**-3, 7 / 8, 2**-7

# By name: the rule, and what the oracle is told.
MEMBERS = {
    "extrapolation": (
        lambda: GradientNoise(2.0, center=False),
        {"kind": "gnc", "coefficient": 2.0, "center": False},
    ),
    "gnc_current": (
        lambda: GradientNoise(2.0, current=True),
        {"kind": "gnc", "coefficient": 2.0, "current": True},
    ),
    "gnc_uphill": (
        lambda: GradientNoise(2.0, uphill=True),
        {"kind": "gnc", "coefficient": 2.0, "uphill": True},
    ),
    "uphill, current, not centred": (
        lambda: GradientNoise(2.0, center=False, current=True, uphill=True),
        {"kind": "gnc", "coefficient": 2.0, "center": False, "current": True,
         "uphill": True},
    ),
    "sam": (
        lambda: SharpnessAware(0.3, group="all"),
        {"kind": "sam", "coefficient": 0.3, "group": M},
    ),
    "worker_sam": (
        lambda: SharpnessAware(0.3),
        {"kind": "sam", "coefficient": 0.3},
    ),
    "groups of 2": (
        lambda: SharpnessAware(0.3, group=2),
        {"kind": "sam", "coefficient": 0.3, "group": 2},
    ),
    "groups of 4": (
        lambda: SharpnessAware(0.3, group=4),
        {"kind": "sam", "coefficient": 0.3, "group": 4},
    ),
    "asam": (
        lambda: SharpnessAware(0.5, group="all", adaptive=True),
        {"kind": "sam", "coefficient": 0.5, "group": M, "adaptive": True},
    ),
    "every 3": (
        lambda: SharpnessAware(0.3, every=3),
        {"kind": "sam", "coefficient": 0.3, "every": 3},
    ),
    "every 3, of all": (
        lambda: SharpnessAware(0.3, group="all", every=3),
        {"kind": "sam", "coefficient": 0.3, "group": M, "every": 3},
    ),
    "momentum_sam": (
        lambda: MomentumNoise(0.3),
        {"kind": "momentum", "coefficient": 0.3},
    ),
    "gnc, relative": (
        lambda: GradientNoise(relative=0.2),
        {"kind": "gnc", "coefficient": 0.2, "relative": True},
    ),
    "worker_sam, relative": (
        lambda: SharpnessAware(relative=0.2),
        {"kind": "sam", "coefficient": 0.2, "relative": True},
    ),
    "sam of kernels": (
        lambda: SharpnessAware(0.3, "all", include="kernel"),
        {"kind": "sam", "coefficient": 0.3, "group": M,
         "include_vectors": False},
    ),
}  # fmt: skip
ONE_PASS = ("extrapolation", "gnc_uphill", "momentum_sam", "gnc, relative")
# Those whose graphs differ: the others are one of them with other numbers.
PATHS = (
    "extrapolation", "gnc_uphill", "gnc_current",
    "uphill, current, not centred", "worker_sam", "groups of 2", "every 3",
    "every 3, of all", "momentum_sam",
)  # fmt: skip
EVERY_MEMBER = pytest.mark.parametrize("name", MEMBERS)


def rule_of(name, noise_dtype="float32"):
    """A member; the gradients that it remembers, if any, in some dtype."""
    rule = MEMBERS[name][0]()
    config = rule.get_config()
    if "noise_dtype" in config:
        config["noise_dtype"] = noise_dtype
    return type(rule).from_config(config)


def images(steps=STEPS, size=B):
    return problems.images(size * steps, seed=3)


def compiled(rule, replicas=1, num_workers=M, network=None, **arguments):
    """A model with the paper's momentum and L2 decay."""
    with problems.mirrored(replicas):
        keras.utils.set_random_seed(1)
        model = (network or problems.plain_network)()
        arguments = {
            "optimizer": tf_gnc.optimizers.MomentumSGD(RATE, MOMENTUM, DECAY),
            "loss": problems.cross_entropy(),
            **arguments,
        }
        model.compile(noise=rule, num_workers=num_workers, **arguments)
    return model


def doubles():
    """Has models be float64, and returns what to compile them with."""
    keras.config.set_dtype_policy("float64")
    loss = keras.losses.SparseCategoricalCrossentropy(
        from_logits=True, dtype="float64"
    )
    return {"loss": loss}


def fit(model, steps=STEPS, batches=None, size=B, callbacks=()):
    x, y = batches or images(steps, size)
    model.fit(
        x, y, batch_size=size, shuffle=False, verbose=0,
        callbacks=list(callbacks),
    )  # fmt: skip
    return model


def weights_of(model):
    return [v.numpy() for v in model.trainable_variables]


def assert_near(found, expected, rtol=1e-5):
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=rtol, atol=rtol * np.abs(b).max())


@functools.cache
def start():
    """The weights from which oracles and models begin: float32's numbers."""
    return [w.astype("float32") for w in weights_of(problems.plain_network())]


def by_numpy(size=B, workers=M, **told):
    batches = zip(*(np.split(a, STEPS) for a in images(size=size)), strict=True)
    told = {"momentum": MOMENTUM, "decay": DECAY, **told}
    return oracles_family.train(start(), batches, workers, RATE, **told)


@functools.cache
def expected_of(name):
    """What NumPy says; and that the member makes a difference to see."""
    _, told = MEMBERS[name]
    expected = by_numpy(**told)
    plain = by_numpy(**{**told, "coefficient": 1e-12})
    assert problems.largest_difference(expected, plain) > 1e-3
    return expected


def by_model(rule, replicas=1, size=B, callbacks=(), **arguments):
    model = compiled(rule, replicas, **arguments)
    model.set_weights(start())
    return weights_of(
        fit(model, batches=images(size=size), size=size, callbacks=callbacks)
    )
