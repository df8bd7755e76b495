"""MLPerf's ResNet-50 with LARS: tuned baselines for ImageNet, without noise.

Source   MLCommons' reference convergence points for MLPerf Training 4.0,
         github.com/mlcommons/logging, rcp_checker/training_4.0.0/
         rcps_resnet.json: rate, warm-up, momentum, decay, and the epochs in
         which runs reached 75.9 %. Label smoothing of 0.1 and v1.5 as in its
         reference implementation.

Deviation: each worker normalises its own examples, so there are as many
workers as give the published span of batch normalization. Decay steps are
counted as in the reference implementation: from the end of the warm-up, one
more than there are steps. Some rows reached their accuracy well before the
end of that.
"""

import math
from collections.abc import Iterator
from typing import NamedTuple

from tf_gnc.experiments.recipes.recipe import Recipe

_IMAGES = 1_281_167


class _Row(NamedTuple):
    batch_size: int
    learning_rate: float
    warmup_epochs: int
    momentum: float
    weight_decay: float
    decay_steps: int
    span: int
    epochs: str


_ROWS = (
    _Row(1_632, 7.4, 2, 0.9, 5e-5, 27_476, 204, "33 to 37"),
    _Row(4_096, 10.0, 5, 0.9, 2e-4, 13_137, 64, "39 to 42"),
    _Row(8_192, 17.0, 5, 0.9, 2e-4, 6_095, 64, "41 to 44"),
    _Row(13_056, 12.8, 9, 0.9, 2.5e-5, 4_710, 204, "44 to 46"),
    _Row(32_768, 21.2, 16, 0.94, 2.5e-5, 2_267, 128, "55 to 57"),
    _Row(49_152, 19.405, 24, 0.951807, 1e-4, 1_846, 256, "67 to 69"),
    _Row(65_536, 24.699, 31, 0.951807, 1e-4, 1_133, 128, "83 to 86"),
)


def mlperf() -> Iterator[Recipe]:
    """Yields a baseline for each batch size."""
    for row in _ROWS:
        per_epoch = _IMAGES / row.batch_size
        warm_up = int(row.warmup_epochs * per_epoch)
        epochs = math.ceil((warm_up + row.decay_steps - 1) / per_epoch)
        yield Recipe(
            name=f"mlperf-{row.batch_size}",
            table="mlperf",
            summary="a tuned baseline, LARS without noise",
            dataset="imagenet2012",
            settings={
                "model": "resnet50_v1_5",
                "batch_size": row.batch_size,
                "remainder": "carry",
                "num_workers": row.batch_size // row.span,
                "epochs": epochs,
                "learning_rate": row.learning_rate,
                "start_rate": 0.0,
                "warmup": row.warmup_epochs / epochs,
                "momentum": row.momentum,
                "weight_decay": row.weight_decay,
                # A few more than the row's: its last epoch is made whole.
                "decay_steps": int(epochs * per_epoch) - warm_up + 1,
                "collapse_epoch": 0,
                "optimizer": "lars",
                "lars_variant": "mlperf",
                "label_smoothing": 0.1,
            },
            source="mlcommons/logging, rcp_checker/training_4.0.0/"
            "rcps_resnet.json",
            cost=f"{epochs} epochs of ImageNet: GPUs or TPUs",
            methods=("dpsgd",),
            published_note=f"75.9 % within {row.epochs} epochs",
        )
