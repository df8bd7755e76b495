"""Several logical devices on one real one: replicas that run side by side.

Workers of a replica on a GPU run one after another, and small ones leave most
of it idle. Each logical device has streams and memory of its own.
"""

import subprocess

import tensorflow as tf

from tf_gnc import _check

# What is left of a GPU's memory to CUDA itself.
_SHARE = 0.9


def split_device(count: int) -> list[str]:
    """Makes logical devices of the only GPU, or of the CPU if there is none.

    Returns their names. Call it before TensorFlow starts.

    Raises:
        ValueError: If there are several GPUs, or the GPU's memory isn't known.
        RuntimeError: If TensorFlow has started.
    """
    count = _check.integer("logical_devices", count, minimum=2)
    gpus = tf.config.get_visible_devices("GPU")
    if len(gpus) > 1:
        raise ValueError(
            "`logical_devices` divides one GPU, got "
            f"logical_devices={count} with {len(gpus)} GPUs. Leave it out: "
            "each GPU is a replica. Or let this process see one alone, "
            "CUDA_VISIBLE_DEVICES=0."
        )
    device = gpus[0] if gpus else tf.config.get_visible_devices("CPU")[0]
    limit = int(_SHARE * _gpu_memory() / count) if gpus else None
    made = [tf.config.LogicalDeviceConfiguration(limit)] * count
    try:
        tf.config.set_logical_device_configuration(device, made)
    except RuntimeError as error:
        raise RuntimeError(
            "Logical devices must be made before TensorFlow starts, but an "
            "operation has run or devices have been listed already. Call "
            "`make_strategy` first in your script."
        ) from error
    kind = "GPU" if gpus else "CPU"
    return [f"{kind}:{number}" for number in range(count)]


def _gpu_memory() -> int:
    """Returns the memory of the first GPU that is seen, in MiB."""
    command = [
        "nvidia-smi", "--query-gpu=memory.total",
        "--format=csv,noheader,nounits",
    ]  # fmt: skip
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, check=True, timeout=60
        )
        return int(done.stdout.split()[0])
    except (OSError, subprocess.SubprocessError, ValueError, IndexError) as e:
        raise ValueError(
            "`logical_devices` needs to know the GPU's memory, and "
            f"`{' '.join(command)}` didn't say: {e}. Install NVIDIA's tools, "
            "or leave it out."
        ) from e
