"""A rule with some of its arguments chosen, as a method of its own."""

import types
from collections.abc import Mapping
from typing import Any

from tf_gnc._settings import Setting, settings_of_call
from tf_gnc.noise import NoiseRule


class Variant:
    """Makes a rule; its other arguments are the method's settings.

    Args:
        rule: The rule's class.
        summary: What the method is, a line.
        usual: Defaults other than the rule's.
        **chosen: Arguments that make it this method.

    Example:
        >>> from tf_gnc.noise import GradientNoise
        >>> uphill = Variant(GradientNoise, "GNC uphill.", uphill=True)
        >>> uphill(alpha=0.1) == GradientNoise(alpha=0.1, uphill=True)
        True
    """

    def __init__(
        self,
        rule: type[NoiseRule],
        summary: str,
        usual: Mapping[str, Any] = types.MappingProxyType({}),
        **chosen: Any,
    ) -> None:
        self.__doc__ = summary
        self._rule, self._usual, self._chosen = rule, usual, chosen

    def __call__(self, **settings: Any) -> NoiseRule:
        """Returns the rule with these settings."""
        free = settings.get("relative") is not None
        usual = {} if free else self._usual
        return self._rule(**{**usual, **self._chosen, **settings})

    def settings(self) -> dict[str, Setting]:
        """Returns the method's settings by name."""
        return settings_of_call(self._rule, {*self._chosen}, self._usual)
