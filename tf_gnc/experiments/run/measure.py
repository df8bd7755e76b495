"""Measures a run afterwards, from the models that it has kept.

The same measures, batch and data as while it trained (tf_gnc.callbacks.Probe),
so that the rows are too. Gradient noise is the exception: see `measure`.
"""

import dataclasses
import re
from collections.abc import Callable, Sequence

import keras

from tf_gnc import _check, _files, _keras_compat, data
from tf_gnc.callbacks.measures import FULL, arguments, take_full
from tf_gnc.experiments.config import RunConfig
from tf_gnc.experiments.figures.recorded_runs import (
    MEASURED,
    RecordedRun,
    by_step,
)
from tf_gnc.experiments.run import recording
from tf_gnc.experiments.run.building import (
    build_model,
    learning_rates,
    load_images,
    updates_of,
)
from tf_gnc.experiments.run.saving import CHECKPOINTS
from tf_gnc.experiments.user_code import is_own, load_model
from tf_gnc.step.train_step import GNCTrainStep

_LAST = "model.keras"


def check_measures(measures: Sequence[str]) -> None:
    """Refuses measures that can't be taken of a model that doesn't train."""
    for name in measures:
        if name in recording.MEASURES and name not in FULL:
            raise ValueError(
                f"`measure` must be some of {', '.join(FULL)}, got "
                f"measure={name!r}, which is measured as a step is taken: "
                f"tf-gnc train --probe={name}."
            )
        _check.choice("measure", name, FULL)


def find_models(run: RecordedRun) -> dict[int, _files.AnyPath]:
    """Returns the models that a run has kept, by the epochs they ended.

    Those of `--checkpoint_every`, and the one at the end; without any, raises
    a ValueError.
    """
    found = {}
    folder = run.directory / CHECKPOINTS
    for path in folder.glob("epoch-*.keras"):
        if epoch := re.fullmatch(r"epoch-(\d+)\.keras", path.name):
            found[int(epoch[1])] = path
    last = run.directory / _LAST
    if last.exists():
        found.setdefault(len(run.metrics), last)
    if not found:
        raise ValueError(
            f"The run in {run.directory} has kept no model that could be "
            "measured: there are neither checkpoints nor model.keras. Train "
            "with --checkpoint_every=EPOCHS."
        )
    return dict(sorted(found.items()))


def measure(
    run: RecordedRun,
    measures: Sequence[str],
    data_dir: str | None = None,
    report: Callable[[int, int], None] = lambda epoch, step: None,
) -> None:
    """Measures a run's models and adds rows to `MEASURED` in its directory.

    Under gradient noise each worker's gradient of the step before decides the
    noise, and no model file holds them. So the workers' gradients on the batch
    of the step before are computed anew, at the model's own, clean weights
    rather than at the displaced ones of that step, by a training step on a
    copy whose weights, statistics and optimizer are then put back. On the
    digits (resnet8, 32 workers) this came within 0.02 of the recorded
    similarity; condition numbers were twice the recorded ones after 20 of 60
    steps and within a percent after 60.

    `measures` are names that `check_measures` has let pass. `data_dir` says
    where the data set lies, if no longer where it lay. `report` is called with
    epoch and step as each model is done.

    Raises:
        ValueError: If there is nothing to measure, or a model can't be read.
        DatasetNotFoundError: If the data set isn't there.
    """
    config = RunConfig.from_dict(run.config)
    if data_dir:
        config = dataclasses.replace(config, data_dir=data_dir)
    recording.Recording(measures).check(config)
    models = find_models(run)
    if _needs_optimizer(config) and len(models) > 1:
        models = {e: p for e, p in models.items() if p.name != _LAST}
    images = load_images(config)
    given = recording.measuring_data(measures, config, images)
    calls = arguments(
        recording.as_measured(measures),
        given.get("batch"),
        given.get("dataset"),
    )
    path = run.directory / MEASURED
    for epoch, saved in models.items():
        model = load_checkpoint(saved, config, images, epoch)
        step = int(model.optimizer.iterations.numpy())
        fill_noise(model, config, images, step - 1)
        row = {"step": step, "epoch": epoch, **take_full(model, calls, step)}
        path.parent.mkdir(exist_ok=True)
        kept = _files.read_rows(path, "step")
        _files.write_rows(path, by_step([*kept, row]))
        report(epoch, step)


def load_checkpoint(
    path: _files.AnyPath, config: RunConfig, images: data.Source, epoch: int
) -> GNCTrainStep:
    """Returns a model of a run as it was after so many epochs, compiled.

    A checkpoint is that model. The one at the end of a run is stock Keras's,
    not compiled: its weights go into a new one, which has no optimizer state.

    Raises a ValueError if it can't be read or isn't the run's.
    """
    if is_own(config.model):
        load_model(config.model)  # Its module may register classes.
    try:
        with _files.local_file(path) as local:
            loaded = keras.models.load_model(local)
    except (ValueError, TypeError, OSError) as error:
        raise ValueError(f"The model {path} can't be read: {error}") from error
    if isinstance(loaded, GNCTrainStep) and loaded.compiled:
        return loaded
    if _needs_optimizer(config):
        raise ValueError(
            f"{path} can't be measured: the noise is made of the optimizer's "
            "state, under noise_rate='layer' or by a rule of its momentum, and "
            "a run's last model has no optimizer. Train with "
            "--checkpoint_every=EPOCHS."
        )
    updates = updates_of(config, images)
    _keras_compat.set_random_seed(config.seed)  # Of Dropout, for one.
    model = build_model(config, learning_rates(config, updates), images)
    _keras_compat.build(model, recording.batch_of_step(config, images, 0))
    try:
        model.set_weights(loaded.get_weights())
    except ValueError as error:
        raise ValueError(
            f"{path} must hold the network of its run, {config.model}, got a "
            f"model {loaded.name!r} whose weights don't fit: {error}"
        ) from error
    model.noise_rule = config.noise().rules[-1]
    model.optimizer.iterations.assign(updates.before(epoch))
    return model


def _needs_optimizer(config: RunConfig) -> bool:
    """Tells whether a run's noise at its end depends on optimizer state."""
    rule = config.noise().rules[-1]
    if rule is None:
        return False
    by_layer = config.noise_rate == "layer" and rule.follows_rate
    return by_layer or "momentum" in rule.needs


def fill_noise(
    model: GNCTrainStep, config: RunConfig, images: data.Source, step: int
) -> None:
    """Has a model remember its workers' gradients of a step, and nothing else.

    A gradient that isn't finite is a ValueError.
    """
    rule = model.noise_rule
    if rule is None or not rule.remembers_gradients:
        return
    variables = [*model.variables, *model.optimizer.variables]
    kept = [variable.numpy() for variable in variables]
    try:
        model.train_on_batch(*recording.batch_of_step(config, images, step))
    except FloatingPointError as error:
        raise ValueError(
            f"The model after step {step + 1} can't be measured: its gradients "
            f"on the batch of step {step}, counted from 0, aren't finite, and "
            "its noise is made of them. Leave out --measure, or measure as "
            "the run trains (tf-gnc train --probe)."
        ) from error
    finally:
        for variable, value in zip(variables, kept, strict=True):
            variable.assign(value)
