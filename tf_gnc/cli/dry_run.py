"""A run's configuration as text: each value, and where it comes from."""

from collections.abc import Mapping
from typing import Any

from tf_gnc._settings import settings_of
from tf_gnc.cli.config_flags import chosen_of
from tf_gnc.experiments import RunConfig
from tf_gnc.experiments.defaults import decided_by_data, split
from tf_gnc.experiments.methods import flat, known_to, settings_for
from tf_gnc.experiments.recipes import RECIPES


def describe(config: RunConfig, given: Mapping[str, Any]) -> str:
    """Returns all that decides a run, a line for each value.

    Args:
        config: What the flags came to.
        given: The flags that were given.
    """
    chosen = chosen_of(given)
    recipe = {}
    if "recipe" in given:
        found = RECIPES[given["recipe"]]
        recipe = {
            "dataset": found.dataset,
            "method": config.method,
            "deterministic": True,
            **found.settings,
        }
    both = {n: v for n, v in {**recipe, **chosen}.items() if v is not None}
    run = both.pop("dataset", config.dataset), both.pop("method", config.method)
    sources = {
        "data set": decided_by_data(*run, _of_method(config.method, both)),
        "recipe": _names(config.method, recipe),
        "flag": _names(config.method, chosen),
    }
    where = {name: word for word, names in sources.items() for name in names}
    values = config.to_dict()
    fields = settings_of(type(config))
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


def _of_method(method: str, values: Mapping[str, Any]) -> dict[str, Any]:
    """Returns values without those that are other methods' settings."""
    fields, own = split(values)
    known = known_to(method)
    return fields | {name: v for name, v in own.items() if name in known}


def _names(method: str, values: Mapping[str, Any]) -> set[str]:
    """Returns the names in a configuration that values are for."""
    fields, own = split(_of_method(method, values))
    taken = settings_for([method], own)[method]
    given = {name for name, value in fields.items() if value is not None}
    return given | set(flat(method, taken, settings_of(RunConfig)))
