"""From what each example contributes to a metric's value, with its standard error over the examples.

A metric maps every example to a row of sufficient statistics, and the sum of the rows to a value. If the value is the
mean of one number per example, its standard error is sd / sqrt(n). Otherwise it is the standard deviation of the value
over bootstrap samples of the examples (Efron & Tibshirani 1993). That costs little, because only the statistics are
resampled.

Examples from one source, such as several pairs of one prompt, are not independent draws. They form one cluster: its sum
is what varies (Miller 2024, arXiv:2411.00640, section 2.2), and clusters are resampled.

A score keeps what each example adds to it, so that two methods can be compared example by example. Of a mean that is
the example's own number. Of another value v of n examples it is v + (n - 1) * (mean of v without one - v without this
one), the jackknife's linear part (Efron & Stein 1981): its mean is v, and its spread gives the standard error of v.

Outside its domain a metric has no value: None, with the reason.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Table = NDArray[np.float64]

BOOTSTRAP_SAMPLES = 1000
BOOTSTRAP_SEED = 20210617

Predictions = Sequence[str]
References = Sequence[Sequence[str]]


@dataclass(frozen=True)
class Score:
    """A metric's value on a set of examples."""

    metric: str
    value: float | None
    """None outside the metric's domain."""
    stderr: float | None
    """Standard error over the examples, in the unit of the value; None for a single cluster, or without a value."""
    n: int
    """Examples."""
    reason: str | None = None
    """Why there is no value; None if there is one."""
    values: Sequence[float] = field(default=(), repr=False, compare=False)
    """What each example adds: numbers whose mean is the value, in the order of the examples; empty without a value."""
    statistics: Mapping[str, Sequence[float]] = field(default_factory=dict, repr=False, compare=False)
    """The sufficient statistics of each example by name; empty where the value is a mean over the examples."""

    @property
    def by_example(self) -> dict[str, Sequence[float]]:
        """:attr:`values` under the metric's name, and the statistics under names such as 'bleu.correct_1'."""
        return {self.metric: self.values} | {f"{self.metric}.{name}": one for name, one in self.statistics.items()}

    def __str__(self) -> str:
        if self.value is None:
            return f"{self.metric}: none, {self.reason} (n = {self.n})"
        error = "" if self.stderr is None else f" ± {self.stderr:.3f}"
        return f"{self.metric}: {self.value:.3f}{error} (n = {self.n})"


@dataclass(frozen=True)
class Statistics:
    """One row per example, and the value for the sum of the rows of ``n`` examples."""

    rows: Table
    value: Callable[[Table, int], float]
    is_mean: bool = False
    """The value is the mean of a single column."""
    stored: Mapping[str, Sequence[float]] = field(default_factory=dict)
    """The rows by column, in a form short enough to store; empty for a mean, whose column is its values."""
    outside: str | None = None
    """Why these examples have no value; None if they have one."""
    counted: Callable[[Table], float] | None = None
    """The value where each example stands there as often as the array of shape (n,) says, if no sum gives it, as with
    ranks; None: ``value`` of the sum gives it."""

    def at(self, counts: Table) -> float:
        """The value where each example stands there as often as ``counts``, of shape (n,), says."""
        if self.counted is not None:
            return self.counted(counts)
        return self.value(counts @ self.rows, int(counts.sum()))


def mean(values: Sequence[float]) -> Statistics:
    """The mean of one number per example."""
    import numpy as np

    return Statistics(np.array(values, dtype=np.float64)[:, None], lambda total, n: float(total[0]) / n, is_mean=True)


def scored(name: str, statistics: Statistics, clusters: Sequence[Hashable] | None) -> Score:
    """The score under ``name``; examples with the same entry in ``clusters`` come from one source, None: from none."""
    import numpy as np

    n = len(statistics.rows)
    if statistics.outside is not None:
        return Score(name, None, None, n, statistics.outside)
    value = float(statistics.at(np.ones(n)))
    if not math.isfinite(value):
        return Score(name, None, None, n, "the value is not a finite number")
    stderr = _stderr(statistics, value, range(n) if clusters is None else clusters)
    return Score(name, value, stderr, n, values=_added(statistics, value), statistics=statistics.stored)


def _added(statistics: Statistics, value: float) -> list[float]:
    """What each example adds to ``value``: numbers whose mean it is."""
    import numpy as np

    rows, n = statistics.rows, len(statistics.rows)
    if statistics.is_mean or n == 1:
        return [float(one) for one in rows[:, 0]] if statistics.is_mean else [value]
    without = np.array(_without_each(statistics))
    added = value + (n - 1) * (without.mean() - without)
    return [float(one) for one in added] if np.isfinite(added).all() else []


def _without_each(statistics: Statistics) -> list[float]:
    """The value of all examples but one, for each."""
    import numpy as np

    rows, n = statistics.rows, len(statistics.rows)
    if statistics.counted is not None:
        everything = np.ones(n)
        return [statistics.counted(everything - (np.arange(n) == i)) for i in range(n)]
    total = rows.sum(0)
    return [statistics.value(total - row, n - 1) for row in rows]


def _stderr(statistics: Statistics, value: float, clusters: Sequence[Hashable]) -> float | None:
    """Standard error of ``value``; None for a single cluster.

    Of a mean it is the square root of G / (G - 1) times the sum over G clusters of (sum of s - mean)^2 / n^2: Miller
    2024, equation 4, with the correction for few clusters that makes it sd / sqrt(n) where each example is its own.
    """
    import numpy as np

    rows, n = statistics.rows, len(statistics.rows)
    places = {cluster: place for place, cluster in enumerate(dict.fromkeys(clusters))}
    if (count := len(places)) == 1:
        return None
    of_row = np.array([places[cluster] for cluster in clusters])
    sizes = np.bincount(of_row)
    sums = np.zeros((count, rows.shape[1]))
    np.add.at(sums, of_row, rows)
    if statistics.is_mean:
        return float(math.sqrt(count / (count - 1) * ((sums[:, 0] - sizes * value) ** 2).sum()) / n)
    # A bootstrap sample of the clusters is a vector of how often each was drawn: resampling is one matrix product.
    draws = np.random.default_rng(BOOTSTRAP_SEED).multinomial(count, np.full(count, 1 / count), size=BOOTSTRAP_SAMPLES)
    if statistics.counted is not None:
        values = [statistics.counted(draw[of_row].astype(np.float64)) for draw in draws]
    else:
        values = [statistics.value(total, int(size)) for total, size in zip(draws @ sums, draws @ sizes, strict=True)]
    finite = [one for one in values if math.isfinite(one)]
    return float(np.std(finite, ddof=1)) if len(finite) > 1 else None
