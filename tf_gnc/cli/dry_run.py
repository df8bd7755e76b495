"""A run's configuration as text: each value, and where it comes from."""

from collections.abc import Mapping
from typing import Any

from tf_gnc._settings import settings_of
from tf_gnc.cli.config_flags import chosen_of, recipe_of
from tf_gnc.experiments import RunConfig
from tf_gnc.experiments.defaults import decided_by_data, names_in_config


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
