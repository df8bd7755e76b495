"""Flags made from settings: those of a run, of its method, of a command.

A command says which dataclasses its flags are from; what is described there
is not described again. Given values are kept under the settings' own names,
a method's under `gnc.alpha`, or `*.alpha` for all that have it.
"""

import dataclasses
from collections.abc import Callable, Collection, Mapping
from fractions import Fraction
from typing import Any

from tf_gnc import _check
from tf_gnc._settings import (
    REQUIRED,
    Setting,
    first_line,
    setting,
    settings_of,
    show_default,
    values_of,
    with_default,
)
from tf_gnc.callbacks.measures import CHEAP, FULL
from tf_gnc.cli.command import FlagSet, UsageError, VerboseFlag, comma_list
from tf_gnc.data import DATASETS, DatasetDefaults
from tf_gnc.experiments import METHODS, RunConfig
from tf_gnc.experiments.defaults import decided_by_data
from tf_gnc.experiments.methods.registry import (
    defaults_of,
    settings_of_method,
)
from tf_gnc.experiments.recipes import RECIPES, Recipe
from tf_gnc.experiments.run.recording import Recording
from tf_gnc.experiments.user_code import check_own

NOISE = "Noise: of all methods that have it; --gnc.alpha sets one method's"
"""Title of the methods' settings."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class RecipeFlag:
    """Where settings may come from."""

    recipe: str | None = setting(
        "An experiment by name: `tf-gnc reproduce --list` has them. It brings "
        "its data set; other flags change it.",
        None, group="Data",
    )  # fmt: skip


@dataclasses.dataclass(frozen=True, kw_only=True)
class OwnFlags:
    """The user's own data and model, instead of ours."""

    data_fn: str | None = setting(
        "Your own data instead: module:function, where the function returns "
        "((x_train, y_train), (x_test, y_test)), arrays or tf.data.Datasets. "
        "Defaults are then 8 workers of 32 examples, 20 epochs, rate 0.1 for "
        "each 128 examples and the digits' noise.",
        None, group="Data",
    )  # fmt: skip
    model_fn: str | None = setting(
        "Your own network instead: module:function, where the function "
        "returns a keras.Model.",
        None, group="Model and method",
    )  # fmt: skip


@dataclasses.dataclass(frozen=True, kw_only=True)
class ProbeFlags:
    """What to measure as a run trains."""

    probe: str = setting(
        "What to measure, with commas between names; rows go to "
        "probe.jsonl, and `tf-gnc analyze` draws them; each number's mean "
        "over an epoch goes to metrics.jsonl as probe_NAME. At next to no "
        f"cost, of the step just taken: {', '.join(CHEAP)}. At the cost "
        "of many steps, of the weights and noise of the coming step, on that "
        f"step's own batch: {', '.join(FULL)}; sharpness costs as many forward "
        "passes as there are workers, and similarity a pass over all training "
        "examples, not augmented. Training goes on as if nothing had been "
        "measured, only later; the time is part of the run's seconds. "
        "Default: nothing.",
        "", group="Measurements",
    )  # fmt: skip
    probe_every: int | None = setting(
        "Steps from one measurement to the next. Default: those of an epoch.",
        None, minimum=1, group="Measurements",
    )  # fmt: skip
    probe_around: str = setting(
        "Epochs, with commas between them: sharpness is measured at every "
        "step from an epoch before to an epoch after each, and at no others, "
        "as the paper's Fig. 4 (b) and (c) show it. Default: as --probe_every.",
        "", group="Measurements",
    )  # fmt: skip


def recording_of(given: Mapping[str, Any]) -> Recording:
    """Returns what the flags ask to be measured."""
    return Recording(**asked_of(given))


def asked_of(given: Mapping[str, Any]) -> dict[str, Any]:
    """Returns what the flags say, by the names of `Recording`'s arguments."""
    flags = values_of(ProbeFlags, given)
    return {
        "measures": measures_of(flags.probe),
        "every": flags.probe_every,
        "around": epochs_of("probe_around", flags.probe_around),
    }


def measures_of(text: str) -> list[str]:
    """Returns the names in a text with commas between them, each once."""
    return [name for name in dict.fromkeys(comma_list(text)) if name]


def epochs_of(flag: str, text: str) -> list[float]:
    """Returns the epochs in a text with commas between them."""
    try:
        return [float(word) for word in comma_list(text)] if text else []
    except ValueError:
        raise UsageError(
            f"--{flag} must be epochs with commas between them, got {text!r}. "
            f"Write, for instance, --{flag}=10,140."
        ) from None


