"""How sure is a mean score, and the difference of two methods: over seeds and over examples together.

Scores are an array of shape (seeds, examples): every seed answers the same examples. The model has crossed random
effects: score = mean + effect of the seed + effect of the example + rest. So the variance of the mean has two parts,
each estimated from a mean square of the two-way table (Searle, Casella & McCulloch 1992, chapter 4):

- the seeds' part, var(means of the seeds) / seeds, with seeds - 1 degrees of freedom;
- the examples' part, (mean square of examples - mean square of the rest) / (seeds * examples), with examples - 1.

Two methods are compared on the differences of their scores, seed by seed and example by example: what the two share
cancels. The quantile of the two parts together is Cochran's (1964, Biometrics 20): Student's t of each part, weighted
with the part's variance. Welch and Satterthwaite's single number of degrees of freedom covers as little as 86 % instead
of 95 % at two seeds: a seeds' part that is small by chance also raises the degrees of freedom. For the same reason an
interval is at least half as wide as the one over the examples alone, at levels below 5 % wider.

Variances say little where nearly all answers are right, or nearly all differences zero. So where scores are right or
wrong, an interval is no narrower than what n examples may all have missed (:class:`Unseen`).
``tests/judgement/test_coverage.py`` holds all of this by simulation.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt
from scipy.optimize import brentq
from scipy.special import stdtrit

CONFIDENCE = 0.95

SPREAD_SEEDS = 2
"""Fewer seeds than this know nothing of the spread between runs."""


Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Part:
    """One source of a mean's variance; ``df`` are the degrees of freedom of its estimate."""

    variance: float
    df: float


@dataclass(frozen=True)
class Unseen:
    """What ``examples`` answers cannot have seen: that a share s of all is unlike them has the chance (1 - s)^n."""

    span: float
    """By how much an answer can differ from another."""
    examples: int

    def half_width(self, level: float) -> float:
        """How far the mean may be from the one that was seen, with probability ``level``."""
        return float(self.span * -math.expm1(math.log(level) / self.examples))


@dataclass(frozen=True)
class Error:
    """What is known of the error of a mean: the parts of its variance, each None where it is unknown."""

    of_seeds: Part | None = None
    of_examples: Part | None = None
    examples_alone: Part | None = None
    """The variance over the examples with the seeds as they are: the smallest that an interval believes in."""
    rest: float = 0.0
    """How much of the seeds' part is noise of single scores, which more examples reduce too."""
    unseen: Unseen | None = None
    """Of scores that are right or wrong, and of those that are all the same; None of others."""

    @property
    def parts(self) -> list[Part]:
        """The parts that are known."""
        return [part for part in (self.of_seeds, self.of_examples) if part is not None]

    @property
    def stderr(self) -> float | None:
        """Standard error; None where nothing is known of it."""
        return math.sqrt(sum(part.variance for part in self.parts)) if self.parts else None

    def half_width(self, level: float = 1 - CONFIDENCE) -> float | None:
        """Half of the interval that misses with probability ``level``; None where nothing is known."""
        if not self.parts:
            return None
        total = sum(part.variance for part in self.parts)
        half = (
            sum(part.variance * students_t(level, part.df) for part in self.parts) / math.sqrt(total)
            if total > 0
            else 0.0
        )
        if self.unseen is not None:
            half = max(half, self.unseen.half_width(level))
        if self.examples_alone is None:
            return half
        least = 1 - 0.5 * math.sqrt(min(level / (1 - CONFIDENCE), 1.0))
        return max(half, least * students_t(level, self.examples_alone.df) * math.sqrt(self.examples_alone.variance))

    def p(self, estimate: float) -> float | None:
        """The level at which the interval around ``estimate`` just reaches zero; None where nothing is known."""
        usual = self.half_width()
        if usual is None:
            return None
        if usual == 0:
            return 1.0 if estimate == 0 else 0.0

        def gap(log_level: float) -> float:
            return (self.half_width(math.exp(log_level)) or 0.0) - abs(estimate)

        least, most = math.log(_LEAST_P), math.log(1 - 1e-9)
        if gap(least) <= 0:
            return _LEAST_P
        return 1.0 if gap(most) >= 0 else math.exp(brentq(gap, least, most, xtol=1e-6))


_LEAST_P = 1e-30


