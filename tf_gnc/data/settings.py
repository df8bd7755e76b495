"""What is known of a data set before any of it is read, and what suits it."""

import dataclasses
from collections.abc import Callable, Mapping
from fractions import Fraction
from typing import Any

from tf_gnc.data.prepared import load_images
from tf_gnc.data.preprocess import Preprocess
from tf_gnc.data.sources import Source


@dataclasses.dataclass(frozen=True)
class DatasetDefaults:
    """What suits a data set in a run; plain data, which knows of no run.

    Settings are named as the fields of `tf_gnc.experiments.RunConfig`.

    Args:
        model: A key of `tf_gnc.models.MODELS`.
        num_workers: The paper's M.
        examples_per_worker: The paper's small-batch size.
        epochs: Passes over the training data.
        base_rate: Learning rate at 128 examples per update.
        rates: Learning rates of the batch sizes for which it isn't scaled.
        methods: By method, its settings: each a value, or several by the
            batch size that they were tuned at, of which the nearest by ratio
            counts, or a fraction of the run's epochs.
        settings: Other settings.
        derive: Makes further settings of those that were chosen and the
            batch size.
        debug: Settings that make a run small enough for trying out.
    """

    model: str
    num_workers: int
    examples_per_worker: int
    epochs: int
    base_rate: float
    rates: Mapping[int, float] = dataclasses.field(default_factory=dict)
    methods: Mapping[
        str, Mapping[str, float | Mapping[int, float] | Fraction]
    ] = dataclasses.field(default_factory=dict)
    settings: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    derive: Callable[[Mapping[str, Any], int], Mapping[str, Any]] = (
        lambda settings, batch_size: {}
    )
    debug: Mapping[str, Any] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class DatasetSettings:
    """A data set: what is fixed about it, how it is loaded, what suits it.

    Args:
        input_shape: Height, width and channels of a picture.
        num_classes: Labels run from 0 to this number less one.
        preprocess: Augmentation and normalisation as in the papers.
        defaults: What suits it in a run.
        load: Makes the data of (name, data_dir, download, preprocess), as
            `tf_gnc.data.load`. Default: reads pictures that
            tensorflow-datasets prepared under that name into memory.
        any_size: Whether the pictures are scaled as they are read, so that
            another height and width can be asked for.
    """

    input_shape: tuple[int, int, int]
    num_classes: int
    preprocess: Preprocess
    defaults: DatasetDefaults
    load: Callable[[str, str, bool, Preprocess], Source] = load_images
    any_size: bool = False

    @property
    def erases(self) -> bool:
        """Whether training erases a part of its pictures."""
        return self.preprocess.erase
