"""A measurement leaves all as it was, and the training after it too."""

import random

import numpy as np
import pytest
import tensorflow as tf

import tf_gnc
from tests import problems
from tf_gnc import analysis

M, ROWS = 4, 16
BATCH = problems.images(ROWS, seed=3)


def _data():
    return tf.data.Dataset.from_tensor_slices(problems.images(21)).batch(8)


MEASURES = {
    "similarity": lambda model: analysis.similarity(model, BATCH, _data()),
    "spectrum": lambda model: analysis.spectrum(model, BATCH),
    "sharpness": lambda model: analysis.sharpness(
        model,
        BATCH,
        noise=tf_gnc.RandomNoise(alpha=0.5, seed=1),
        relative_displacement=0.5,
        eigenvalues=1,
    ),
    "smoothness": lambda model: analysis.smoothness(model, BATCH),
    "landscape": lambda model: analysis.landscape(model, BATCH, points=3),
}
RULES = {
    "gnc": lambda: tf_gnc.GradientNoise(alpha=1.0),
    "rnc": lambda: tf_gnc.RandomNoise(alpha=1.0, seed=2),
}


def _compiled(rule, replicas):
    """With BatchNorm, Dropout, a regularizer, momentum and a metric."""
    with problems.mirrored(replicas):
        model = problems.full_network()
        model.compile(
            problems.sgd(),
            problems.cross_entropy(),
            metrics=["accuracy"],
            noise=RULES[rule](),
            num_workers=M,
        )
    return model


def _fit(model):
    x, y = problems.images(2 * ROWS, seed=5)
    model.fit(x, y, batch_size=ROWS, shuffle=False, verbose=0)


def _everything(model):
    """All states, to the bit, and what the model hangs on to."""
    plan, strategy = model.step_plan, model.distribute_strategy
    variables = [
        *(v.value for v in model.variables),
        *(v.value for v in model.metrics_variables),
        *(v.value for v in model.optimizer.variables),
        plan.generator.state.value,
        plan.alpha,
    ]
    if plan.memory:
        memory = plan.memory
        variables += [memory.gradients, memory.mean, memory.half]
    states = [
        np.asarray(component).tobytes()
        for variable in variables
        for component in strategy.experimental_local_results(variable)
    ]
    kept = (plan, plan.rule, plan.memory, model.train_function, model.optimizer)
    draws = (random.getstate(), np.random.get_state()[1].tobytes())
    return states, [id(each) for each in kept], draws


@pytest.mark.parametrize("replicas", [1, 2])
@pytest.mark.parametrize("rule", RULES)
def test_measures__trained_model__leave_all_of_it_to_the_bit(rule, replicas):
    model = _compiled(rule, replicas)
    _fit(model)
    before = _everything(model)
    assert len(before[0]) > 15
    for name, measure in MEASURES.items():
        measure(model)
        assert _everything(model) == before, name


@pytest.mark.parametrize("first", [False, True], ids=["between", "before"])
def test_measures__training_after_them__goes_on_as_without(first):
    weights = []
    for measures in ({}, MEASURES):
        model = _compiled("gnc", 1)
        if not first:
            _fit(model)
        for measure in measures.values():
            measure(model)
        _fit(model)
        weights.append(problems.float_weights(model))
    assert problems.largest_difference(*weights) < 1e-6
