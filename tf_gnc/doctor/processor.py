"""What this machine's processor could do that a run doesn't ask for.

TensorFlow has faster kernels for some processors. It uses those for bfloat16
if a model computes in it, and leaves oneDNN's off where it expects no gain.
"""

import os
import pathlib
from collections.abc import Set as AbstractSet

import keras
import tensorflow as tf

BFLOAT16 = frozenset({"avx512_bf16", "amx_bf16"})
"""What a processor calls its instructions for bfloat16, one suffices."""

# TensorFlow uses oneDNN by itself where it finds one of these.
_ONEDNN = BFLOAT16 | {"avx512_vnni", "avx_vnni", "amx_tile", "amx_int8"}

_SWITCH = "TF_ENABLE_ONEDNN_OPTS"


def processor_flags() -> set[str]:
    """Returns the names of this processor's instructions; none if unknown."""
    try:
        lines = pathlib.Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return set()
    found = [line.split(":")[1] for line in lines if line.startswith("flags")]
    return set(found[0].split()) if found else set()


def speed_advice(
    model: keras.Model, flags: AbstractSet[str] | None = None
) -> list[str]:
    """Returns what might make a model's steps faster here, as sentences.

    Of accelerators, and of a processor that isn't known, it says nothing.
    `flags` stand for `processor_flags()`.

    Example:
        >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])
        >>> speed_advice(model, {"avx512_bf16"})[0][:45]
        'This processor computes in bfloat16 (avx512_b'
    """
    flags = processor_flags() if flags is None else flags
    devices = tf.config.list_logical_devices()
    if not flags or any(d.device_type in ("GPU", "TPU") for d in devices):
        return []
    advice = []
    able, half = BFLOAT16 & flags, model.compute_dtype == "bfloat16"
    if able and model.compute_dtype == "float32":
        advice.append(
            f"This processor computes in bfloat16 ({min(able)}): "
            "--dtype=mixed_bfloat16 would be faster."
        )
    elif half and not able:
        advice.append(
            "This processor has no instructions for bfloat16 (AVX512_BF16 or "
            "AMX): mixed_bfloat16 is slower here than float32."
        )
    if not _ONEDNN & flags and _SWITCH not in os.environ:
        advice.append(
            "TensorFlow leaves oneDNN's kernels off on this processor. Try "
            f"{_SWITCH}=1 in the environment: networks with many convolutions "
            "are faster, tiny ones slower."
        )
    return advice
