"""The protocol's statistics: settings are selected on validation, scores reported on test, each with an interval.

The functions take tables by name (:func:`harness.results.tables.read`) or the ``trials`` table, and change nothing.
What is better than what is in :mod:`harness.judgement.verdicts`.
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pandas as pd

from harness.judgement.examples import Scores, scores_by_trial, stacked
from harness.judgement.intervals import SPREAD_SEEDS, Error, Interval, Part, interval, mean_interval, with_a_width
from harness.judgement.timings import TIMES, without_untrusted_times
from harness.results.files import Tables, once
from harness.results.selection import CELL, SETTING
from harness.tasks.metrics import METRICS, Metric

_MEDIANS = [
    "forgetting",
    "model_params",
    "total_params",
    "trainable_params",
    "trainable_share",
    "checkpoint_bytes",
    "peak_train_bytes",
    "weights_bytes",
    "gradients_bytes",
    "optimizer_bytes",
    "activations_bytes",
    "peak_inference_bytes",
    "train_steps",
    *TIMES,
]


def select(trials: pd.DataFrame) -> pd.DataFrame:
    """The trials of the selected setting of every cell that ended well (protocol, rule 2).

    Their columns say which these are (:func:`harness.results.selection.fill_selection`). A cell in which no trial ended
    well has no rows. Times that may not be compared are missing (:mod:`harness.judgement.timings`).
    """
    chosen = trials[(trials.status == "ok") & trials.selected.astype(bool)].reset_index(drop=True)
    return without_untrusted_times(chosen)


def aggregate(tables: Tables) -> pd.DataFrame:
    """One row per cell: the selected setting's mean scores, the 95 % interval, and medians of the costs.

    ``ci_low`` and ``ci_high`` bound the mean ``test_score``; ``interval`` says in words what they cover (see
    :mod:`harness.judgement.intervals`). They come from the scores of single examples, or from seeds and standard errors
    where a trial has none (``has_examples``). ``trial_ids`` names the trials, ``seeds`` counts the seeds whose trial
    ended well. Every other number is a median over seeds.
    """
    return once(tables, "aggregate", lambda: _aggregate(tables)).copy()


def _aggregate(tables: Tables) -> pd.DataFrame:
    chosen = select(tables["trials"])
    groups = chosen.groupby([*CELL, *SETTING], dropna=False, sort=False)
    by_trial = scores_by_trial(chosen, tables)
    rows = []
    for key, group in groups:
        scores = stacked(group, by_trial)
        metric = METRICS.get(group.primary_metric.iloc[0])
        mean = _within(_mean(group, scores, metric), metric)
        rows.append(
            dict(zip([*CELL, *SETTING], key, strict=True))
            | {
                "trial_ids": tuple(group.trial_id),
                "has_examples": scores is not None,
                "settings_tried": int(group.settings_tried.iloc[0]),
                "seeds": group.seed.nunique(),
                "task_kind": group.task_kind.iloc[0],
                "primary_metric": group.primary_metric.iloc[0],
                "higher_is_better": bool(_higher(group).iloc[0]),
                "valid_score": group.valid_score.mean(),
                "test_score": mean.estimate,
                "base_score": group.base_score.mean(),
                "majority_score": group.majority_score.mean(),
                "ci_low": mean.low,
                "ci_high": mean.high,
                "interval": mean.basis,
                "seed_stderr": _root(mean.error.of_seeds),
                "test_stderr": _root(mean.error.of_examples),
                "test_examples": group.test_examples.max(),
            }
        )
    if not rows:
        return pd.DataFrame(columns=_AGGREGATE_COLUMNS)
    medians = groups[_MEDIANS].median().reset_index(drop=True)
    frame = pd.concat([pd.DataFrame(rows), medians], axis=1).reindex(columns=_AGGREGATE_COLUMNS)
    return frame.astype(dict.fromkeys(["test_score", "ci_low", "ci_high"], "float64"))


_AGGREGATE_COLUMNS = [
    *CELL,
    *SETTING,
    "trial_ids",
    "has_examples",
    "settings_tried",
    "seeds",
    "task_kind",
    "primary_metric",
    "higher_is_better",
    "valid_score",
    "test_score",
    "base_score",
    "majority_score",
    "ci_low",
    "ci_high",
    "interval",
    "seed_stderr",
    "test_stderr",
    "test_examples",
    *_MEDIANS,
]


def _mean(group: pd.DataFrame, scores: Scores | None, metric: Metric | None) -> Interval:
    """The mean test score of trials that differ in nothing but the seed."""
    by_seed = group.groupby("seed").test_score.mean().dropna()
    if by_seed.empty:
        return Interval(None, None, None, None, "none")
    value = float(by_seed.mean())
    if scores is not None:
        found = with_a_width(mean_interval(scores.table, scores.clusters, None if metric is None else metric.span))
        return interval(value, found.error, found.basis, found.seeds, found.examples, of_difference=False)
    examples = group.test_examples.min()
    known = group.test_stderr.dropna()
    count = int(examples) if pd.notna(examples) else 0
    of_seeds = Part(float(by_seed.var(ddof=1)) / len(by_seed), len(by_seed) - 1) if len(by_seed) > 1 else None
    of_examples = Part(float((known**2).mean()), count - 1 if count > 1 else math.inf) if len(known) else None
    error = Error(of_seeds, of_examples)
    # Of standard errors alone, none that was seen is no certainty.
    error = error if error.stderr else Error()
    return interval(value, error, _basis(len(by_seed), count, error), len(by_seed), count, of_difference=False)


def _within(mean: Interval, metric: Metric | None) -> Interval:
    """``mean`` with an interval that stays in the metric's range, outside of which there is nothing to cover."""
    if metric is None or mean.low is None or mean.high is None or mean.estimate is None:
        return mean
    low, high = max(mean.low, metric.minimum), min(mean.high, metric.maximum)
    # Made-up or rounded scores may lie outside themselves.
    return replace(mean, low=min(low, mean.estimate), high=max(high, mean.estimate))


