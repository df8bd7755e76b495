"""One variant of benchmarks/step_cost.py, in a process of its own.

    python benchmarks/step_cost_child.py NETWORK KIND WORKERS EXAMPLES DTYPE

Takes a step for each line "step" that it reads and answers with its
milliseconds; for "end" with the process's peak memory in MB, and ends.
"""

import os
import resource
import sys
import time
from collections.abc import Callable
from typing import Any

# name: side of the pictures, classes
NETWORKS = {
    "resnet32": (32, 100),
    "resnet50": (64, 1000),
    "mobilenet_v2": (64, 1000),
    "embedding": (64, 1),
}
WORDS, WIDTH = 2_000_000, 16
PEAK_SIZE = 2048  # rows and columns of the matrices that are multiplied


def answer(
    step: Callable[[], Any], flops: float = 0.0, weights: int = 0
) -> None:
    """Does what the lines of standard input say."""
    start = time.perf_counter()
    step()
    print("ready", time.perf_counter() - start, flops, weights, flush=True)
    step()
    for line in sys.stdin:
        if line.strip() == "end":
            break
        start = time.perf_counter()
        step()
        print("step", 1000 * (time.perf_counter() - start), flush=True)
    usage = resource.getrusage(resource.RUSAGE_SELF)
    print("end", usage.ru_maxrss / 1024, flush=True)


def main() -> None:
    """Makes the step that the command line names."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    network, kind, workers, examples, dtype = sys.argv[1:]
    import tf_gnc

    if kind == "thread":
        tf_gnc.set_threads(1)
    elif kind not in ("keras", "peak"):
        tf_gnc.set_threads()
    if kind == "peak":
        answer(_product(dtype), 2.0 * PEAK_SIZE**3)
        return
    answer(*_training(network, kind, int(workers), int(examples), dtype))


def _product(dtype: str) -> Callable[[], Any]:
    """Returns a product of large matrices on TensorFlow's own threads."""
    import tensorflow as tf

    shape = [PEAK_SIZE, PEAK_SIZE]
    a = tf.cast(tf.random.normal(shape), dtype.replace("mixed_", ""))
    multiply = tf.function(lambda: tf.reduce_sum(tf.matmul(a, a)))
    return lambda: multiply().numpy()


def _training(
    network: str, kind: str, workers: int, examples: int, dtype: str
) -> tuple[Callable[[], Any], float, int]:
    """Returns a step, its floating-point operations, and how many weights."""
    import keras
    import tensorflow as tf

    import tf_gnc

    keras.config.set_dtype_policy(dtype)
    model, x, y = _model_and_data(network, examples)
    arguments = {}
    if kind not in ("keras", "thread"):
        model = tf_gnc.layers.fuse_batch_norm(
            tf_gnc.GNCModel(model.inputs, model.outputs)
        )
        rules = {
            "none": None,
            "gnc": tf_gnc.GradientNoise(alpha=0.1),
            "rnc": tf_gnc.RandomNoise(alpha=0.1, seed=1),
            "extrapolation": tf_gnc.GradientNoise(0.1, center=False),
            "gnc_uphill": tf_gnc.GradientNoise(0.1, uphill=True),
            "gnc_current": tf_gnc.GradientNoise(0.1, current=True),
            "momentum_sam": tf_gnc.MomentumNoise(0.3),
            "worker_sam": tf_gnc.SharpnessAware(0.05),
            "sam": tf_gnc.SharpnessAware(0.05, "all"),
            "asam": tf_gnc.SharpnessAware(0.5, "all", adaptive=True),
        }
        arguments = {"noise": rules[kind], "num_workers": workers}
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    if network == "embedding":
        loss = "mse"
    model.compile(
        keras.optimizers.SGD(0.1, momentum=0.9),
        loss,
        metrics=["accuracy"],
        jit_compile=False,
        **arguments,
    )
    data = iter(tf.data.Dataset.from_tensors((x, y)).repeat())
    # What `fit` calls for each batch, callbacks left out.
    model.make_train_function()
    weights = sum(v.shape.num_elements() for v in model.trainable_variables)
    return lambda: model.train_function(data), len(x) * flops(model), weights


def _model_and_data(network: str, batch: int) -> tuple[Any, Any, Any]:
    """Returns a stock Keras model, and a batch for it."""
    import keras
    import numpy as np

    from tf_gnc.layers.fuse import with_stock_batch_norm
    from tf_gnc.models.resnet import resnet
    from tf_gnc.models.resnet50 import resnet50

    rng = np.random.default_rng(0)
    side, classes = NETWORKS[network]
    if network == "embedding":
        words = keras.Input((side,), dtype="int32")
        h = keras.layers.Embedding(WORDS, WIDTH)(words)
        h = keras.layers.GlobalAveragePooling1D()(h)
        model = keras.Model(words, keras.layers.Dense(1)(h))
        x = rng.integers(0, WORDS, (batch, side))
        return model, x, rng.normal(size=(batch, 1)).astype("float32")
    shape = (side, side, 3)
    if network == "resnet32":
        # The projection shortcut is what the PyTorch loop has.
        model = resnet(5, classes, shape, shortcut="projection")
    elif network == "resnet50":
        model = resnet50("v1.5", classes, shape)
    else:
        model = keras.applications.MobileNetV2(
            shape, weights=None, classes=classes, classifier_activation=None
        )
    x = rng.normal(size=(batch, *shape)).astype("float32")
    return with_stock_batch_norm(model), x, rng.integers(0, classes, batch)


def flops(model: Any) -> float:
    """Returns the operations that training takes for each example.

    Those of convolutions and dense layers: two for each weight and place
    forwards, and twice that backwards.
    """
    import keras

    total = 0.0
    for layer in model.layers:
        if isinstance(layer, keras.layers.Dense):
            total += 2.0 * layer.kernel.shape.num_elements()
        elif isinstance(
            layer, keras.layers.Conv2D | keras.layers.DepthwiseConv2D
        ):
            _, rows, columns, _ = layer.output.shape
            total += 2.0 * rows * columns * layer.kernel.shape.num_elements()
    return 3 * total


if __name__ == "__main__":
    main()