@dataclass(frozen=True)
class Interval:
    """A mean or a mean difference with its 95 % interval. A field is None where it is unknown; none is ever NaN."""

    estimate: float | None
    low: float | None
    high: float | None
    p: float | None
    """Two-sided p of the hypothesis that the difference is zero; None for a single mean."""
    basis: str
    """What the interval covers, in words, such as '3 seeds and 71 examples'; 'none' without an interval."""
    seeds: int = 0
    """Seeds that have a score (of a difference: in both)."""
    examples: int = 0
    """Examples that have a score (of a difference: in both); where some came from one source, the sources."""
    error: Error = field(default=Error(), repr=False)


def paired_difference(
    a: npt.ArrayLike, b: npt.ArrayLike, clusters: Sequence[Hashable] | None = None, span: float | None = None
) -> Interval:
    """Mean of ``a - b`` over seeds and examples, with its 95 % interval and p.

    ``a`` and ``b`` have the shape (seeds, examples), or (examples,) for one seed; the same place is the same seed and
    the same example. NaN is a missing score, and only what both have is paired: ``seeds`` and ``examples`` say how much
    that is. ``clusters`` names the source of each example: examples from one source are no independent draws.
    ``span`` is that of the metric, from its least value to its largest, None where it has no bounds: scores of two
    values that are so far apart are right or wrong.

    With one seed the interval covers the examples alone, with one example the seeds alone; with one of each, or with
    nothing in common, there is none. Differences that are all the same give an interval without width where there is
    no ``span``. Raises ValueError if the shapes differ.
    """
    first, second = _table(a), _table(b)
    if first.shape != second.shape:
        raise ValueError(f"a and b differ in shape: {first.shape} and {second.shape}; missing scores are NaN")
    return _interval(first - second, clusters, span, (first, second), of_difference=True)


def mean_interval(a: npt.ArrayLike, clusters: Sequence[Hashable] | None = None, span: float | None = None) -> Interval:
    """Mean of ``a`` over seeds and examples, with its 95 % interval; see :func:`paired_difference`."""
    table = _table(a)
    return _interval(table, clusters, span, (table,), of_difference=False)


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """Adjusted p of several hypotheses, none of which is rejected wrongly in 95 % of comparisons (Holm 1979)."""
    known = sorted((p, place) for place, p in enumerate(p_values) if p is not None)
    adjusted: list[float | None] = [None] * len(p_values)
    largest = 0.0
    for rank, (p, place) in enumerate(known):
        largest = max(largest, min(1.0, (len(known) - rank) * p))
        adjusted[place] = largest
    return adjusted


def interval(estimate: float, error: Error, basis: str, seeds: int, examples: int, *, of_difference: bool) -> Interval:
    """The interval of an estimate whose error is known from elsewhere than a table of scores."""
    half = error.half_width()
    if half is None:
        return Interval(estimate, None, None, None, "none", seeds, examples, error)
    p = error.p(estimate) if of_difference else None
    return Interval(estimate, estimate - half, estimate + half, p, basis, seeds, examples, error)


def _table(scores: npt.ArrayLike) -> Floats:
    table = np.atleast_2d(np.asarray(scores, dtype=np.float64))
    if table.ndim != 2:
        raise ValueError(f"scores have the shape (seeds, examples), not {table.shape}")
    return table


def with_a_width(found: Interval) -> Interval:
    """``found``, without an interval where it has no width: what varied in nothing that was seen is not certain."""
    if found.low is None or found.low != found.high:
        return found
    return replace(found, low=None, high=None, p=None, basis="none", error=Error())


def _interval(
    table: Floats,
    clusters: Sequence[Hashable] | None,
    span: float | None,
    scores: Sequence[Floats],
    *,
    of_difference: bool,
) -> Interval:
    known = np.isfinite(table)
    seeds, examples = known.any(axis=1), known.any(axis=0)
    if not known.any():
        return Interval(None, None, None, None, "none")
    if clusters is not None:
        if len(clusters) != table.shape[1]:
            raise ValueError(f"{len(clusters)} clusters for {table.shape[1]} examples")
        clusters = [clusters[int(place)] for place in np.flatnonzero(examples)]
    table, missing, kept = _filled(table[seeds][:, examples])
    if clusters is not None:
        clusters = [clusters[int(place)] for place in np.flatnonzero(kept)]
    estimate, what = float(table.mean()), "examples"
    if clusters is not None and len(set(clusters)) < len(clusters):
        table, what = _by_cluster(table, clusters), "sources of examples"
    error = _crossed(table, missing)
    runs, count = table.shape
    if span is not None and count > 1 and (not error.stderr or _is_right_or_wrong(scores, span)):
        error = replace(error, unseen=Unseen(span, count))
    return interval(estimate, error, _basis(runs, count, what), runs, count, of_difference=of_difference)


