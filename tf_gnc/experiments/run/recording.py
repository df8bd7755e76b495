"""What a run writes down beside its metrics: measurements and checkpoints.

None of it changes what comes out of a run, so it isn't part of the
configuration. What the measures are is in tf_gnc.callbacks; how models are kept
in saving.py.
"""

import dataclasses
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf

from tf_gnc import _check, _files, data
from tf_gnc.callbacks import Probe
from tf_gnc.callbacks.measures import CHEAP, FULL
from tf_gnc.callbacks.probe_rows import rows_file, take_up
from tf_gnc.experiments.config import RunConfig
from tf_gnc.experiments.run.building import training_data
from tf_gnc.experiments.run.saving import CHECKPOINTS, Checkpoints

MEASURES = (*CHEAP, *FULL)

# The spread of their own rows would hide that of the noise.
_ARGUMENTS = {"sharpness": {"rows": "all"}}

_FEWEST_WORKERS = {"gradient_noise_scale": 2, "spectrum": 3}


@dataclasses.dataclass(frozen=True)
class Recording:
    """What to record.

    Attributes:
        measures: Names of what `tf_gnc.callbacks.Probe` measures.
        every: Steps from one measurement to the next; None for an epoch's.
        around: Epochs; if there are any, `sharpness` is measured at every step
            from an epoch before to an epoch after each of them, and at no
            others.
        checkpoint_every: Epochs from one checkpoint to the next; None for no
            checkpoints.
        log_dir: Where TensorBoard reads the measures' numbers; None for
            nowhere.

    Raises:
        ValueError: If a measure is unknown, a number out of range, `around`
            stands without `sharpness`, or `log_dir` isn't a local directory or
            has nothing to hold.

    Example:
        >>> Recording(measures=["similarity", "noise_norm"]).measures
        ('similarity', 'noise_norm')
    """

    measures: Sequence[str] = ()
    every: int | None = None
    checkpoint_every: int | None = None
    log_dir: str | os.PathLike | None = None
    around: Sequence[float] = ()

    def __post_init__(self) -> None:
        """Checks the values."""
        names = tuple(
            _check.choice("probe", name, MEASURES) for name in self.measures
        )
        object.__setattr__(self, "measures", names)
        for name in ("every", "checkpoint_every"):
            if getattr(self, name) is not None:
                _check.integer(name, getattr(self, name), minimum=1)
        around = tuple(
            _check.real("probe_around", epoch, minimum=0)
            for epoch in self.around
        )
        object.__setattr__(self, "around", around)
        if around and "sharpness" not in names:
            raise ValueError(
                "`probe_around` says at which steps sharpness is measured and "
                f"needs it, got probe_around={list(around)} with "
                f"probe={list(names)}. Add sharpness (--probe)."
            )
        if self.log_dir is not None:
            self._check_log_dir()

    def measuring(self) -> dict[str, Any]:
        """Returns what is measured and when, by the names of flags, as JSON."""
        return {
            "probe": list(self.measures),
            "probe_every": self.every,
            "probe_around": list(self.around),
        }

    @classmethod
    def from_measuring(cls, content: Mapping[str, Any]) -> "Recording":
        """Makes what `measuring` was called on, apart from what else it had."""
        names = {"measures": "probe", "every": "probe_every",
                 "around": "probe_around"}  # fmt: skip
        return cls(**{name: content[flag] for name, flag in names.items()})

    def check(self, config: RunConfig) -> None:
        """Raises a ValueError if a run can't be measured so.

        It may have too few workers for a measure, or too few epochs.
        """
        two = [r for r in config.noise().rules if r and r.takes_two_passes]
        if "spectrum" in self.measures and two:
            raise ValueError(
                "The measure 'spectrum' needs noise that is there before the "
                f"step, got method={config.method!r}, whose noise is made of "
                "the step's own gradients. Leave the measure out."
            )
        if self.around and max(self.around) > config.epochs:
            raise ValueError(
                "`probe_around` must be epochs of the run, got probe_around="
                f"{max(self.around):g} with epochs={config.epochs}. Choose "
                "others (--probe_around)."
            )
        for name in self.measures:
            fewest = _FEWEST_WORKERS.get(name, 1)
            if config.num_workers < fewest:
                raise ValueError(
                    f"The measure {name!r} compares workers and needs {fewest} "
                    f"or more, got num_workers={config.num_workers}. Use more "
                    "workers (--workers), or leave the measure out."
                )

    def probes(
        self,
        config: RunConfig,
        images: data.Source,
        run_dir: _files.AnyPath,
        updates: data.Updates,
        first_step: int,
    ) -> list[keras.callbacks.Callback]:
        """Returns what measures in `fit`, for callbacks that read its logs.

        Rows of steps after `first_step` are cut off: they are taken once more.
        """
        if not self.measures:
            return []
        log_dir = self.log_dir and Path(self.log_dir).expanduser()
        if log_dir:
            log_dir.mkdir(parents=True, exist_ok=True)
        take_up(rows_file(run_dir), first_step, same_run=True)
        # One for all, since TensorBoard reads the last of two writers' files.
        probe = Probe(
            as_measured(self.measures),
            directory=run_dir,
            log_dir=log_dir,
            **self._when(config, updates),
            **measuring_data(self.measures, config, images),
        )
        return [probe]

    def _when(
        self, config: RunConfig, updates: data.Updates
    ) -> dict[str, dict[str, Any]]:
        """Returns at which steps each measure is taken, for `Probe`."""
        every = dict.fromkeys(self.measures, self.every or 1)
        within = {}
        if self.every is None:  # At the end of each epoch, as long as it is.
            ends = map(updates.before, range(1, config.epochs + 1))
            within = dict.fromkeys(every, [range(n, n + 1) for n in ends])
        if self.around:
            n = updates.per_epoch
            every["sharpness"] = 1
            within["sharpness"] = [
                range(math.ceil((e - 1) * n), math.floor((e + 1) * n) + 1)
                for e in self.around
            ]
        return {"every": every, "within": within}

    def checkpoints(
        self, run_dir: _files.AnyPath
    ) -> list[keras.callbacks.Callback]:
        """Returns what keeps models in `fit`."""
        if not self.checkpoint_every:
            return []
        return [Checkpoints(run_dir / CHECKPOINTS, self.checkpoint_every)]

    def _check_log_dir(self) -> None:
        name = os.fspath(self.log_dir)
        if not self.measures:
            raise ValueError(
                "`log_dir` gets what is measured and needs a measure, got "
                f"log_dir={name!r} and none. Name some (--probe), or leave "
                "--log_dir out."
            )
        if not name or "://" in name or Path(name).expanduser().is_file():
            raise ValueError(
                "`log_dir` must be a local directory, new or not, got "
                f"log_dir={name!r}. Choose another (--log_dir)."
            )


