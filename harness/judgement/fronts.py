"""Pareto fronts of score against a cost, with the probability of each row to be on them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from harness.judgement.intervals import SPREAD_SEEDS, Floats
from harness.judgement.leads import of_trials
from harness.judgement.resampling import DRAWS, resampled
from harness.judgement.verdicts import Comparison
from harness.results.files import Tables


def on_front(comparison: Comparison, cost: str, tables: Tables, draws: Floats | None = None) -> Floats:
    """For each row the probability that no other is at least as good in score and cost, and better in one.

    ``cost`` is one of :data:`harness.judgement.quantities.QUANTITIES`; less is better. Scores are resampled, and costs
    vary by Student's t of the logarithms of their seeds (with one seed, not at all). NaN where a row has no cost; such
    rows beat no other. ``draws`` are those of ``resampled``, where they are known.
    """
    trials = tables["trials"]
    by_row = [of_trials(cost, trials[trials.trial_id.isin(ids)], tables) for ids in comparison.rows.trial_ids]
    scores = resampled(comparison) if draws is None else draws
    return front_shares(scores if comparison.higher_is_better else -scores, costs_drawn([list(one) for one in by_row]))


def costs_drawn(by_row: Sequence[Sequence[float]], draws: int = DRAWS, seed: int = 1) -> Floats:
    """Draws of the costs of rows, measured once for each seed, of shape (draws, rows); NaN for a row without any."""
    random = np.random.default_rng(seed)
    found = np.full((draws, len(by_row)), np.nan)
    for place, values in enumerate(by_row):
        if not values:
            continue
        found[:, place] = np.median(values)
        if len(values) >= SPREAD_SEEDS and min(values) > 0:
            error = np.log(values).std(ddof=1) / np.sqrt(len(values))
            # Far out in its tail, Student's t of a few seeds is no time that anything takes.
            found[:, place] *= np.exp(np.clip(error * random.standard_t(len(values) - 1, draws), -10, 10))
    return found


def front_shares(scores: Floats, costs: Floats) -> Floats:
    """How often each row is on the front, over draws of shape (draws, rows); the highest score is the best."""
    known = np.flatnonzero(np.isfinite(costs[0]))
    share = np.full(costs.shape[1], np.nan)
    for row in known:
        more, less = scores[:, known] - scores[:, [row]], costs[:, known] - costs[:, [row]]
        beaten = (more >= 0) & (less <= 0) & ((more > 0) | (less < 0))
        share[row] = 1 - beaten.any(axis=1).mean()
    return share