def _is_right_or_wrong(scores: Sequence[Floats], span: float) -> bool:
    """Whether all scores are the least or the largest of a metric with this span."""
    values = np.unique(np.concatenate([one[np.isfinite(one)] for one in scores]))
    return len(values) == 1 or (len(values) == 2 and bool(np.isclose(values[1] - values[0], span)))


def _basis(seeds: int, examples: int, what: str) -> str:
    if seeds == 1:
        return f"{examples} {what} alone, of one seed"
    return f"{seeds} seeds" if examples == 1 else f"{seeds} seeds and {examples} {what}"


def _filled(table: Floats) -> tuple[Floats, int, npt.NDArray[np.bool_]]:
    """``table`` with its missing cells at seed's mean + example's mean - mean, and how many there were (Yates 1933).

    The last of the three says which examples are left. Where more than half of the rest would be filled, only the
    examples that every seed has are kept, if there are any.
    """
    holes = ~np.isfinite(table)
    missing = int(holes.sum())
    if not missing:
        return table, 0, np.ones(table.shape[1], dtype=bool)
    complete = np.asarray(~holes.any(axis=0))
    rest = (table.shape[0] - 1) * (table.shape[1] - 1)
    if missing > rest / 2 and complete.any():
        return table[:, complete], 0, complete
    filled = np.where(holes, np.nanmean(table, axis=0), table)
    for _ in range(_FILLS):
        fit = filled.mean(1, keepdims=True) + filled.mean(0, keepdims=True) - filled.mean()
        change = float(np.abs(np.where(holes, fit - filled, 0.0)).max())
        filled = np.where(holes, fit, filled)
        if change <= 1e-12 * max(1.0, float(np.abs(filled).max())):
            break
    return filled, missing, np.ones(table.shape[1], dtype=bool)


_FILLS = 200


def _by_cluster(table: Floats, clusters: Sequence[Hashable]) -> Floats:
    """One column per cluster, whose mean over clusters is the mean over examples (Miller 2024, section 2.2)."""
    places = {cluster: place for place, cluster in enumerate(dict.fromkeys(clusters))}
    center = table.mean()
    sums = np.zeros((table.shape[0], len(places)))
    np.add.at(sums.T, [places[cluster] for cluster in clusters], (table - center).T)
    found: Floats = center + sums * len(places) / table.shape[1]
    return found


def _crossed(table: Floats, missing: int = 0) -> Error:
    """The error of the mean of a complete table of shape (seeds, examples)."""
    seeds, examples = table.shape
    mean, of_seed, of_example = table.mean(), table.mean(axis=1), table.mean(axis=0)
    # Differences that are equal but for rounding have no spread.
    rounding = (1e-12 * float(np.abs(table).max())) ** 2

    def variance(values: Floats) -> float:
        found = float(values.var(ddof=1))
        return found if found > rounding else 0.0

    alone = Part(variance(of_example) / examples, examples - 1) if examples > 1 else None
    if seeds < SPREAD_SEEDS:
        return Error(of_examples=alone)
    of_seeds = Part(variance(of_seed) / seeds, seeds - 1)
    if alone is None:
        return Error(of_seeds)
    rest = table - of_seed[:, None] - of_example + mean
    df = max((seeds - 1) * (examples - 1) - missing, 1)
    noise = float((rest**2).sum()) / df / (seeds * examples)
    return Error(of_seeds, Part(max(alone.variance - noise, 0.0), examples - 1), alone, min(noise, of_seeds.variance))


def students_t(level: float, df: float) -> float:
    """Student's t that is exceeded, on either side, with probability ``level``."""
    return float(-stdtrit(df if math.isfinite(df) else 1e9, level / 2))
