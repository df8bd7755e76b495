"""Experiments by name: the paper's, MLPerf's baselines, and small ones."""

import itertools
import types
from collections.abc import Mapping

from tf_gnc.experiments.recipes.laptop import laptop
from tf_gnc.experiments.recipes.mlperf import mlperf
from tf_gnc.experiments.recipes.paper import fig_3c, table_1, table_2
from tf_gnc.experiments.recipes.recipe import Recipe

RECIPES: Mapping[str, Recipe] = types.MappingProxyType(
    {
        recipe.name: recipe
        for recipe in itertools.chain(
            table_1(), table_2(), fig_3c(), mlperf(), laptop()
        )
    }
)
"""All recipes by name."""

TABLES: Mapping[str, tuple[str, ...]] = types.MappingProxyType(
    {
        table: tuple(r.name for r in RECIPES.values() if r.table == table)
        for table in dict.fromkeys(r.table for r in RECIPES.values())
    }
)
"""The names of each table's recipes."""
