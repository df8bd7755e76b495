"""Weights & Biases: a run in the project that its own environment names."""

import os
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tf_gnc.experiments.loggers.logger import Logger, Point


class WandB(Logger):
    """Settings as config, numbers as history, the picture as an artifact.

    Offline (WANDB_MODE=offline) each process of a run leaves a folder of its
    own with the run's one id, and `wandb sync` sends them one after another.
    """

    package = "wandb"

    def open(self, kept: str | None) -> str:
        """Begins a run, or goes on in one."""
        import wandb

        self._run = wandb.init(
            id=kept or uuid.uuid4().hex[:8],
            name=self.run.name,
            group=self.run.group,
            config=dict(self.run.about["config"]),
            resume="allow",
        )
        others = {k: v for k, v in self.run.about.items() if k != "config"}
        self._run.config.update({"tf_gnc": others}, allow_val_change=True)
        return self._run.id

    def write(self, points: Sequence[Point]) -> None:
        """Writes rows of the history."""
        rows: dict[int, dict[str, float]] = {}
        for point in points:
            rows.setdefault(point.step, {}).update(point.numbers)
        for step, row in rows.items():
            # Now, since a kill loses a row that might still get more.
            self._run.log(row, step=step, commit=True)

    def finish(self, summary: Mapping[str, Any], curves: Path) -> None:
        """Writes the summary, and the picture."""
        self._run.summary.update({"summary": dict(summary)})
        name = f"{self._run.id}-curves"
        self._run.log_artifact(os.fspath(curves), name=name, type="figure")

    def close(self, outcome: str) -> None:
        """Ends the run."""
        self._run.finish(exit_code=int(outcome != "finished"))
