"""The scale of a task's numbers: an encoder's head learns standardised ones, whatever their unit."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Scale:
    """Mean and standard deviation of the training targets."""

    mean: float
    deviation: float
    """1 where all targets are equal."""

    @classmethod
    def of(cls, targets: Sequence[float]) -> Scale:
        """The scale of ``targets``. Raises ``statistics.StatisticsError`` if there are none."""
        return cls(statistics.fmean(targets), statistics.pstdev(targets) or 1.0)

    def standard(self, target: float) -> float:
        """``target`` in standard deviations from the mean."""
        return (target - self.mean) / self.deviation

    def original(self, standard: float) -> float:
        """The number that :meth:`standard` gives ``standard`` for."""
        return self.mean + standard * self.deviation
