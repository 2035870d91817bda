"""How stable a ranking is: the probability of each rank, and how alike the orders of two resamples are."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from harness.judgement.intervals import Floats
from harness.judgement.resampling import resampled
from harness.judgement.verdicts import Comparison


@dataclass(frozen=True)
class Ranks:
    """The ranking of a comparison under resampling."""

    shares: Floats
    """Of shape (rows, ranks): the probability that a row has a rank, the best first. Rows that tie share the ranks."""
    tau: float
    """Mean of Kendall's tau between the orders of two resamples: 1, always the same; 0, unrelated."""

    @property
    def first(self) -> Floats:
        """The probability of each row to be the best."""
        best: Floats = self.shares[:, 0]
        return best


def ranks(comparison: Comparison, draws: Floats | None = None) -> Ranks | None:
    """None where there is nothing to rank: a single row, or one of whose score no error is known.

    ``draws`` are those of ``resampled``, where they are known.
    """
    rows = comparison.rows
    if len(rows) < 2 or (rows.test_stderr.isna() & rows.seed_stderr.isna()).any():
        return None
    draws = resampled(comparison) if draws is None else draws
    return ranks_of(draws if comparison.higher_is_better else -draws)


def ranks_of(draws: Floats) -> Ranks:
    """The ranks in draws of scores, of shape (draws, rows); the highest score is the best."""
    count = draws.shape[1]
    shares = np.zeros((count, count))
    for row in range(count):
        better = (draws > draws[:, [row]]).sum(axis=1)
        equal = (draws == draws[:, [row]]).sum(axis=1)
        for rank in range(count):
            shares[row, rank] = (((better <= rank) & (rank < better + equal)) / equal).mean()
    return Ranks(shares, _tau(draws))


def _tau(draws: Floats) -> float:
    """Mean of Kendall's tau-a between draws of the first half and those of the second (Kendall 1938)."""
    first, second = np.triu_indices(draws.shape[1], 1)
    signs = np.sign(draws[:, first] - draws[:, second])
    half = len(draws) // 2
    return float((signs[:half] * signs[half : 2 * half]).mean())
