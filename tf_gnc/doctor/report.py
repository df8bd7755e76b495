"""The results of checks, in words."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Check:
    """The result of one check.

    Attributes:
        name: What, in a word or two.
        ok: Whether it is as it should be.
        message: What was seen and, if it isn't ok, what to do.
    """

    name: str
    ok: bool
    message: str

    def __str__(self) -> str:
        """Returns the check as a line."""
        return f"{'ok' if self.ok else 'FAIL':4} {self.name}: {self.message}"


@dataclasses.dataclass(frozen=True)
class Report:
    """Several checks, in order."""

    checks: tuple[Check, ...]

    @property
    def ok(self) -> bool:
        """Whether all checks passed."""
        return all(check.ok for check in self.checks)

    def __str__(self) -> str:
        """Returns a line per check."""
        return "\n".join(map(str, self.checks))
