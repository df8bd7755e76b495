"""A tensorflow-datasets builder that needs no download: 1,797 digits.

The pictures are those of `sklearn.datasets.load_digits`, which scikit-learn
carries in its package: the test set of the "Optical Recognition of
Handwritten Digits" data of the UCI repository. It knows nothing of training.

Importing this file imports tensorflow-datasets, which needs the package
importlib_resources without declaring it.
"""

from collections.abc import Iterator

import numpy as np
import tensorflow_datasets as tfds

_TEST_EVERY = 5


class Builder(tfds.core.GeneratorBasedBuilder):
    """Builds `digits`: 8x8 grey pictures of 0..9, 1,437 to train, 360 to test.

    Scikit-learn's pixels count ink from 0 to 16. Here they are bytes,
    round(ink * 255 / 16), so that white on black covers 0..255 and the ink can
    be had back exactly. Every fifth scan in scikit-learn's order (0, 5, ...)
    is in `test`, the others are in `train`, both in the original order.
    Neighbouring scans may share a writer, so the split measures fit to these
    writers rather than to new ones.
    """

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES = {"1.0.0": "First release."}

    def _info(self) -> tfds.core.DatasetInfo:
        return tfds.core.DatasetInfo(
            builder=self,
            description=" ".join(self.__doc__.split()),
            features=tfds.features.FeaturesDict(
                {
                    "image": tfds.features.Image(shape=(8, 8, 1)),
                    "label": tfds.features.ClassLabel(num_classes=10),
                }
            ),
            supervised_keys=("image", "label"),
            homepage="https://archive.ics.uci.edu/dataset/80/",
            citation=(
                "@misc{digits, author={Alpaydin, E. and Kaynak, C.}, "
                "title={Optical Recognition of Handwritten Digits}, "
                "year={1998}, doi={10.24432/C50P49}}"
            ),
            # Keeps scikit-learn's order on the disk.
            disable_shuffling=True,
        )

    def _split_generators(
        self, dl_manager: tfds.download.DownloadManager
    ) -> dict[str, Iterator]:
        del dl_manager  # nothing to download
        return {
            "train": self._generate_examples(test=False),
            "test": self._generate_examples(test=True),
        }

    def _generate_examples(self, test: bool) -> Iterator[tuple[int, dict]]:
        from sklearn import datasets  # late: takes a second to import

        digits = datasets.load_digits()
        images = np.round(digits.images * (255 / 16)).astype(np.uint8)
        labels = digits.target.tolist()
        for i, (image, label) in enumerate(zip(images, labels, strict=True)):
            if (i % _TEST_EVERY == 0) == test:
                yield i, {"image": image[..., None], "label": label}
