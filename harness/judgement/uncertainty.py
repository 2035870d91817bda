"""How sure is a mean score, and the difference of two: the spread over seeds and over test examples together.

The seeds of one method share the test examples. So the variance of their mean score is ``s²/n``, of ``n`` seeds whose
scores vary by ``s``, plus the squared standard error over the test examples, which no further seed makes smaller.

The quantile of the two together is Cochran's (1964, Biometrics 20): Student's t of each part, weighted with the
part's variance. Welch and Satterthwaite's single number of degrees of freedom covers 92 % instead of 95 % at three
seeds, because a spread over seeds that is small by chance also raises the degrees of freedom.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from scipy import stats as scipy_stats

CONFIDENCE = 0.95

SPREAD_SEEDS = 2
"""Fewer seeds than this know nothing of the spread between runs."""


@dataclass(frozen=True)
class Part:
    """One source of a mean's variance; ``df`` are the degrees of freedom of its estimate."""

    variance: float
    df: float

    def __add__(self, other: Part) -> Part:
        """The variance of a sum or difference, its degrees of freedom after Welch (1947) and Satterthwaite (1946)."""
        total = self.variance + other.variance
        weight = self.variance**2 / self.df + other.variance**2 / other.df
        return Part(total, total**2 / weight if weight > 0 else min(self.df, other.df))


@dataclass(frozen=True)
class Mean:
    """A mean score over seeds with what is known of its error; a part is null where it is unknown."""

    value: float
    seeds: int
    examples: int | None
    of_seeds: Part | None
    of_examples: Part | None

    @property
    def parts(self) -> list[Part]:
        """The parts that are known."""
        return [part for part in (self.of_seeds, self.of_examples) if part is not None]

    @property
    def stderr(self) -> float:
        """Standard error; NaN where nothing is known of it."""
        return _stderr(self.parts)

    @property
    def bounds(self) -> tuple[float, float]:
        """The 95 % interval; NaN where no error is known, or none was seen: that is not certainty."""
        half = _half_width(self.parts)
        return self.value - half, self.value + half

    @property
    def basis(self) -> str:
        """What the interval covers, in words; 'none' without one."""
        if math.isnan(self.bounds[0]):
            return "none"
        seeds = f"{self.seeds} seeds"
        examples = f"{self.examples} test examples" if self.examples else "the test examples"
        if self.of_examples is None:
            return f"over {seeds}, Student's t; the error over the test examples is not known"
        if self.of_seeds is None:
            return f"over {examples} alone, Student's t"
        return f"over {seeds} and {examples}, Student's t"


@dataclass(frozen=True)
class Difference:
    """How far one mean is above another, and how surely."""

    value: float
    stderr: float
    half_width: float

    @property
    def above_zero(self) -> bool:
        """Whether the 95 % interval lies above zero; False where it is unknown."""
        return self.value - self.half_width > 0


def mean(scores: Sequence[float], stderrs: Sequence[float], examples: float | None = None) -> Mean:
    """The mean of ``scores``, one per seed, with the standard error of each over the same ``examples``; NaN: unknown.

    ``stderrs`` are pooled as their root mean square.
    """
    known = np.asarray(scores, dtype=float)
    known = known[~np.isnan(known)]
    errors = np.asarray(stderrs, dtype=float)
    errors = errors[~np.isnan(errors)]
    count = None if examples is None or math.isnan(examples) else int(examples)
    of_seeds = Part(float(known.var(ddof=1)) / len(known), len(known) - 1) if len(known) >= SPREAD_SEEDS else None
    df = count - 1 if count is not None and count > 1 else math.inf
    of_examples = Part(float(np.mean(errors**2)), df) if len(errors) else None
    return Mean(float(known.mean()) if len(known) else math.nan, len(known), count, of_seeds, of_examples)


def difference(a: Mean, b: Mean, sign: float = 1.0) -> Difference:
    """``sign * (a - b)``, the errors added in quadrature: the spread over seeds of both, the examples of both.

    Both answered the same examples; leaving that out errs on the side of doubt.
    """
    parts = []
    for first, second in ((a.of_seeds, b.of_seeds), (a.of_examples, b.of_examples)):
        known = [part for part in (first, second) if part is not None]
        parts += [known[0] + known[1]] if len(known) == 2 else known
    return Difference(sign * (a.value - b.value), _stderr(parts), _half_width(parts))


def _stderr(parts: Sequence[Part]) -> float:
    return math.sqrt(sum(part.variance for part in parts)) if parts else math.nan


def _half_width(parts: Sequence[Part]) -> float:
    total = sum(part.variance for part in parts)
    if total <= 0:
        return math.nan
    return sum(part.variance * _t(part.df) for part in parts) / math.sqrt(total)


@lru_cache(maxsize=4096)
def _t(df: float) -> float:
    return float(scipy_stats.t.ppf((1 + CONFIDENCE) / 2, df))
