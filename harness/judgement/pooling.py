"""The spread over seeds of several methods, each estimated with what the others say about it.

Three seeds alone know little of a spread: Student's t of 2 degrees of freedom exceeds 17 at the level that Holm's
correction asks of the first of 15 pairs, so next to nothing would ever be called better. The spreads of the methods of
one comparison are alike, or not: empirical Bayes learns from their own scatter how alike (Smyth 2004, Statistical
Applications in Genetics and Molecular Biology 3). Spreads that scatter no more than equal ones would are pooled whole.
Half of the degrees of freedom that this gains are believed, because how alike the spreads are is an estimate itself: so
the false verdicts of a comparison stay within 5 %, as a test shows.

That is an assumption, so it serves the correction for many comparisons alone: a pair is decided if its own interval,
which assumes nothing, leaves zero out as well.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from scipy.optimize import brentq
from scipy.special import digamma, polygamma

from harness.judgement.intervals import Part

BELIEVED = 0.5
"""The share of the pooled degrees of freedom that counts."""

_FEWEST = 3
"""Fewer spreads than this say nothing of how alike they are."""


def moderated(spreads: Sequence[Part]) -> list[Part]:
    """Each spread (variance of one seed's mean score) shrunk towards all of them, with the degrees of freedom it gains.

    Fewer than three, or spreads of which none was seen, come back as they are.
    """
    total = sum(part.df for part in spreads)
    if len(spreads) < _FEWEST or not any(part.variance > 0 for part in spreads):
        return list(spreads)
    usual, df = _prior(spreads)
    shrunk = [usual if math.isinf(df) else (df * usual + part.df * part.variance) / (df + part.df) for part in spreads]
    return [
        Part(one, max(part.df, BELIEVED * min(df + part.df, total))) for one, part in zip(shrunk, spreads, strict=True)
    ]


def _prior(spreads: Sequence[Part]) -> tuple[float, float]:
    """The usual variance and how many degrees of freedom it is worth: infinite where the spreads scatter by chance."""
    variances, dfs = (np.array([getattr(part, name) for part in spreads]) for name in ("variance", "df"))
    pooled = float((variances * dfs).sum() / dfs.sum())
    seen = np.maximum(variances, 1e-5 * pooled)  # a logarithm of no spread would be no number
    logs = np.log(seen) - digamma(dfs / 2) + np.log(dfs / 2)
    scatter = float(logs.var(ddof=1) - polygamma(1, dfs / 2).mean())
    if scatter <= 0:
        return pooled, math.inf
    half = math.exp(brentq(lambda log: float(polygamma(1, math.exp(log))) - scatter, -12, 12))
    return math.exp(float(logs.mean()) + float(digamma(half)) - math.log(half)), 2 * half
