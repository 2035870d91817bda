"""How far one row is ahead of another: scores in pairs of examples, costs seed by seed.

A lead is oriented: it is positive where the first row is better, whatever the direction of the quantity. That of a cost
is the logarithm of a ratio (:mod:`harness.judgement.quantities`).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from harness.judgement.examples import scores_by_trial, stacked
from harness.judgement.intervals import SPREAD_SEEDS, Error, Interval, Part, interval, paired_difference, with_a_width
from harness.judgement.quantities import QUANTITIES
from harness.judgement.timings import TIMES, trusted
from harness.results.files import Tables, where
from harness.tasks.metrics import METRICS


@dataclass(frozen=True)
class Lead:
    """How far one row is ahead of another: in the unit of the quantity, or as the logarithm of a ratio."""

    interval: Interval
    pooled: Error
    """The error for a correction for many comparisons, as in :class:`harness.judgement.verdicts.Pair`."""
    left: float
    right: float
    """The values of both, means over seeds (of ratios, geometric means)."""
    ratio: bool = False

    @property
    def is_judged(self) -> bool:
        """Whether anything may be concluded: the spread between seeds is known, or there is none."""
        return self.interval.p is not None

    def p(self, threshold: float) -> float:
        """The two-sided p of the hypothesis that the lead is ``threshold``, by both errors; 1 if nothing is known."""
        if not self.is_judged or self.interval.estimate is None:
            return 1.0
        away = self.interval.estimate - threshold
        # Where all differences are the same, other rows' spread says nothing of it.
        errors = (self.interval.error, self.pooled) if self.interval.error.stderr else (self.interval.error,)
        return max(p for p in (error.p(away) for error in errors) if p is not None)


def of_trials(name: str, trials: pd.DataFrame, tables: Tables, variant: str = "plain") -> pd.Series:
    """The quantity by seed, of trials that differ in their seed alone; without those that did not measure it.

    Times that may not be compared do not count (protocol, rule 6). ``variant`` is that of the latency table,
    'plain' or 'merged'.
    """
    column = QUANTITIES[name].column
    if column is None:
        values = _latency(trusted(trials), tables, variant)
    else:
        counts = trusted(trials) if column in TIMES else trials
        values = counts.set_index("seed")[column]
    values = values[values.notna()].astype("float64")
    return values[~values.index.duplicated()].sort_index()


def _latency(trials: pd.DataFrame, tables: Tables, variant: str) -> pd.Series:
    """Seconds per token with one request at a time, or per label where nothing is generated; by seed."""
    if "latency" not in tables:
        return pd.Series(dtype="float64")
    measured = where(tables, "latency", trials.trial_id, variant=variant, batch_size=1)
    last = measured[measured.phase.isin(["decode", "predict"])].drop_duplicates("trial_id")
    by_trial = last.set_index("trial_id").p50_s
    return pd.Series(trials.trial_id.map(by_trial).to_numpy(), index=trials.seed.to_numpy())


def cost_lead(name: str, left: pd.Series, right: pd.Series) -> Lead | None:
    """The lead of ``left`` over ``right``, values by seed (:func:`of_trials`); None where they have no seed in common.

    A ratio of what is not positive is none. With one seed of a measured quantity nothing is known of the noise.
    """
    quantity = QUANTITIES[name]
    sign = 1.0 if quantity.higher_is_better else -1.0
    both = pd.DataFrame({"left": left, "right": right}).dropna()
    if quantity.ratio:
        both = both[(both > 0).all(axis=1)].map(np.log)
    if both.empty:
        return None
    a, b = (sign * both[side].to_numpy(dtype=np.float64)[:, None] for side in ("left", "right"))
    difference = paired_difference(a, b)
    if quantity.counted:
        difference = _exact(difference)
    means = both.mean()
    shown = np.exp(means) if quantity.ratio else means
    return Lead(difference, difference.error, float(shown["left"]), float(shown["right"]), quantity.ratio)


def _exact(difference: Interval) -> Interval:
    """``difference`` of what was counted: one seed is enough, and there is no width."""
    assert difference.estimate is not None  # noqa: S101  (there is a seed)
    error = Error(of_seeds=Part(0.0, 1))
    return interval(difference.estimate, error, "counted", difference.seeds, 0, of_difference=True)


def metric_lead(metric: str, left: pd.DataFrame, right: pd.DataFrame, tables: Tables) -> Lead | None:
    """The lead by another metric of the test split than the primary one, of two sets of trials.

    It is paired on examples where both stored them, else on the seeds alone. None where one has no value.
    Of a metric that the registry does not have, such as a reward, more is better.
    """
    known = METRICS.get(metric)
    sign = 1.0 if known is None or known.higher_is_better else -1.0
    a, b = (_by_seed(metric, trials, tables) for trials in (left, right))
    seeds = tuple(sorted({int(seed) for seed in a.index} & {int(seed) for seed in b.index}))
    if not seeds:
        return None
    first, second = (stacked(t, scores_by_trial(t.assign(primary_metric=metric), tables)) for t in (left, right))
    if first is not None and second is not None and set(first.examples) & set(second.examples):
        ours, theirs = (one.at(seeds, list(first.examples)) for one in (first, second))
        span = None if known is None else known.span
        difference = paired_difference(sign * ours, sign * theirs, first.clusters, span)
    else:
        ours, theirs = (one.loc[list(seeds)].to_numpy(dtype=np.float64)[:, None] for one in (a, b))
        difference = paired_difference(sign * ours, sign * theirs)
    difference = with_a_width(difference)
    if difference.seeds < SPREAD_SEEDS:  # it says nothing of the spread between runs
        difference = replace(difference, p=None)
    left_mean, right_mean = (float(one.loc[list(seeds)].mean()) for one in (a, b))
    return Lead(difference, difference.error, left_mean, right_mean)


def _by_seed(metric: str, trials: pd.DataFrame, tables: Tables) -> pd.Series:
    """The metric on test by seed."""
    if "scores" not in tables:
        return pd.Series(dtype="float64")
    rows = where(tables, "scores", trials.trial_id, split="test", metric=metric)
    by_trial = rows.drop_duplicates("trial_id").set_index("trial_id").value
    values = pd.Series(trials.trial_id.map(by_trial).to_numpy(dtype=np.float64), index=trials.seed.to_numpy())
    return values[values.notna() & ~values.index.duplicated()]


def value_of(metric: str, trials: pd.DataFrame, tables: Tables) -> float | None:
    """Mean over seeds of a metric on test; None where no trial has it."""
    values = _by_seed(metric, trials, tables)
    return None if values.empty else float(values.mean())
