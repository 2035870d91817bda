"""Which method is better: verdicts on pairs of rows, groups of rows that cannot be told apart, and power.

A verdict is *better*, *worse*, *equivalent* or *cannot tell* (protocol, rules 3 to 5). Two rows are compared on the
same examples and the same seeds (:func:`harness.judgement.intervals.paired_difference`). One is better if the interval
of the pair leaves zero out, and if it does so after a correction for all pairs of the comparison too (Holm 1979), for
which the spreads over seeds are pooled (:mod:`harness.judgement.pooling`). Where scores of single examples are missing,
the two means are compared by their standard errors, as if they shared no example, which errs on the side of doubt.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from enum import StrEnum
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd

from harness.catalog import METHODS, OBJECTIVES
from harness.judgement.examples import Scores, clusters, scores_by_trial, stacked
from harness.judgement.intervals import (
    CONFIDENCE,
    SPREAD_SEEDS,
    Error,
    Floats,
    Interval,
    Part,
    holm,
    interval,
    paired_difference,
    with_a_width,
)
from harness.judgement.pooling import moderated
from harness.judgement.statistics import aggregate
from harness.results.baseline import BASELINE, SAME_QUESTIONS
from harness.results.files import Tables, once
from harness.results.selection import CELL
from harness.tasks.metrics import METRICS

MARGIN = 0.01
"""Two methods are equivalent when their difference is surely smaller than this share of the metric's maximum."""

_LEVEL = 1 - CONFIDENCE


class Verdict(StrEnum):
    """What can be said of one row against another."""

    BETTER = "better"
    WORSE = "worse"
    EQUIVALENT = "equivalent"
    CANNOT_TELL = "cannot tell"


_OPPOSITE = {Verdict.BETTER: Verdict.WORSE, Verdict.WORSE: Verdict.BETTER}


@dataclass(frozen=True)
class Pair:
    """One row against another; the difference is positive where the first is better, whatever the metric's direction.

    ``p`` is corrected for the pairs of the comparison, the interval is not. ``pooled`` is the error that the correction
    goes by.
    """

    difference: Interval
    verdict: Verdict = Verdict.CANNOT_TELL
    p: float | None = None
    pooled: Error = field(default=Error(), repr=False)
    paired: bool = True
    """False: the scores of single examples are missing, and the two means were compared by their standard errors."""
    one_seed: bool = False
    """The spread between runs is not known, so nothing is called better."""

    def reversed(self) -> Pair:
        """The second against the first."""
        d = self.difference
        turned = replace(d, estimate=_minus(d.estimate), low=_minus(d.high), high=_minus(d.low))
        return replace(self, difference=turned, verdict=_OPPOSITE.get(self.verdict, self.verdict))


