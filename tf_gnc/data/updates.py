"""How many updates a run has, and which of them are in which epoch.

Symbols   n  number of examples
          B  examples per global batch
          E  number of epochs
"""

import dataclasses
import math
from fractions import Fraction

from tf_gnc.data.pipeline import steps_per_epoch


@dataclasses.dataclass(frozen=True)
class Updates:
    r"""The updates of a run, counted from 0, by epochs, counted from 0.

    With `carry` what an epoch leaves over begins the next epoch's first
    batch. Then E epochs have :math:`\lfloor E n / B \rfloor` updates, and an
    epoch may have one more than the one before; an update belongs to the epoch
    that its last example is of. Without, it is dropped, and all epochs have
    :math:`\lfloor n / B \rfloor`, `at_most` so many.

    Raises:
        ValueError: If a batch is larger than the data.

    Example:
        >>> updates = Updates(50_000, 8_192, carry=True)
        >>> updates.before(160), updates.in_epoch(0), updates.in_epoch(9)
        (976, 6, 7)
        >>> Updates(50_000, 8_192).before(160)
        960
    """

    num_examples: int
    batch_size: int
    carry: bool = False
    at_most: int | None = None

    def __post_init__(self) -> None:
        """Refuses batches that are too large."""
        steps_per_epoch(self.num_examples, self.batch_size)

    def before(self, epoch: int) -> int:
        """Returns how many updates so many epochs have."""
        if self.carry:
            return epoch * self.num_examples // self.batch_size
        whole = self.num_examples // self.batch_size
        return epoch * min(whole, self.at_most or whole)

    def in_part(self, share: float, epochs: int) -> int:
        """Returns how many updates a share of a run has, that of its epochs.

        Without `carry` it is the share of its updates, rounded up.
        """
        if self.carry:
            share = Fraction(share).limit_denominator(10_000)
            return int(share * epochs * self.num_examples // self.batch_size)
        # Rounded first: 5/90 of 3,510 is a hair above 195 in floating point.
        return math.ceil(round(self.before(epochs) * share, 6))

    def in_epoch(self, epoch: int) -> int:
        """Returns how many updates an epoch has."""
        return self.before(epoch + 1) - self.before(epoch)

    @property
    def per_epoch(self) -> float:
        """How many updates an epoch has, on average; a whole number or not."""
        if self.carry:
            return self.num_examples / self.batch_size
        return self.before(1)
