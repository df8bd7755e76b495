"""What a backup holds of a model in training, and how it is put back.

    model      weights, optimizer, mean gradient; the chief writes it
    process-p  the remembered gradients of the workers of process p, and the
               metrics' values on its replicas

A worker's gradient is kept under its index in the whole cluster, so that any
number of replicas and processes can take it up again.
"""

import random
from collections.abc import Mapping
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tf_gnc.callbacks import callback_state
from tf_gnc.distribute.strategies import is_chief, num_processes, process_index
from tf_gnc.store import Draft, Generation

MODEL = "model"


def contents(
    model: keras.Model,
    callbacks: list,
    settled: callback_state.State,
    position: Mapping[str, Any],
) -> callback_state.State:
    """Returns a backup's JSON, and the arrays that go with its callbacks.

    `settled` is the callbacks' state when the training began, `position` where
    the run is: epoch, batch and so on.
    """
    states, arrays = callback_state.capture(callbacks, settled)
    strategy = model.distribute_strategy
    return {
        "identity": identity(model),
        "position": dict(position),
        "rule": _as_json(model.noise_rule),
        "alpha": model.noise_alpha,
        "num_replicas": strategy.num_replicas_in_sync,
        "num_processes": num_processes(strategy),
        "callbacks": states,
        "random": _random_state(),
    }, arrays


def identity(model: keras.Model) -> dict[str, Any]:
    """Returns what must be the same when a run is resumed, by name."""
    optimizer = model.optimizer
    return {
        # Not by their paths, which count the layers made before.
        "model": [f"{v.name} {_describe(v)}" for v in _variables(model)],
        "optimizer": type(optimizer).__name__,
        "optimizer's variables": [_describe(v) for v in optimizer.variables],
        "num_workers": model.num_workers,
        "noise": _as_json(model.compiled_noise_rule),
    }


def check_identity(generation: Generation, model: keras.Model) -> None:
    """Checks that a backup is of this run."""
    theirs = _without_modules(generation.contents["identity"])
    for name, value in identity(model).items():
        other = theirs.get(name)
        if other == value:
            continue
        if isinstance(value, list) and isinstance(other, list):
            pairs = zip(other, value, strict=False)
            different = (pair for pair in pairs if pair[0] != pair[1])
            numbers = f"{len(other)} variables", len(value)
            other, value = next(different, numbers)
        raise ValueError(
            f"A backup must be of the same run, got another {name}: {other} in "
            f"the backup, {value} here. The backup is {generation.path}. "
            "Choose another directory, or move it out of the way."
        )


def write(
    draft: Draft, model: keras.Model, arrays: Mapping[str, np.ndarray]
) -> None:
    """Writes this process's part of a backup; `arrays` are from `contents`."""
    strategy, plan = model.distribute_strategy, model.step_plan
    process = process_index(strategy)
    if is_chief(strategy):
        weights = {f"weight/{n}": v.numpy() for n, v in _numbered(model)}
        weights["global_seed"] = plan.generator.state.numpy()
        if plan.memory is not None:
            local = strategy.experimental_local_results(plan.memory.mean)
            weights["mean_gradient"] = local[0].numpy()
        callbacks = {f"callback/{name}": a for name, a in arrays.items()}
        draft.write(MODEL, {**weights, **callbacks})
    own: dict[str, np.ndarray] = {}
    for number, variable in enumerate(model.metrics_variables):
        values = strategy.experimental_local_results(variable.value)
        own[f"metric/{number}"] = np.stack([v.numpy() for v in values])
    if plan.memory is not None:
        for replica, start in _first_workers(model):
            rows = plan.memory.rows(replica, strategy)
            own[f"gradients/{start}"] = rows
    draft.write(f"process-{process}", own)
    draft.finish(process)


def restore(generation: Generation, model: keras.Model) -> None:
    """Restores everything that a backup holds of a built model."""
    arrays = generation.arrays(MODEL)
    kept = generation.contents
    if _as_json(model.noise_rule) != _without_modules(kept["rule"]):
        model.noise_rule = keras.saving.deserialize_keras_object(kept["rule"])
    model.noise_alpha = kept["alpha"]
    plan = model.step_plan
    for name, variable in _numbered(model):
        variable.assign(arrays[f"weight/{name}"])
    plan.generator.state.assign(arrays["global_seed"])
    if plan.memory is not None:
        _restore_memory(generation, model)
    _put_random_state(kept["random"])


