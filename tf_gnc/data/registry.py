"""The data sets by name, and what each of them asks of a training run.

A new data set is a new entry here. This file reads no data.
"""

import dataclasses
import types
from collections.abc import Mapping

from tf_gnc.data.preprocess import Preprocess


@dataclasses.dataclass(frozen=True)
class DatasetSettings:
    """What is fixed about a data set before any of it is read.

    Args:
        input_shape: Height, width and channels of a picture.
        num_classes: Labels run from 0 to this number less one.
        preprocess: Augmentation and normalisation as in the papers.
        in_memory: Whether it fits into memory, so that files are read once.
    """

    input_shape: tuple[int, int, int]
    num_classes: int
    preprocess: Preprocess
    in_memory: bool = True


def _in_bytes(*shares: float) -> tuple[float, ...]:
    return tuple(255 * share for share in shares)


# Means and standard deviations are those of all pixels of the training split,
# per channel. A flipped digit is no digit, and 8 pixels leave no room to
# erase, so the digits are only moved by a pixel.
DATASETS: Mapping[str, DatasetSettings] = types.MappingProxyType(
    {
        "digits": DatasetSettings(
            input_shape=(8, 8, 1),
            num_classes=10,
            preprocess=Preprocess(mean=(77.84,), stddev=(95.92,), padding=1),
        ),
        "cifar10": DatasetSettings(
            input_shape=(32, 32, 3),
            num_classes=10,
            preprocess=Preprocess(
                mean=_in_bytes(0.4914, 0.4822, 0.4465),
                stddev=_in_bytes(0.2470, 0.2435, 0.2616),
                padding=4,
                flip=True,
                erase=True,
            ),
        ),
        "cifar100": DatasetSettings(
            input_shape=(32, 32, 3),
            num_classes=100,
            preprocess=Preprocess(
                mean=_in_bytes(0.5071, 0.4865, 0.4409),
                stddev=_in_bytes(0.2673, 0.2564, 0.2762),
                padding=4,
                flip=True,
                erase=True,
            ),
        ),
        "imagenet2012": DatasetSettings(
            input_shape=(224, 224, 3),
            num_classes=1000,
            preprocess=Preprocess(
                mean=_in_bytes(0.485, 0.456, 0.406),
                stddev=_in_bytes(0.229, 0.224, 0.225),
                flip=True,
                zoom=True,
            ),
            in_memory=False,
        ),
    }
)
