"""ImageNet, ILSVRC 2012: 1,281,167 JPEGs, which stay in their files.

Nobody may download it for you. It is tested on the 50,000 pictures of the
split "validation", as everybody does: the labels of the split "test" were
never published.

Paper   Haruki et al. (2019), arXiv:1906.10822, Tables 3 to 5, appendix A.5;
        rates of other batch sizes than theirs are scaled from 32,768.
"""

import os
import shlex
from collections.abc import Mapping
from fractions import Fraction
from typing import Any

import tensorflow as tf

from tf_gnc.data import prepared
from tf_gnc.data.image_files import ImageFiles
from tf_gnc.data.preprocess import Preprocess, in_bytes
from tf_gnc.data.settings import DatasetDefaults, DatasetSettings

_ARCHIVES = ("ILSVRC2012_img_train.tar", "ILSVRC2012_img_val.tar")
_RATES = {32_768: 23.0, 131_072: 42.0}


def _load(
    name: str, data_dir: str, download: bool, preprocess: Preprocess
) -> ImageFiles:
    """Returns the data set, which reads its files as it is used."""
    manual = os.path.join(data_dir, "downloads", "manual")
    how = (
        "prepare it: (1) register at https://image-net.org and download "
        f"{' and '.join(_ARCHIVES)} (138 and 6.3 GB) yourself, since no "
        f"program may; (2) move both to {manual}; (3) run: tfds build {name} "
        f"--data_dir={shlex.quote(data_dir)} (it takes hours, and as much "
        "disk again), or give download=True (--download), which does the same."
    )
    paths = [os.path.join(manual, file) for file in _ARCHIVES]
    download = download and all(map(tf.io.gfile.exists, paths))
    directory = prepared.locate(name, data_dir, download, how)
    return prepared.read_files(
        directory, preprocess, IMAGENET.input_shape[0], test="validation"
    )


def _polynomial(settings: Mapping[str, Any], batch_size: int) -> dict[str, Any]:
    """Returns what goes with the paper's polynomial decay."""
    if settings.get("schedule") != "polynomial":
        return {}
    found: dict[str, Any] = {}
    if "learning_rate" not in settings and batch_size in _RATES:
        found["start_rate"] = 1.0  # Table 4
    epochs = settings["epochs"]
    found["decay_steps"] = -(-4_120 * 32_768 * epochs // (batch_size * 90))
    found["collapse_epoch"] = 80 * epochs // 90 or None
    return found


IMAGENET = DatasetSettings(
    input_shape=(224, 224, 3),
    num_classes=1000,
    preprocess=Preprocess(
        mean=in_bytes(0.485, 0.456, 0.406),
        stddev=in_bytes(0.229, 0.224, 0.225),
        flip=True,
        zoom=True,
    ),
    defaults=DatasetDefaults(
        model="resnet50",
        num_workers=1024,
        examples_per_worker=32,
        epochs=90,
        base_rate=_RATES[32_768] / 256,
        rates=_RATES,
        methods={
            "gnc": {"alpha": 0.0001},
            "rnc": {"alpha": 0.01},
            "gnc_to_rnc": {
                "alpha": 0.01,
                "alpha_rnc": 0.01,
                "switch_epoch": Fraction(8, 9),
            },
        },
        settings={
            "optimizer": "lars",
            "schedule": "polynomial",
            "warmup": 5 / 90,
        },
        derive=_polynomial,
        debug={"image_size": 32},
    ),
    load=_load,
    any_size=True,
)