def restore_metrics(generation: Generation, model: keras.Model) -> None:
    """Restores the metrics' state; `fit` resets them before."""
    strategy = model.distribute_strategy
    kept, process = generation.contents, process_index(strategy)
    then = kept["num_replicas"], kept["num_processes"]
    same = then == (strategy.num_replicas_in_sync, num_processes(strategy))
    counted = [generation.arrays(f"process-{p}") for p in range(then[1])]
    for number, variable in enumerate(model.metrics_variables):
        local = strategy.experimental_local_results(variable.value)
        if same:
            values = counted[process][f"metric/{number}"]
        else:  # What all replicas have counted goes to the first.
            total = sum(part[f"metric/{number}"].sum(0) for part in counted)
            values = [total if process == 0 else np.zeros_like(total)]
            values += [np.zeros_like(total)] * (len(local) - 1)
        for component, value in zip(local, values, strict=True):
            component.assign(tf.cast(value, component.dtype))


def restore_callbacks(
    generation: Generation, callbacks: list, settled: callback_state.State
) -> None:
    """Restores the callbacks; `settled` is as for `contents`."""
    prefix, all_arrays = "callback/", generation.arrays(MODEL)
    arrays = {
        name.removeprefix(prefix): all_arrays[name]
        for name in all_arrays
        if name.startswith(prefix)
    }
    kept = generation.contents["callbacks"], arrays
    callback_state.put_back(callbacks, kept, settled)


def _restore_memory(generation: Generation, model: keras.Model) -> None:
    plan, strategy = model.step_plan, model.distribute_strategy
    mean = generation.arrays(MODEL)["mean_gradient"]
    for component in strategy.experimental_local_results(plan.memory.mean):
        component.assign(tf.cast(mean, component.dtype))
    kept = generation.contents
    replicas = kept["num_replicas"]
    local_then = replicas // kept["num_processes"]
    each_then = kept["identity"]["num_workers"] // replicas

    def row_of(worker: int) -> np.ndarray:
        """Returns the gradient of a worker by its index in the cluster."""
        replica, row = divmod(worker, each_then)
        file = f"process-{replica // local_then}"
        name = f"gradients/{worker - row}"
        return generation.read_rows(file, name, row, row + 1)[0]

    for replica, first in _first_workers(model):
        count = plan.memory.workers_per_replica
        rows = map(row_of, range(first, first + count))
        plan.memory.restore(replica, strategy, rows)


def _first_workers(model: keras.Model) -> list[tuple[int, int]]:
    """Returns this process's replicas, each with its first worker's index."""
    strategy, each = model.distribute_strategy, model.step_plan.per_replica
    count = strategy.num_replicas_in_sync // num_processes(strategy)
    before = process_index(strategy) * count
    return [(replica, (before + replica) * each) for replica in range(count)]


def _variables(model: keras.Model) -> list[keras.Variable]:
    """Returns all of a model's variables but those of its metrics."""
    metrics = {id(v) for v in model.metrics_variables}
    return [v for v in model.variables if id(v) not in metrics]


def _numbered(model: keras.Model) -> list[tuple[str, keras.Variable]]:
    both = (
        ("model", _variables(model)),
        ("optimizer", model.optimizer.variables),
    )
    return [(f"{k}/{n}", v) for k, vs in both for n, v in enumerate(vs)]


def _describe(variable: keras.Variable) -> str:
    return f"{list(variable.shape)} {variable.dtype}"


def _as_json(rule: Any) -> Any:
    """Returns a rule's class, as registered with Keras, and arguments."""
    return _without_modules(keras.saving.serialize_keras_object(rule))


def _without_modules(config: Any) -> Any:
    """Leaves out where classes were defined, which says nothing of a run."""
    if not isinstance(config, Mapping):
        return config
    return {k: _without_modules(v) for k, v in config.items() if k != "module"}


def _random_state() -> dict[str, Any]:
    """Returns the state of the generators of Python and NumPy, as JSON."""
    version, numbers, gauss = random.getstate()
    kind, keys, *rest = np.random.get_state()
    return {
        "python": [version, list(numbers), gauss],
        "numpy": [kind, keys.tolist(), *rest],
    }


def _put_random_state(kept: Mapping[str, Any]) -> None:
    version, numbers, gauss = kept["python"]
    random.setstate((version, tuple(numbers), gauss))
    kind, keys, *rest = kept["numpy"]
    np.random.set_state((kind, np.array(keys, np.uint32), *rest))