@dataclass(frozen=True)
class Comparison:
    """Rows that answered the same questions, and a verdict on every pair of them."""

    rows: pd.DataFrame
    """Scored rows of :func:`harness.judgement.statistics.aggregate`, best first, numbered from 0."""
    pairs: dict[tuple[int, int], Pair]
    """By the numbers of two rows, the smaller first."""
    margin: float | None
    """Differences within it are equivalent, in the unit of the score; None for a metric without a maximum."""
    span: float | None = None
    """The largest difference that the metric allows; None for a metric without a maximum."""
    sides: tuple[Side, ...] = ()
    """The scores of single examples behind the rows, in their order."""
    sources: list[str] | None = None
    """The source of each example; None where each is its own."""

    @property
    def listed(self) -> list[Any]:
        """The rows one by one, whose attributes are the columns."""
        return list(self.rows.itertuples())

    @property
    def policies(self) -> dict[int, Any]:
        """The rows of models that were trained to answer, by their numbers, the best one first."""
        return {n: row for n, row in enumerate(self.listed) if is_trained(row) and not is_reward_model(row)}

    @property
    def higher_is_better(self) -> bool:
        """Direction of the metric."""
        return bool(self.rows.higher_is_better.iloc[0])

    def pair(self, first: int, second: int) -> Pair:
        """Row ``first`` against row ``second``."""
        return self.pairs[first, second] if first < second else self.pairs[second, first].reversed()

    def against(self, row: int) -> dict[int, Pair]:
        """``row`` against every other one."""
        return {other: self.pair(row, other) for other in range(len(self.rows)) if other != row}

    @property
    def undecided(self) -> dict[tuple[int, int], Pair]:
        """The pairs of which it cannot tell."""
        return {key: pair for key, pair in self.pairs.items() if pair.verdict is Verdict.CANNOT_TELL}

    @property
    def zero_shot(self) -> int | None:
        """The row of the bare model, without training and without examples in its prompt; None if there is none."""
        bare = [place for place, row in enumerate(_rows(self.rows)) if is_zero_shot(row)]
        return bare[0] if bare else None

    def letters(self) -> list[str]:
        """A word per row: two rows share a letter if and only if neither is better (Piepho 2004, insert and absorb)."""
        groups = [set(range(len(self.rows)))]
        for (first, second), pair in self.pairs.items():
            if pair.verdict in _OPPOSITE:
                split = [one for one in groups if {first, second} <= one]
                groups = [one for one in groups if not {first, second} <= one]
                for one in split:
                    groups += [one - {first}, one - {second}]
                groups = _without_parts(groups)
        words = [""] * len(self.rows)
        for place, group in enumerate(sorted(groups, key=sorted)):
            for row in group:
                words[row] += _letter(place)
        return words


def compare(rows: pd.DataFrame, tables: Tables) -> list[Comparison]:
    """The comparisons among ``rows`` of ``aggregate``: one for each set of rows that answered the same questions.

    A reward model's accuracy is that of its number, a policy's that of its likelihoods: they are never compared. Rows
    without a test score are left out.
    """
    scored = rows[rows.test_score.notna()]
    if scored.empty:
        return []
    kinds = scored.assign(_scalar=[is_reward_model(row) for row in _rows(scored)])
    keys = [*SAME_QUESTIONS, "primary_metric", "_scalar"]
    return [
        _comparison(group.drop(columns="_scalar"), tables) for _, group in kinds.groupby(keys, dropna=False, sort=False)
    ]


def beats_baseline(tables: Tables) -> pd.DataFrame:
    """Per cell of a trained method: how far its selected setting is above the untrained model, and the verdict.

    ``difference``, ``low`` and ``high`` are positive where the method is better, whatever the direction of the metric.
    Cells whose questions the bare model did not answer are left out.
    """
    found = []
    for comparison in compare(aggregate(tables), tables):
        bare = comparison.zero_shot
        for place, row in enumerate(_rows(comparison.rows)):
            if bare is not None and is_trained(row):
                pair = comparison.pair(place, bare)
                d = pair.difference
                said = (d.estimate, d.low, d.high, pair.p, d.basis, pair.verdict.value)
                found.append([*(getattr(row, name) for name in CELL), *said])
    return pd.DataFrame(found, columns=[*CELL, "difference", "low", "high", "p", "basis", "verdict"])


def is_trained(row: Any) -> bool:
    """Whether the row's method trains anything; a method from elsewhere does."""
    return row.method not in METHODS or METHODS[row.method].trains


def is_zero_shot(row: Any) -> bool:
    """Whether a row stands for the bare model, without training and without arguments that change what it answers."""
    return row.method == BASELINE and not any(json.loads(row.method_args).values())


def _is_without_seeds(row: Any) -> bool:
    """Whether every seed gives the same answers: nothing trains, and no examples are drawn for the prompt."""
    method = METHODS.get(row.method)
    return method is not None and not method.trains and not json.loads(row.method_args).get(method.seeded_by)


def is_reward_model(row: Any) -> bool:
    """Whether the network of a row ends in a single number for a text."""
    return row.objective in OBJECTIVES and OBJECTIVES[row.objective].scalar


