"""TensorBoard's files, which TensorFlow writes: no other package is needed."""

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import tensorflow as tf

from tf_gnc.experiments.loggers.logger import Logger, Point, numbers_of

_CLASSES = {
    "scalars": "DATA_CLASS_SCALAR",
    "text": "DATA_CLASS_TENSOR",
    "images": "DATA_CLASS_BLOB_SEQUENCE",
}


class TensorBoard(Logger):
    """Event files in a folder; each process of a run adds one."""

    def open(self, kept: str | None) -> str:
        """Begins a file, at first with the settings as text."""
        folder = os.fspath(self.run.tensorboard)
        self._step = 0
        self._writer = tf.summary.create_file_writer(folder)
        if kept is None:
            text = json.dumps(self.run.about, indent=2)
            self._write("config", 0, f"```\n{text}\n```", "text")
            self._writer.flush()
        return folder

    def write(self, points: Sequence[Point]) -> None:
        """Writes scalars."""
        for point in points:
            self._step = point.step
            for name, number in point.numbers.items():
                self._write(name, point.step, number, "scalars")
        self._writer.flush()

    def finish(self, summary: Mapping[str, Any], curves: Path) -> None:
        """Writes the summary's numbers, and the picture."""
        for name, number in numbers_of(summary, "summary/").items():
            self._write(name, self._step, number, "scalars")
        png = tf.io.read_file(os.fspath(curves))
        height, width, _ = tf.io.decode_png(png).shape
        picture = tf.stack([str(width), str(height), png])
        self._write("curves", self._step, picture, "images")

    def close(self, outcome: str) -> None:
        """Ends the file."""
        self._writer.close()

    def _write(self, name: str, step: int, value: Any, plugin: str) -> None:
        # What `tf.summary.scalar` and its kin do, which need TensorBoard
        # installed; that may be on another machine.
        kind = tf.compat.v1.SummaryMetadata(
            plugin_data={"plugin_name": plugin}, data_class=_CLASSES[plugin]
        )
        if plugin == "scalars":
            value = tf.constant(value, tf.float32)
        with self._writer.as_default(step=step), tf.device("cpu:0"):
            tf.summary.write(name, value, metadata=kind)