def _basis(seeds: int, examples: int, error: Error) -> str:
    """What an interval from standard errors covers, in words."""
    many = f"{examples} examples" if examples else "the examples"
    of_seeds = f"{seeds} seeds"
    if error.of_examples is None:
        return f"{of_seeds} alone; the error over the examples is not known"
    said = f"{many} alone, of one seed" if seeds < SPREAD_SEEDS else f"{of_seeds} and {many}"
    return f"{said}, by standard errors"


def _root(part: Part | None) -> float:
    return math.nan if part is None else math.sqrt(part.variance)


def pareto(frame: pd.DataFrame, cost: str, score: str, higher_is_better: bool = True) -> npt.NDArray[np.bool_]:
    """Which rows are on the Pareto front: no other is at least as good in cost and score, and better in one.

    Less ``cost`` is better. Rows that lack either value are not on the front.
    """
    costs = frame[cost].to_numpy(dtype=float)
    gains = frame[score].to_numpy(dtype=float) * (1.0 if higher_is_better else -1.0)
    front = np.zeros(len(frame), dtype=np.bool_)
    known = np.flatnonzero(~(np.isnan(costs) | np.isnan(gains)))
    best_gain, best_cost = -np.inf, np.nan
    for i in known[np.lexsort((-gains[known], costs[known]))]:
        if gains[i] > best_gain:
            best_gain, best_cost = gains[i], costs[i]
        front[i] = gains[i] == best_gain and costs[i] == best_cost
    return front


def _higher(frame: pd.DataFrame) -> pd.Series:
    """The direction of the metric per row; higher is better where nothing is said, for there is no score then."""
    return frame.higher_is_better.fillna(True).astype(bool)
