"""MLflow: a run in the experiment that its own environment names."""

import contextlib
import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from tf_gnc.experiments.loggers.logger import Logger, Point, flat, numbers_of

# MLflow takes no more at a time, and no longer values of parameters.
_MOST_METRICS, _MOST_PARAMS, _LONGEST = 1000, 100, 500

_STATUS = {"finished": "FINISHED", "failed": "FAILED", "killed": "KILLED"}

# Its own are 7 and 120: minutes in which training stands still. We ask again.
_IMPATIENT = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "15",
}


class MLflow(Logger):
    """Settings as parameters, numbers as metrics, files as artifacts."""

    package = "mlflow"
    _run: Any = None

    def open(self, kept: str | None) -> str:
        """Begins a run, or goes on in one."""
        import mlflow

        with _impatiently():
            if self._run is None:
                self._run = mlflow.start_run(
                    kept, run_name=None if kept else self.run.name, nested=True
                )
            self._id = self._run.info.run_id
            self._client = mlflow.MlflowClient()
            if not self._run.data.params:
                self._describe(mlflow)
        return self._id

    def write(self, points: Sequence[Point]) -> None:
        """Writes metrics; those of one call twice are there once."""
        from mlflow.entities import Metric

        metrics = [
            Metric(name, number, int(1000 * point.seconds), point.step)
            for point in points
            for name, number in point.numbers.items()
        ]
        with _impatiently():
            for first in range(0, len(metrics), _MOST_METRICS):
                part = metrics[first : first + _MOST_METRICS]
                self._client.log_batch(self._id, metrics=part)

    def finish(self, summary: Mapping[str, Any], curves: Path) -> None:
        """Writes the summary's numbers and both files."""
        with _impatiently():
            for name, number in numbers_of(summary, "summary/").items():
                self._client.log_metric(self._id, name, number)
            self._client.log_dict(self._id, dict(summary), "summary.json")
            self._client.log_artifact(self._id, os.fspath(curves))

    def close(self, outcome: str) -> None:
        """Ends the run."""
        import mlflow

        with _impatiently():
            mlflow.end_run(_STATUS[outcome])

    def _describe(self, mlflow: Any) -> None:
        about = self.run.about
        self._client.log_dict(self._id, dict(about), "config.json")
        if self.run.group:
            self._client.set_tag(self._id, "group", self.run.group)
        params = [
            mlflow.entities.Param(name, str(value)[:_LONGEST])
            for name, value in flat(about["config"])
        ]
        for first in range(0, len(params), _MOST_PARAMS):
            part = params[first : first + _MOST_PARAMS]
            self._client.log_batch(self._id, params=part)


@contextlib.contextmanager
def _impatiently() -> Iterator[None]:
    """Has a server that is away cost seconds, unless the user says how many."""
    ours = {n: v for n, v in _IMPATIENT.items() if n not in os.environ}
    noisy = logging.getLogger("urllib3.connectionpool")
    before = noisy.level
    os.environ.update(ours)
    noisy.setLevel(logging.CRITICAL)  # Its errors come to us.
    try:
        yield
    finally:
        noisy.setLevel(before)
        for name in ours:
            os.environ.pop(name, None)
