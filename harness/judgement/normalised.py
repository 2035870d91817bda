"""One score over several tasks: 0 is the untrained model, 1 is full fine-tuning, and the middle half is averaged.

The interquartile mean leaves the best and the worst quarter of the tasks out: less than the mean does it follow one
task, and it uses more of them than the median (Agarwal et al. 2021, arXiv:2108.13264).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.stats import trim_mean

from harness.judgement.intervals import CONFIDENCE, Floats
from harness.judgement.resampling import resampled
from harness.judgement.verdicts import Comparison, Verdict, is_trained
from harness.results.baseline import FULL


@dataclass(frozen=True)
class Normalised:
    """The score of one method over the tasks on which it ran."""

    method: str
    method_args: str
    score: float
    low: float
    high: float
    tasks: int
    """Tasks (with their model) that count."""


@dataclass(frozen=True)
class OverTasks:
    """The scores of all methods, best first."""

    methods: tuple[Normalised, ...]
    tasks: int
    """Comparisons that have a scale."""
    left_out: int
    """Comparisons without one: no untrained model, no full fine-tuning, no sure gain between them, or several rows of a
    method."""


def iqm(values: Floats) -> Floats:
    """Interquartile mean over the last axis: a quarter of the values, rounded down, is left out at each end."""
    mean: Floats = np.asarray(trim_mean(values, 0.25, axis=-1))
    return mean


def over_tasks(comparisons: Sequence[Comparison]) -> OverTasks | None:
    """The normalised scores of every method with its arguments; None where fewer than two comparisons have a scale.

    The scale is drawn together with the scores: what is uncertain about its ends is in the intervals.
    """
    draws: dict[tuple[str, str], list[Floats]] = {}
    points: dict[tuple[str, str], list[float]] = {}
    tasks = 0
    for number, comparison in enumerate(comparisons):
        ends = _scale(comparison)
        if ends is None:
            continue
        tasks += 1
        bare, full = ends
        drawn, scores = resampled(comparison, seed=number), comparison.rows.test_score.to_numpy(dtype=np.float64)
        for place, row in enumerate(comparison.listed):
            if is_trained(row):
                key = (row.method, row.method_args)
                draws.setdefault(key, []).append(_normal(drawn[:, place], drawn[:, bare], drawn[:, full]))
                points.setdefault(key, []).append(float(_normal(scores[place], scores[bare], scores[full])))
    if tasks < 2:
        return None
    found = [_one(key, np.array(points[key]), np.stack(draws[key], axis=-1)) for key in draws]
    ordered = sorted(found, key=lambda one: -one.score)
    return OverTasks(tuple(ordered), tasks, len(comparisons) - tasks)


def _one(key: tuple[str, str], points: Floats, draws: Floats) -> Normalised:
    low, high = np.quantile(iqm(draws), [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return Normalised(*key, float(iqm(points)), float(low), float(high), len(points))


def _scale(comparison: Comparison) -> tuple[int, int] | None:
    """The rows of the untrained model and of full fine-tuning; None unless the latter surely is the better one.

    Also None where a method has several rows, of several objectives, of which none may stand for it.
    """
    if comparison.rows.duplicated(["method", "method_args"]).any():
        return None
    bare = comparison.zero_shot
    full = [place for place, row in enumerate(comparison.listed) if row.method == FULL]
    if bare is None or not full or comparison.pair(full[0], bare).verdict is not Verdict.BETTER:
        return None
    return bare, full[0]


def _normal(score: Any, bare: Any, full: Any) -> Any:
    return (score - bare) / (full - bare)
