"""Whether a method's whole step is one XLA program with static shapes.

    python benchmarks/xla_program.py                   # ResNet-50, all methods
    python benchmarks/xla_program.py --methods=gnc,sam

That is what a TPU asks for. The step is lowered to XLA's language, and nothing
is run. The batch is small, which changes no instruction.
"""

import re
import time

import tensorflow as tf
from absl import app, flags

from tf_gnc.experiments import METHODS, build_model, make_config

FLAGS = flags.FLAGS
flags.DEFINE_list("methods", list(METHODS), "Methods to look at.")
flags.DEFINE_string("model", "resnet50", "The network.")

WORKERS, ROWS = 4, 8
# What leaves the device in the middle of a program.
HOST = ("infeed", "outfeed", "send", "recv", "host")


def main(_: list[str]) -> None:
    """Prints a line for each method."""
    print("| method | instructions | dynamic shapes | calls of the host | s |")
    print("|---|---|---|---|---|")
    for method in FLAGS.methods:
        began = time.perf_counter()
        text = program(method)
        shapes = re.findall(r"\[<=|\[[^\]]*,<=", text)
        calls = [
            line
            for line in text.splitlines()
            if any(re.search(rf"= \S+ {word}", line) for word in HOST)
        ]
        print(
            f"| {method} | {text.count(' = '):,} | {len(shapes)} | "
            f"{len(calls)} | {time.perf_counter() - began:.0f} |",
            flush=True,
        )


def program(method: str) -> str:
    """Returns the step of a method in XLA's language; it must have one."""
    config = make_config(
        "imagenet2012", method, model=FLAGS.model, num_workers=WORKERS,
        batch_size=ROWS,
    )  # fmt: skip
    model = build_model(config, config.learning_rate)
    _ = model.step_plan
    x = tf.zeros([ROWS, *model.input_shape[1:]])
    y = tf.zeros([ROWS], tf.int64)
    step = tf.function(
        lambda x, y: model.train_step((x, y)),
        jit_compile=True,
        autograph=False,
    )
    return step.experimental_get_compiler_ir(x, y)(stage="hlo")


if __name__ == "__main__":
    app.run(main)
