"""Finds a data set by its name and loads it."""

import os

from tf_gnc import _check
from tf_gnc.data.registry import DATASETS
from tf_gnc.data.sources import Source


def load(
    name: str,
    data_dir: str | os.PathLike | None = None,
    download: bool = False,
) -> Source:
    """Returns a data set: arrays in memory, or ImageNet in its files.

    The digits need no download: they are prepared on the spot if need be. The
    others must have been prepared by tensorflow-datasets, for ImageNet as
    TFRecord files. Nothing reaches for the network unless asked to.

    Args:
        name: A key of `DATASETS`.
        data_dir: Where prepared data sets lie. Default: where
            tensorflow-datasets keeps them, `~/tensorflow_datasets` or
            `$TFDS_DATA_DIR`.
        download: Whether to download and prepare what is missing. Nobody may
            download ImageNet for you; once its archives are there, this
            prepares them.

    Raises:
        DatasetNotFoundError: If the data set is not there.
        OSError: If the digits cannot be written to `data_dir`.
        ValueError: If the name is unknown, or ImageNet has another form.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as data_dir:
        ...     digits = load("digits", data_dir)
        >>> digits.train_images.shape, digits.test_labels[:5].tolist()
        ((1437, 8, 8, 1), [0, 5, 0, 5, 0])
    """
    settings = DATASETS[_check.choice("name", name, DATASETS)]
    download = _check.boolean("download", download)
    if data_dir is None:
        import tensorflow_datasets as tfds

        data_dir = tfds.core.constants.DATA_DIR
    data_dir = os.path.expanduser(os.fspath(data_dir))
    return settings.load(name, data_dir, download, settings.preprocess)
