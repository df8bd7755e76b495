"""What a recipe is: an experiment by name, with what others found in it."""

import dataclasses
import math
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

from tf_gnc import _check
from tf_gnc._settings import settings_of
from tf_gnc.data import DATASETS
from tf_gnc.experiments.compare.plan import Plan, Published, make_plan
from tf_gnc.experiments.config import RunConfig, indifferent_settings
from tf_gnc.experiments.defaults import make_config, split
from tf_gnc.experiments.methods.registry import PAPER_METHODS, names_of_settings
from tf_gnc.experiments.user_code import choice_or_own

# Of every recipe, whatever its size, something that is over in seconds. Four
# workers, since the noise's spectrum needs three.
_DEBUG = {
    "epochs": 2,
    "num_workers": 4,
    "batch_size": 8,
    "max_steps": 2,
    "switch_epoch": 1,
}


@dataclasses.dataclass(frozen=True)
class Recipe:
    """One row of a table: settings, methods, and what is known of the result.

    `settings` are fields of `RunConfig` for all methods; `make_config` decides
    the others. `cost` is that of one run. `published` are test accuracies in
    percent, by method; `published_note` says what was published besides,
    `source` where settings and numbers come from, `seen` what came out here.

    Example:
        >>> from tf_gnc.experiments.recipes import RECIPES
        >>> recipe = RECIPES["cifar10-8192"]
        >>> recipe.config("gnc", seed=3).learning_rate
        6.4
        >>> str(recipe.published["gnc"])
        '91.00 ± 1.24'
    """

    name: str
    table: str
    summary: str
    dataset: str
    settings: Mapping[str, Any]
    source: str
    cost: str
    methods: tuple[str, ...] = PAPER_METHODS
    seeds: int = 5
    published: Mapping[str, Published] = dataclasses.field(default_factory=dict)
    published_note: str = ""
    seen: str = "not run here"

    @property
    def command(self) -> str:
        """The command that runs it whole."""
        return f"tf-gnc reproduce {self.table} --rows={self.name}"

    def values(
        self, methods: Sequence[str], scale: float = 1.0
    ) -> dict[str, Any]:
        """Returns what `make_config` has to be told, but for method and seed.

        What matters to other methods of the recipe alone is left out.
        """
        values = {"dataset": self.dataset, "deterministic": True}
        values |= self._scaled(scale)
        used = set(settings_of(RunConfig))
        used = used.union(*map(names_of_settings, methods))
        return {n: v for n, v in values.items() if n in used and v is not None}

    def config(self, method: str, seed: int = 0, **chosen: Any) -> RunConfig:
        """Returns the configuration of one run; `chosen` as for `plan`."""
        return self.plan([method], [seed], **chosen).runs[0]

    def plan(
        self,
        methods: Sequence[str] | None = None,
        seeds: Sequence[int] | None = None,
        baseline: str | None = None,
        scale: float = 1.0,
        **chosen: Any,
    ) -> Plan:
        """Returns the recipe as a comparison.

        With some of its methods, or functions of the user's as well, and with
        other values of `RunConfig`'s fields. `scale` is a share of the epochs;
        warm-up, decays and switch come at the same share of the run.

        Raises:
            ValueError: If a value is illegal, or a method isn't the recipe's.
        """
        methods = list(methods or self.methods)
        for method in methods:
            choice_or_own("methods", method, self.methods)
        scale = _check.real("scale", scale, above=0, maximum=1)
        settings = self.values(methods, scale)
        settings |= {k: v for k, v in chosen.items() if v is not None}
        plan = make_plan(
            methods,
            list(seeds or range(self.seeds)),
            baseline,
            **settings,
        )
        notes = [f"Published: {self.source}"] if self.published else []
        if self.published_note:
            notes.append(f"Published besides: {self.published_note}")
        same = indifferent_settings() | {"deterministic"}
        if scale != 1 or chosen.keys() - same:
            notes.append(
                "This was not the recipe as it stands: its runs were shorter "
                "or otherwise different, and so can't be compared with what "
                "was published."
            )
        return dataclasses.replace(
            plan,
            title=self.name,
            published=self.published,
            notes=tuple(notes),
        )

    def debug(self) -> "Recipe":
        """Returns the same recipe, a few steps long and with tiny batches."""
        settings = {**self.settings, **_DEBUG, "learning_rate": 0.01}
        for name in ("decay_steps", "collapse_epoch", "start_rate"):
            settings.pop(name, None)
        settings |= DATASETS[self.dataset].defaults.debug
        if "gnc_to_rnc" not in self.methods:
            del settings["switch_epoch"]
        return dataclasses.replace(
            self, settings=settings, seeds=1, cost="seconds", published={},
            published_note="",
        )  # fmt: skip

    def header(self) -> str:
        """Returns what there is to know before one runs it."""
        config = self.config(self.methods[0])
        lines = [
            f"{self.name} ({self.table}): {self.summary}",
            f"  Run:        {self.command}",
            f"  Setting:    {config.dataset}, {config.model}, "
            f"{config.num_workers} workers x {config.examples_per_worker} "
            f"examples, {config.epochs} epochs, {self.seeds} seeds of "
            f"{', '.join(self.methods)}",
            f"  Source:     {self.source}",
            f"  Cost:       {self.cost}",
        ]
        found = [f"{m} {value}" for m, value in self.published.items()]
        found += [self.published_note] if self.published_note else []
        if found:
            lines.append(f"  Published:  {', '.join(found)}")
        lines.append(f"  Seen here:  {self.seen}")
        return "\n".join(
            textwrap.fill(line, 78, subsequent_indent=" " * 14)
            for line in lines
        )

    def _scaled(self, scale: float) -> dict[str, Any]:
        """Returns the settings, all that counts in epochs shortened."""
        settings = dict(self.settings)
        if scale == 1:
            return settings
        whole = make_config(self.dataset, "dpsgd", **split(settings)[0]).epochs
        epochs = max(2, math.ceil(whole * scale))
        for name in ("switch_epoch", "collapse_epoch"):
            if settings.get(name):
                epoch = settings[name] * epochs // whole
                settings[name] = max(1, min(epoch, epochs - 1))
        if settings.get("decay_steps"):
            steps = settings["decay_steps"] * epochs / whole
            settings["decay_steps"] = math.ceil(steps)
        return {**settings, "epochs": epochs}
