"""A run's configuration as text: each value, and where it comes from."""

from collections.abc import Mapping
from typing import Any

from tf_gnc._settings import settings_of
from tf_gnc.cli.config_flags import chosen_of
from tf_gnc.experiments import RunConfig
from tf_gnc.experiments.defaults import decided_by_data, names_in_config
from tf_gnc.experiments.recipes import RECIPES


def describe(config: RunConfig, given: Mapping[str, Any]) -> str:
    """Returns all that decides a run, a line for each value.

    `config` is what the given flags came to.
    """
    fields = settings_of(type(config))
    chosen = chosen_of(given)
    recipe = {}
    if "recipe" in given:
        recipe = RECIPES[given["recipe"]].values([config.method])
        recipe["method"] = config.method
    both = {**recipe, **chosen}
    run = both.pop("dataset", config.dataset), both.pop("method", config.method)
    sources = {
        "data set": decided_by_data(*run, both),
        "recipe": names_in_config(config.method, recipe),
        "flag": names_in_config(config.method, chosen),
    }
    where = {name: word for word, names in sources.items() for name in names}
    values = config.to_dict()
    widths = [
        max(map(len, values)), max(len(str(v)) for v in values.values()),
    ]  # fmt: skip
    lines, title = [], None
    for name, value in values.items():
        group = fields[name].group if name in fields else "Noise"
        if group != title:
            lines, title = [*lines, f"{group}:"], group
        shown = "none" if value is None else str(value)
        lines.append(
            f"  {name:{widths[0]}}  {shown:{widths[1]}}  "
            f"{where.get(name, 'default')}"
        )
    return "\n".join(lines)
