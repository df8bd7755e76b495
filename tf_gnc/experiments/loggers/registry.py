"""The loggers by name. A new one is a file beside this and a line here."""

from tf_gnc import _check, _files
from tf_gnc.experiments.loggers.logger import LoggedRun, Logger
from tf_gnc.experiments.loggers.mlflow import MLflow
from tf_gnc.experiments.loggers.tensorboard import TensorBoard
from tf_gnc.experiments.loggers.wandb import WandB

LOGGERS: dict[str, type[Logger]] = {
    "tensorboard": TensorBoard,
    "mlflow": MLflow,
    "wandb": WandB,
}


def check(name: str) -> str:
    """Returns the name of a logger that can be used.

    Raises:
        ValueError: If there is none of that name.
        MissingExtraError: If its package isn't installed.
    """
    _check.choice("log", name, LOGGERS)
    if package := LOGGERS[name].package:
        _files.import_extra(f"--log={name}", package, name)
    return name


def make(name: str, run: LoggedRun) -> Logger:
    """Returns a logger for a run."""
    return LOGGERS[name](run)
