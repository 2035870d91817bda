"""Other scores that the same rows might as well have had: draws for what has no formula, such as ranks.

The examples are resampled for all rows together, so what rows share cancels (the Bayesian bootstrap of Rubin 1981). The
seeds are too few for that: three values, resampled, vary two thirds as much as they should. So each row also moves by
Student's t of its own seeds, times the standard error over them. With one seed the draws cover the examples alone.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from harness.judgement.intervals import SPREAD_SEEDS, Floats
from harness.judgement.verdicts import Comparison, Side

DRAWS = 2000


def resampled(comparison: Comparison, draws: int = DRAWS, seed: int = 0) -> Floats:
    """Scores of shape (draws, rows), in the unit of the metric. The same arguments give the same draws.

    Rows without scores of single examples move by their standard errors. Only examples that every other row has are
    resampled. A corpus metric enters by its pseudo-values, as in :mod:`harness.judgement.verdicts`.
    """
    random = np.random.default_rng(seed)
    found = np.tile(comparison.rows.test_score.to_numpy(dtype=np.float64), (draws, 1))
    known = [place for place, side in enumerate(comparison.sides) if side.table is not None]
    found[:, known] += _of_examples([comparison.sides[place] for place in known], comparison.sources, draws, random)
    for place, side in enumerate(comparison.sides):
        if place not in known and not pd.isna(side.row.test_stderr):
            found[:, place] += random.normal(0, side.row.test_stderr, draws)
        if side.row.seeds >= SPREAD_SEEDS and not side.fixed and not pd.isna(side.row.seed_stderr):
            found[:, place] += side.row.seed_stderr * random.standard_t(side.row.seeds - 1, draws)
    return found


def _of_examples(
    sides: Sequence[Side], sources: Sequence[str] | None, draws: int, random: np.random.Generator
) -> Floats:
    """How far the mean of each row moves when the examples are others, of shape (draws, rows)."""
    if not sides:
        return np.zeros((draws, 0))
    means = np.array([_example_means(side) for side in sides])
    complete = np.isfinite(means).all(axis=0)
    names = np.arange(means.shape[1]) if sources is None else pd.factorize(np.array(sources))[0]
    means, names = means[:, complete], names[complete]
    _, groups = np.unique(names, return_inverse=True)
    if means.shape[1] < 2 or groups.max() == 0:
        return np.zeros((draws, len(sides)))
    # One weight for each source: its examples come together or not at all.
    weights = random.standard_exponential((draws, int(groups.max()) + 1))[:, groups]
    weights /= weights.sum(axis=1, keepdims=True)
    moved: Floats = weights @ means.T - means.mean(axis=1)
    return moved


def _example_means(side: Side) -> Floats:
    """Mean over seeds of each example; NaN where no seed has it."""
    assert side.table is not None  # noqa: S101  (the caller chose such sides)
    known = np.isfinite(side.table)
    totals: Floats = np.where(known, side.table, 0.0).sum(axis=0)
    counts = known.sum(axis=0)
    means: Floats = np.where(counts > 0, totals / np.maximum(counts, 1), np.nan)
    return means