def _scores(rows: pd.DataFrame, tables: Tables) -> dict[tuple[str, ...], Scores | None]:
    """The scores of single examples behind each row, by the ids of its trials."""
    trials = tables["trials"]
    trials = trials[trials.trial_id.isin([one for ids in rows.trial_ids for one in ids])]
    by_trial = scores_by_trial(trials, tables)
    return {ids: stacked(trials[trials.trial_id.isin(ids)], by_trial) for ids in rows.trial_ids}


def _comparison(rows: pd.DataFrame, tables: Tables) -> Comparison:
    higher = bool(rows.higher_is_better.iloc[0])
    rows = rows.sort_values("test_score", ascending=not higher, kind="stable").reset_index(drop=True)
    metric = METRICS.get(rows.primary_metric.iloc[0])
    span = None if metric is None else metric.span
    margin = None if metric is None or span is None else MARGIN * metric.maximum

    def judged() -> tuple[list[Side], list[str] | None, dict[tuple[int, int], Pair]]:
        sides, sources = _sides(list(_rows(rows)), _scores(rows, tables))
        return sides, sources, _pairs(sides, sources, 1.0 if higher else -1.0, span, margin)

    sides, sources, pairs = once(tables, ("pairs", *rows.trial_ids), judged)
    return Comparison(rows, pairs, margin, span, tuple(sides), sources)


def _pairs(
    sides: list[Side], sources: list[str] | None, sign: float, span: float | None, margin: float | None
) -> dict[tuple[int, int], Pair]:
    """A verdict on every pair of rows, corrected for all of them together."""
    spreads = _spreads(sides)
    pairs = {}
    for i, j in combinations(range(len(sides)), 2):
        pair = _pair(sides[i], sides[j], sources, sign, span)
        pairs[i, j] = replace(pair, pooled=_pooled(pair, [spreads.get(place) for place in (i, j)]))
    adjusted = holm([_p(pair) for pair in pairs.values()])
    for (key, pair), p in zip(pairs.items(), adjusted, strict=True):
        # The interval of the pair, which assumes nothing of other methods, has a say too.
        both = None if p is None else max(p, pair.difference.p or 0.0)
        pairs[key] = replace(pair, p=both, verdict=_verdict(pair, both, margin))
    return pairs


def _spreads(sides: list[Side]) -> dict[int, Part]:
    """By the number of a row: how much the mean score of one seed varies, learnt from all rows together."""
    own: dict[int, Part] = {}
    for place, side in enumerate(sides):
        if side.table is not None and not side.fixed:
            means = [float(np.nanmean(one)) for one in side.table if not np.isnan(one).all()]
            if len(means) >= SPREAD_SEEDS:
                own[place] = Part(float(np.var(means, ddof=1)), len(means) - 1)
    return dict(zip(own, moderated(list(own.values())), strict=True))


def _pooled(pair: Pair, spreads: list[Part | None]) -> Error:
    """The error of a pair with a seeds' part from the comparison's spreads, where those are known and not smaller."""
    error, seeds = pair.difference.error, pair.difference.seeds
    known = [Part(one.variance / seeds, one.df) for one in spreads if one is not None] if seeds else []
    if not pair.paired or pair.one_seed or error.of_seeds is None or not known:
        return error
    pooled = summed(known)
    assert pooled is not None  # noqa: S101  (there is at least one)
    return replace(error, of_seeds=Part(max(pooled.variance, error.of_seeds.variance), pooled.df))


def _p(pair: Pair) -> float | None:
    """The p that the correction goes by; None where nothing may be called better."""
    d = pair.difference
    if pair.one_seed or d.p is None or d.estimate is None:
        return None
    # Where all differences are the same, other methods' spread says nothing of it.
    return d.p if not d.error.stderr else pair.pooled.p(d.estimate)


