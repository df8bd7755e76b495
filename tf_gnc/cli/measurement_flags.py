"""The flags of `tf-gnc train` for what a run records on its way."""

from collections.abc import Mapping
from typing import Any

from tf_gnc.callbacks.measures import CHEAP, FULL
from tf_gnc.cli.command import FlagSet
from tf_gnc.experiments.run.recording import Recording

MEASUREMENTS = ("probe", "probe_every", "log_dir", "checkpoint_every")
"""Their names."""


def define_measurements(flag_set: FlagSet) -> None:
    """Defines the flags, in a group of their own.

    Args:
        flag_set: Gets them.
    """
    with flag_set.group("Measurements"):
        flag_set.text(
            "probe",
            "What to measure, with commas between names; rows go to "
            "probe.jsonl, and `tf-gnc analyze` draws them; each number's mean "
            "over an epoch goes to metrics.jsonl as probe_NAME. At next to no "
            f"cost, of the step just taken: {', '.join(CHEAP)}. At the cost "
            "of many steps, of the weights and noise of the coming step: "
            f"{', '.join(FULL)}; these take the run's first batch, always "
            "the same one and augmented as the run has it, and similarity a "
            "pass over all training examples, not augmented. Training goes on "
            "as if nothing had been measured, only later; the time is part of "
            "the run's seconds. Default: nothing.",
        )
        flag_set.integer(
            "probe_every",
            "Steps from one measurement to the next. Default: those of an "
            "epoch.",
            minimum=1,
        )
        flag_set.text(
            "log_dir",
            "A directory where TensorBoard reads the numbers of --probe by "
            "step. Default: nowhere.",
        )
        flag_set.integer(
            "checkpoint_every",
            "Keep the whole model each time so many epochs have ended, as "
            "checkpoints/epoch-0010.keras and so on, to be measured "
            "afterwards: `tf-gnc analyze RUN --measure=...`. Default: never.",
            minimum=1,
        )


def recording_of(given: Mapping[str, Any]) -> Recording:
    """Returns what the given flags ask to record.

    Raises:
        ValueError: If a measure is unknown.
    """
    return Recording(
        measures_of(given.get("probe", "")),
        given.get("probe_every"),
        given.get("checkpoint_every"),
        given.get("log_dir"),
    )


def measures_of(text: str) -> list[str]:
    """Returns the names in a text with commas between them.

    Example:
        >>> measures_of("similarity, spectrum")
        ['similarity', 'spectrum']
    """
    names = [name.strip() for name in text.split(",")]
    return list(dict.fromkeys(name for name in names if name))
