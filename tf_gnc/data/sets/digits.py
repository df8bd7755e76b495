"""Handwritten digits, 8x8 pixels, which need no download.

1,437 to train on, 360 to test on; `digits_builder/` says whose they are. Its
defaults were found by trying; see docs/accuracy.md.
"""

import contextlib
import io
import os
import pathlib
import tempfile
from fractions import Fraction

from tf_gnc.data import prepared
from tf_gnc.data.preprocess import Preprocess
from tf_gnc.data.settings import DatasetDefaults, DatasetSettings
from tf_gnc.data.sources import Images


def _load(
    name: str, data_dir: str, download: bool, preprocess: Preprocess
) -> Images:
    """Returns the digits, prepared on the spot if need be."""
    del download
    directory = prepared.find_prepared(name, data_dir) or prepare(data_dir)
    return prepared.read_images(directory, preprocess)


def prepare(data_dir: str) -> str:
    """Prepares the digits under `data_dir` and returns their directory.

    Several processes may do so at once: each works in a directory of its own,
    and the work of the first one that moves it to the common one stays.
    """
    # Late: it imports tensorflow-datasets.
    from tf_gnc.data.sets.digits_builder import digits_dataset_builder

    if "://" in data_dir:
        raise prepared.DatasetNotFoundError(
            "The data set 'digits' must have been prepared to be read from a "
            f"bucket, got data_dir={data_dir!r}, which has none. Leave "
            "data_dir (--data_dir) out: they are prepared on this machine in a "
            "second. Or copy the folder `digits` from there."
        )
    try:
        os.makedirs(data_dir, exist_ok=True)
        private = tempfile.TemporaryDirectory(
            prefix=".digits-", dir=data_dir, ignore_cleanup_errors=True
        )
    except OSError as error:
        raise OSError(
            f"Cannot prepare the data set 'digits' in data_dir={data_dir!r}: "
            f"{error}. Give a data_dir (--data_dir) that you may write to."
        ) from error
    silence = io.StringIO()  # Messages name `folder` and a download.
    with (
        private as folder,
        contextlib.redirect_stdout(silence),
        contextlib.redirect_stderr(silence),
    ):
        builder = digits_dataset_builder.Builder(data_dir=folder)
        builder.download_and_prepare()
        made = pathlib.Path(builder.data_path)
        common = pathlib.Path(data_dir, *made.relative_to(folder).parts)
        common.parent.mkdir(exist_ok=True)
        try:
            made.rename(common)
        except OSError:
            if prepared.find_prepared("digits", data_dir) is None:
                raise
    return os.fspath(common)


DIGITS = DatasetSettings(
    input_shape=(8, 8, 1),
    num_classes=10,
    # A flipped digit is no digit, and 8 pixels leave no room to erase: they
    # are only moved by a pixel.
    preprocess=Preprocess(mean=(77.84,), stddev=(95.92,), padding=1),
    defaults=DatasetDefaults(
        model="resnet8",
        num_workers=32,
        examples_per_worker=16,
        epochs=120,
        base_rate=0.1,
        methods={
            "gnc": {"alpha": 0.1},
            "rnc": {"alpha": 0.01},
            "gnc_to_rnc": {
                "alpha": 0.1,
                "alpha_rnc": 2.0,
                "switch_epoch": Fraction(3, 4),
            },
        },
        debug={"model": "resnet8"},
    ),
    load=_load,
)
