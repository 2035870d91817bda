"""Which method to take, for a goal and within a memory: from the rows of one comparison.

For the goal *score*, the best mean score among what fits is recommended, with all that it cannot be told apart from.
For another goal, the cheapest of those that are good enough (:func:`good_enough`). Nothing is recommended over what it
cannot be told apart from without saying so.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import pandas as pd

from harness.judgement.intervals import CONFIDENCE
from harness.judgement.labels import labelled
from harness.judgement.leads import cost_lead, of_trials
from harness.judgement.quantities import QUANTITIES, SCORE
from harness.judgement.verdicts import Comparison, Verdict
from harness.results.files import Tables

Goal = Literal["score", "speed", "latency", "size"]

GOALS: dict[str, str] = {
    "score": SCORE,
    "speed": "chain_train_s",
    "latency": "latency_s",
    "size": "checkpoint_bytes",
}
"""The quantity that each goal is about."""

#: A method is good enough when it keeps this share of another one's gain over the untrained model.
GOOD = 0.95


@dataclass(frozen=True)
class Choice:
    """What is recommended; rows are numbers in the comparison."""

    goal: str
    best: int | None
    """None: nothing fits, or nothing that fits was measured."""
    tied: tuple[int, ...] = ()
    """Rows that the best one cannot be told apart from in what the goal is about."""
    considered: tuple[int, ...] = ()
    """Rows that fit, in the order of the goal, the best first."""
    values: Mapping[int, float | None] | None = None
    """What the goal is about, by row; the score for the goal score."""
    too_large: tuple[int, ...] = ()
    unknown: tuple[int, ...] = ()
    """Rows whose memory is not known, so that they are not recommended."""
    not_good: tuple[int, ...] = ()
    """Rows that fit and do not score well enough to count for a goal other than the score."""
    unmeasured: tuple[int, ...] = ()
    """Rows that fit and are good enough, and of which nobody measured what the goal is about."""
    is_shown: bool = False
    """Whether the best one is shown to be better than the untrained model."""
    ahead: tuple[int, ...] = ()
    """Rows of a lower mean that are better on the seeds that they share with the best one."""


def good_enough(frame: pd.DataFrame, reference: Any) -> pd.Series:
    """Which rows keep at least :data:`GOOD` of the reference's gain over the untrained model, by mean scores.

    Where there is no gain, or no score of the untrained model, a good row scores no worse than the reference. A share
    of the score itself would mean nothing where scores are negative or where lower is better.
    """
    sign = 1.0 if bool(frame.higher_is_better.iloc[0]) else -1.0
    gained = sign * (reference.test_score - frame.base_score)
    short = sign * (reference.test_score - frame.test_score)
    good: pd.Series = (short <= 0) | ((gained > 0) & (short <= (1 - GOOD) * gained))
    return good


class Costs:
    """What the rows of a comparison cost, seed by seed; each quantity, and each pair of rows, is computed once."""

    def __init__(self, comparison: Comparison, tables: Tables) -> None:
        self._tables = tables
        trials = tables["trials"]
        self._trials = [trials[trials.trial_id.isin(ids)] for ids in comparison.rows.trial_ids]
        self._by_seed: dict[str, list[pd.Series]] = {}
        self._cheaper: dict[tuple[str, int, int], bool] = {}

    def by_seed(self, quantity: str) -> Sequence[pd.Series]:
        """The quantity of each row, by its number; empty where nobody measured it."""
        if quantity not in self._by_seed:
            self._by_seed[quantity] = [of_trials(quantity, trials, self._tables) for trials in self._trials]
        return self._by_seed[quantity]

    def is_cheaper(self, quantity: str, cheap: int, dear: int) -> bool:
        """Whether the first row surely costs less than the second."""
        pair = (quantity, cheap, dear)
        if pair not in self._cheaper:
            series = self.by_seed(quantity)
            self._cheaper[pair] = _is_cheaper(quantity, series[cheap], series[dear])
        return self._cheaper[pair]


def choose(
    comparison: Comparison,
    costs: Costs,
    goal: str,
    memory_bytes: int | None = None,
    peaks: Mapping[int, float | None] | None = None,
) -> Choice:
    """The recommendation for ``goal`` among the trained policies of a comparison.

    ``peaks`` has the bytes that training each row takes, by its number; by default those that were measured.
    """
    candidates = comparison.policies
    known = peaks if peaks is not None else {p: _known(row.peak_train_bytes) for p, row in candidates.items()}
    unknown = tuple(p for p in candidates if memory_bytes is not None and known.get(p) is None)
    too_large = tuple(p for p in candidates if memory_bytes is not None and (known.get(p) or 0) > memory_bytes)
    fitting = [place for place in candidates if place not in (*unknown, *too_large)]
    if not fitting:
        return Choice(goal, None, too_large=too_large, unknown=unknown)
    choice = _by_score(comparison, fitting) if goal == "score" else _by_cost(comparison, costs, goal, fitting)
    unmeasured = tuple(place for place in fitting if place not in (*choice.considered, *choice.not_good))
    shown = choice.best is not None and _is_shown(comparison, choice.best)
    return replace(choice, too_large=too_large, unknown=unknown, unmeasured=unmeasured, is_shown=shown)


def _known(value: float) -> float | None:
    return None if pd.isna(value) else float(value)


def _is_shown(comparison: Comparison, place: int) -> bool:
    bare = comparison.zero_shot
    return bare is not None and comparison.pair(place, bare).verdict is Verdict.BETTER


def _by_score(comparison: Comparison, fitting: Sequence[int]) -> Choice:
    best = fitting[0]  # rows are ordered by their score
    verdicts = {p: comparison.pair(best, p).verdict for p in fitting[1:]}
    ahead = tuple(p for p, verdict in verdicts.items() if verdict is Verdict.WORSE)
    tied = tuple(p for p, verdict in verdicts.items() if verdict in (Verdict.EQUIVALENT, Verdict.CANNOT_TELL))
    scores = {place: float(comparison.rows.test_score[place]) for place in fitting}
    return Choice("score", best, tied, tuple(fitting), scores, ahead=ahead)


def _by_cost(comparison: Comparison, known: Costs, goal: str, fitting: Sequence[int]) -> Choice:
    quantity = GOALS[goal]
    frame = comparison.rows.iloc[list(fitting)]
    good = good_enough(frame, comparison.listed[fitting[0]])
    by_seed = known.by_seed(quantity)
    values = {p: None if by_seed[p].empty else float(by_seed[p].median()) for p in fitting}
    costs = {place: value for place, value in values.items() if value is not None and bool(good[place])}
    not_good = tuple(place for place in fitting if not bool(good[place]))
    if not costs:
        return Choice(goal, None, values=values, not_good=not_good)
    best, *others = considered = tuple(sorted(costs, key=lambda place: costs[place]))
    tied = tuple(place for place in others if not known.is_cheaper(quantity, best, place))
    return Choice(goal, best, tied, considered, values, not_good=not_good)


def _is_cheaper(quantity: str, cheap: pd.Series, dear: pd.Series) -> bool:
    """Whether the first surely costs less."""
    lead = cost_lead(quantity, cheap, dear)
    if lead is None:
        return QUANTITIES[quantity].counted
    estimate = lead.interval.estimate or 0.0
    return estimate > 0 and lead.is_judged and lead.p(0.0) <= 1 - CONFIDENCE


def names(comparison: Comparison) -> list[str]:
    """What each row is called in a sentence: its method, and in brackets what tells it from other rows of it."""
    called = labelled(comparison.rows)
    return [
        method if label == method else f"{method} ({label.removeprefix(f'{method}, ')})"
        for method, label in zip(called.method.astype(str), called.label, strict=True)
    ]