def _verdict(pair: Pair, p: float | None, margin: float | None) -> Verdict:
    d = pair.difference
    if p is None or d.estimate is None or d.low is None or d.high is None:
        return Verdict.CANNOT_TELL
    if margin is not None and -margin <= d.low and d.high <= margin:
        return Verdict.EQUIVALENT
    if p > _LEVEL:
        return Verdict.CANNOT_TELL
    return Verdict.BETTER if d.estimate > 0 else Verdict.WORSE


@dataclass(frozen=True)
class Side:
    """One row of a comparison, with its scores at every seed and example that any row has; NaN where it has none."""

    row: Any
    table: Floats | None
    fixed: bool
    """Every seed gives the same answers, so one trial stands for all."""


def _sides(listed: list[Any], scores: dict[tuple[str, ...], Scores | None]) -> tuple[list[Side], list[str] | None]:
    """The rows, and the source of each example; None where each is its own."""
    known = [scores[row.trial_ids] for row in listed]
    seeds = tuple(sorted({seed for one in known if one for seed in one.seeds}))
    examples = list(dict.fromkeys(example for one in known if one for example in one.examples))
    sides = []
    for row, one in zip(listed, known, strict=True):
        fixed = _is_without_seeds(row)
        table = None if one is None else one.at(one.seeds[:1] if fixed else seeds, examples)
        sides.append(Side(row, table if table is None or not fixed else table.repeat(len(seeds), axis=0), fixed))
    sources = clusters(examples)
    return sides, None if len(set(sources)) == len(sources) else sources


def _pair(a: Side, b: Side, sources: list[str] | None, sign: float, span: float | None) -> Pair:
    if a.table is None or b.table is None:
        one_seed = any(side.row.seeds < SPREAD_SEEDS and not side.fixed for side in (a, b))
        return Pair(_unpaired(a, b, sign), paired=False, one_seed=one_seed)
    still = a.fixed and b.fixed
    first, second = (side.table[:1] if still else side.table for side in (a, b) if side.table is not None)
    difference = paired_difference(sign * first, sign * second, sources, span)
    return Pair(with_a_width(difference), one_seed=difference.seeds < SPREAD_SEEDS and not still)


def _unpaired(first: Side, second: Side, sign: float) -> Interval:
    """The difference of two means by their standard errors."""
    a, b = first.row, second.row
    seeds = [
        Part(side.row.seed_stderr**2, side.row.seeds - 1)
        for side in (first, second)
        if not side.fixed and not pd.isna(side.row.seed_stderr)
    ]
    examples = [Part(row.test_stderr**2, max(row.test_examples - 1, 1)) for row in (a, b)]
    known = not any(math.isnan(part.variance) or math.isnan(part.df) for part in examples)
    error = Error(summed(seeds), summed(examples)) if known else Error()
    error = error if error.stderr else Error()
    count, fewest = int(min(a.seeds, b.seeds)), min(a.test_examples, b.test_examples)
    many = 0 if pd.isna(fewest) else int(fewest)
    basis = f"{count} seeds and {many} examples, by standard errors, not paired"
    return interval(sign * (a.test_score - b.test_score), error, basis, count, many, of_difference=True)


def summed(parts: list[Part]) -> Part | None:
    """The variance of a sum, its degrees of freedom after Welch (1947)."""
    total = sum(part.variance for part in parts)
    weight = sum(part.variance**2 / part.df for part in parts)
    if not parts:
        return None
    return Part(total, total**2 / weight if weight > 0 else min(part.df for part in parts))


def _minus(value: float | None) -> float | None:
    return None if value is None else -value


def _without_parts(groups: list[set[int]]) -> list[set[int]]:
    """The groups that are no part of another, each once."""
    kept: list[set[int]] = []
    for group in sorted(groups, key=len, reverse=True):
        if not any(group <= larger for larger in kept):
            kept.append(group)
    return kept


def _letter(place: int) -> str:
    """a, b, …, z, then a1, b1, …"""
    turn, letter = divmod(place, 26)
    return chr(ord("a") + letter) + (str(turn) if turn else "")


def _rows(frame: pd.DataFrame) -> Iterator[Any]:
    return iter(frame.itertuples())
