"""A measurement leaves all as it was, and the training after it too."""

import random

import numpy as np
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


def _measure(model):
    """Measures all there is, and sees after each that all is as before."""
    before = _everything(model)
    assert len(before[0]) > 15
    for name, measure in MEASURES.items():
        measure(model)
        assert _everything(model) == before, name


def test_measures__trained_on_one_replica__leave_all_of_it_to_the_bit():
    model = _compiled("rnc", 1)
    _fit(model)
    _measure(model)


def test_measures__on_two_replicas__training_goes_on_as_without():
    measured, plain = _compiled("gnc", 2), _compiled("gnc", 2)
    for model in (measured, plain):
        _fit(model)
    _measure(measured)
    for model in (measured, plain):
        _fit(model)
    weights = map(problems.float_weights, (measured, plain))
    assert problems.largest_difference(*weights) < 1e-6


def test_measures__before_any_training__it_goes_on_as_without():
    measured, plain = _compiled("gnc", 1), _compiled("gnc", 1)
    for measure in MEASURES.values():
        measure(measured)
    for model in (measured, plain):
        _fit(model)
    weights = map(problems.float_weights, (measured, plain))
    assert problems.largest_difference(*weights) < 1e-6