def as_measured(measures: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Returns the measures, each with the arguments that the figures need."""
    return {name: _ARGUMENTS.get(name, {}) for name in measures}


def measuring_data(
    measures: Sequence[str], config: RunConfig, images: data.Source
) -> dict[str, Any]:
    """Returns the `batch` and the `dataset` that full measures need.

    The batch is that of the coming step, a function of how many were taken
    (the paper's A.6: "at each iteration"), augmented as that step has it. The
    full gradient is that of the training examples as they are, not augmented
    (the paper's Table 1 says so of its own); with `max_steps` they are cut as
    the test examples are.
    """
    found: dict[str, Any] = {}
    if set(measures) & (set(FULL) - {"spectrum"}):
        found["batch"] = _StepBatches(config, images)
    if "similarity" in measures:
        whole = training_set(images)
        if config.max_steps:
            whole = whole.take(config.max_steps)
        found["dataset"] = whole
    return found


def batch_of_step(config: RunConfig, images: data.Source, step: int) -> Any:
    """Returns the global batch of a run's step, counted from 0."""
    return next(iter(training_data(config, images, step).take(1)))


class _StepBatches:
    """`batch_of_step` of a run; steps in a row are read in one go.

    A pipeline is slow to make. It reads ahead, so it isn't kept for steps that
    are far between.
    """

    def __init__(self, config: RunConfig, images: data.Source) -> None:
        self._config, self._images = config, images
        self._last = -2
        self._batches: Iterator[Any] | None = None

    def __call__(self, step: int) -> Any:
        """Returns the batch of a step, counted from 0."""
        in_a_row, self._last = step == self._last + 1, step
        if not in_a_row:
            self._batches = None
            return batch_of_step(self._config, self._images, step)
        if self._batches is None:
            self._batches = iter(
                training_data(self._config, self._images, step)
            )
        return next(self._batches)


def training_set(images: data.Source) -> tf.data.Dataset:
    """Returns every training example once, in order, not augmented."""
    if isinstance(images, data.Images):
        swapped = dataclasses.replace(
            images,
            test_images=images.train_images,
            test_labels=images.train_labels,
        )
    else:
        swapped = dataclasses.replace(images, test=images.train)
    return swapped.evaluation()
