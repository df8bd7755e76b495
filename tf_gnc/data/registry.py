"""The data sets by name: a new one is a file in `sets/` and a line here."""

from tf_gnc.data.sets import cifar, digits, imagenet
from tf_gnc.data.settings import DatasetSettings

DATASETS: dict[str, DatasetSettings] = {
    "digits": digits.DIGITS,
    "cifar10": cifar.CIFAR10,
    "cifar100": cifar.CIFAR100,
    "imagenet2012": imagenet.IMAGENET,
}
