"""CIFAR-10 and CIFAR-100: 50,000 pictures to train on, 10,000 to test on.

Paper   Haruki et al. (2019), arXiv:1906.10822, Tables 3 to 5, appendix A.4.
"""

from fractions import Fraction

from tf_gnc.data.preprocess import Preprocess, in_bytes
from tf_gnc.data.settings import DatasetDefaults, DatasetSettings


def _cifar(
    num_classes: int,
    mean: tuple[float, ...],
    stddev: tuple[float, ...],
    rnc: dict[int, float],
    gnc_to_rnc: dict[int, float],
) -> DatasetSettings:
    """Returns the settings, given what the two data sets differ in.

    Mean and standard deviation are those of all pixels to train on, 0 to 1;
    `rnc` and `gnc_to_rnc` are the coefficient of random noise by batch size,
    alone and after gradient noise.
    """
    return DatasetSettings(
        input_shape=(32, 32, 3),
        num_classes=num_classes,
        preprocess=Preprocess(
            in_bytes(*mean), in_bytes(*stddev), padding=4, flip=True, erase=True
        ),
        defaults=DatasetDefaults(
            model="resnet32",
            num_workers=256,
            examples_per_worker=32,
            epochs=160,
            base_rate=0.1,
            methods={
                "gnc": {"alpha": 0.1},
                "rnc": {"alpha": rnc},
                "gnc_to_rnc": {
                    "alpha": 0.1,
                    "alpha_rnc": gnc_to_rnc,
                    "switch_epoch": Fraction(3, 4),
                },
            },
            debug={"model": "resnet8"},
        ),
    )


CIFAR10 = _cifar(
    num_classes=10,
    mean=(0.4914, 0.4822, 0.4465),
    stddev=(0.2470, 0.2435, 0.2616),
    rnc={4096: 0.01, 8192: 0.01},
    gnc_to_rnc={4096: 4.0, 8192: 2.0},
)

CIFAR100 = _cifar(
    num_classes=100,
    mean=(0.5071, 0.4865, 0.4409),
    stddev=(0.2673, 0.2564, 0.2762),
    rnc={4096: 0.001, 8192: 0.01},
    gnc_to_rnc={4096: 2.0, 8192: 4.0},
)