def build(
    usage: str,
    summary: str,
    *sets: type,
    without: Collection[str] = (),
    **words: str,
) -> FlagSet:
    """Returns the flags of a command that has a run's settings.

    `sets` are the dataclasses that describe settings; those in `without` get
    no flag. `words` says what the defaults are that only this command has.
    """
    flag_set = FlagSet(usage, summary)
    words = {**_default_words(), **words}
    described = {
        cls: [s for s in settings_of(cls).values() if s.name not in without]
        for cls in (*sets, VerboseFlag)
    }
    taken = {field.flag for fields in described.values() for field in fields}
    for cls, fields in described.items():
        for field in fields:
            text = field.help
            if field.name == "method":
                known = [f"{n}: {first_line(m)}" for n, m in METHODS.items()]
                text = (
                    f"{text} {'; '.join(known)}; or module:function, a "
                    "function of yours without arguments that returns a noise "
                    "rule."
                )
            text = with_default(text, words.get(field.name, ""))
            flag_set.define(dataclasses.replace(field, help=text))
        if cls is RunConfig:
            _define_methods(flag_set, taken)
    # Error messages about a configuration use its own name.
    flag_set.alias("num_workers", "workers")
    return flag_set


def chosen_of(given: Mapping[str, Any]) -> dict[str, Any]:
    """Returns what flags say of a run, by names that `make_config` takes.

    Raises:
        UsageError: If two of them say the same thing.
    """
    if "recipe" in given and {"dataset", "data_fn"} & set(given):
        raise UsageError(
            "--recipe brings its data set, got --dataset or --data_fn too. "
            "Leave one out."
        )
    fields = settings_of(RunConfig)
    chosen = {name: v for name, v in given.items() if name in fields}
    for own, ours in (("data_fn", "dataset"), ("model_fn", "model")):
        if own not in given:
            continue
        if ours in given:
            raise UsageError(
                f"--{own} replaces --{ours}, got both. Leave one out."
            )
        chosen[ours] = check_own(own, given[own])
    of_methods = {name: v for name, v in given.items() if "." in name}
    return chosen | {n.removeprefix("*."): v for n, v in of_methods.items()}


def recipe_of(given: Mapping[str, Any]) -> Recipe | None:
    """Returns the recipe that `--recipe` names, None without the flag."""
    if "recipe" not in given:
        return None
    return RECIPES[_check.choice("recipe", given["recipe"], RECIPES)]


def per_data_set(value: Callable[[DatasetDefaults], Any]) -> str:
    """Returns, for instance, "40 (digits), 160 (cifar10, cifar100)"."""
    return _alike({name: value(d.defaults) for name, d in DATASETS.items()})


def _define_methods(flag_set: FlagSet, taken: Collection[str]) -> None:
    """Defines `--alpha`, unless it is taken, and `--gnc.alpha` and so on."""
    having: dict[str, dict[str, Setting]] = {}
    for method in METHODS:
        for name, field in settings_of_method(method).items():
            having.setdefault(name, {})[method] = field
            full = f"{method}.{name}"
            flag_set.define(dataclasses.replace(field, name=full, flag=full))
    for name, fields in having.items():
        kinds = {(f.kind, tuple(f.choices)) for f in fields.values()}
        if name in taken or len(kinds) > 1:
            continue  # There is `--gnc.alpha` alone.
        texts = {
            method: with_default(
                field.help,
                per_data_set(
                    lambda d, m=method, f=field: defaults_of(m, d.methods).get(
                        f.name, f.default
                    )
                ),
            )
            for method, field in fields.items()
        }
        text = " ".join(
            f"{methods}: {text}"
            for text, methods in _names_by_text(texts).items()
            if text
        )
        if name == "alpha_rnc":
            text += " rnc: an older name of --alpha."
        flag_set.define(
            dataclasses.replace(
                next(iter(fields.values())),
                name=f"*.{name}",
                default=REQUIRED,
                help=text,
                group=NOISE,
            )
        )


def _default_words() -> dict[str, str]:
    """Returns what there is to say of defaults that depend on the data set."""
    found = {name: decided_by_data(name, "dpsgd", {}) for name in DATASETS}
    fields = settings_of(RunConfig)
    words = {
        name: _alike(
            {d: v.get(name, fields[name].default) for d, v in found.items()}
        )
        for name in set().union(*found.values())
    }
    small = per_data_set(lambda d: d.examples_per_worker)
    rate = per_data_set(lambda d: d.base_rate)
    return {
        **words,
        "dataset": "digits",
        "method": "gnc",
        "num_workers": f"one for each {small} examples of the batch",
        "learning_rate": f"{rate} for each 128 examples of the batch",
    }


def _show(value: Any) -> str:
    """Returns a data set's default in words."""
    if isinstance(value, Mapping):
        words = [f"{v:g} for batches of {k:,}" for k, v in value.items()]
        return " and ".join(words)
    if isinstance(value, Fraction):
        return f"{value} of the run"
    return show_default(value)


def _alike(values: Mapping[str, Any]) -> str:
    """Returns each value in words, once, with the data sets that have it."""
    names = _names_by_text(values)
    if len(names) == 1:
        return next(iter(names))
    return ", ".join(
        f"{text} ({having})" for text, having in names.items() if text
    )


def _names_by_text(values: Mapping[str, Any]) -> dict[str, str]:
    """Returns each value in words, with the names that have it."""
    names: dict[str, list[str]] = {}
    for name, value in values.items():
        names.setdefault(_show(value), []).append(name)
    return {text: ", ".join(having) for text, having in names.items()}
