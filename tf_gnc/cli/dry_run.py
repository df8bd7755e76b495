"""What would be done, as text: a run's configuration, a process's share."""

from collections.abc import Mapping
from typing import Any

import tensorflow as tf

from tf_gnc import doctor
from tf_gnc._settings import settings_of
from tf_gnc.cli.config_flags import chosen_of, recipe_of
from tf_gnc.experiments import RunConfig, build_model
from tf_gnc.experiments.defaults import decided_by_data, names_in_config
from tf_gnc.experiments.run.building import carries
from tf_gnc.step import workers


def describe(config: RunConfig, given: Mapping[str, Any]) -> str:
    """Returns all that decides the run that flags ask for, a line a value."""
    fields = settings_of(type(config))
    chosen, recipe, method = chosen_of(given), recipe_of(given), config.method
    by_recipe = {}
    if recipe is not None:
        by_recipe = {**recipe.values([method]), "method": method}
    sources = {
        "data set": decided_by_data(
            config.dataset, method, {**by_recipe, **chosen}
        ),
        "recipe": names_in_config(method, by_recipe),
        "flag": names_in_config(method, chosen),
    }
    where = {name: word for word, names in sources.items() for name in names}
    values = config.to_dict()
    if values["remainder"] == "carry" and not carries(config):
        values["remainder"], where["remainder"] = "drop", "max_steps"
    widths = [
        max(map(len, values)), max(len(str(v)) for v in values.values()),
    ]  # fmt: skip
    lines, title = [], None
    for name, value in values.items():
        group = fields[name].group if name in fields else "Noise"
        if group != title:
            lines, title = [*lines, f"{group}:"], group
        shown = "unset" if value is None else str(value)
        lines.append(
            f"  {name:{widths[0]}}  {shown:{widths[1]}}  "
            f"{where.get(name, 'default')}"
        )
    return "\n".join(lines)


def num_gpus() -> int:
    """Returns how many GPUs a process on this machine would take."""
    return len(tf.config.list_physical_devices("GPU"))


class Share:
    """What each process of a cluster has of one run, with so many GPUs each.

    Raises:
        ValueError: If the processes can't share its workers.
    """

    def __init__(
        self, config: RunConfig, num_processes: int, gpus: int
    ) -> None:
        self._where = "a GPU each" if gpus else "on the CPU"
        self._replicas = max(1, gpus)
        self._config = config
        per_replica = workers.per_replica(
            config.num_workers, num_processes * self._replicas
        )
        self._workers = per_replica * self._replicas
        model = build_model(config, config.learning_rate)
        self._noise = doctor.memory_forecast(model, per_replica)

    def of(self, index: int) -> str:
        """Returns the share of the process with that number."""
        config, first = self._config, index * self._workers
        b = config.examples_per_worker
        return (
            f"{self._replicas} replica{'s' * (self._replicas > 1)} "
            f"{self._where}, workers {first} to {first + self._workers - 1} of "
            f"{config.num_workers}, rows {first * b} to "
            f"{(first + self._workers) * b - 1} of each batch of "
            f"{config.batch_size}, noise {self._noise.text} a replica"
        )
