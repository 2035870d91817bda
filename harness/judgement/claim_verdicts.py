"""Whether tables agree with what a paper says: agrees, disagrees, cannot tell, or not run here.

A claim is judged at every place where its two sides ran under the same conditions, by the interval of the difference
(or of the logarithm of a ratio). It *agrees* if every place does, and *disagrees* if one place does, after Holm's
correction for all places of the claim; the rest is *cannot tell*. One seed decides nothing that is measured.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

import pandas as pd

from harness.judgement.claim_rows import Match, chosen, matches, series
from harness.judgement.claims import Check, Claim, Side
from harness.judgement.intervals import CONFIDENCE, Error, Part, holm, interval
from harness.judgement.leads import Lead, cost_lead, metric_lead, of_trials, value_of
from harness.judgement.power import visible
from harness.judgement.quantities import QUANTITIES, SCORE
from harness.judgement.statistics import aggregate
from harness.judgement.timings import TIMES, trusted
from harness.judgement.verdicts import Comparison, compare, summed
from harness.results.files import Tables
from harness.tasks.metrics import METRICS

_LEVEL = 1 - CONFIDENCE


class ClaimVerdict(StrEnum):
    """What tables say of a claim."""

    AGREES = "agrees"
    DISAGREES = "disagrees"
    CANNOT_TELL = "cannot tell"
    NOT_RUN = "not run here"


@dataclass(frozen=True)
class Place:
    """The evidence of one pair of rows, or of the two ends of a series."""

    match: Match
    lead: Lead
    verdict: ClaimVerdict = ClaimVerdict.CANNOT_TELL
    p: float | None = None
    """Of what the verdict says, corrected for the places of the claim; None where it cannot tell."""
    smallest: float | None = None
    """Where it cannot tell: the lead beyond what the claim asks for that would have been seen in 80 % of sweeps."""
    start: Match | None = None
    """The other end of a series: ``lead`` is that of ``match`` less that of ``start``."""


@dataclass(frozen=True)
class Judgement:
    """A claim, the verdict of some tables on it, and the evidence."""

    claim: Claim
    verdict: ClaimVerdict
    places: tuple[Place, ...] = ()
    reason: str | None = None
    """Why it was not run here."""
    unlike: int = 0
    """Pairs that were left out because the two sides differ too much in another metric."""

    def count(self, verdict: ClaimVerdict) -> int:
        """The number of places with this verdict."""
        return sum(place.verdict is verdict for place in self.places)


@dataclass(frozen=True)
class Evidence:
    """Tables, and what every claim needs of them, computed once."""

    tables: Tables
    rows: tuple[Any, ...]
    """Those of :func:`harness.judgement.statistics.aggregate`, whose attributes are the columns."""
    comparisons: Mapping[tuple[str, ...], tuple[Comparison, int]]
    """By the trials of a row: the comparison in which its score stands, and its number there."""
    families: dict[str, str | None]

    @classmethod
    def of(cls, tables: Tables) -> Evidence:
        """The evidence in some tables."""
        rows = aggregate(tables)
        places = {
            row.trial_ids: (comparison, place)
            for comparison in compare(rows, tables)
            for place, row in enumerate(comparison.listed)
        }
        known = tables["trials"][["model", "model_family"]].drop_duplicates("model")
        families = {str(model): None if pd.isna(family) else str(family) for model, family in known.to_numpy()}
        return cls(tables, tuple(rows.itertuples()), places, families)

    def trials(self, row: Any) -> pd.DataFrame:
        """The trials behind a row."""
        trials = self.tables["trials"]
        return trials[trials.trial_id.isin(row.trial_ids)]


def judge_all(claims: Sequence[Claim], tables: Tables) -> list[Judgement]:
    """What ``tables`` say of each claim."""
    evidence = Evidence.of(tables)
    return [judge(claim, evidence) for claim in claims]


def judge(claim: Claim, evidence: Evidence) -> Judgement:
    """What the evidence says of one claim."""
    check = claim.check
    pairs = matches(check, evidence.rows)
    alike = [match for match in pairs if _is_alike(match, check, evidence)]
    places = _series(check, alike, evidence) if check.along else _pairs(check, alike, evidence)
    unlike = len(pairs) - len(alike)
    if not places:
        return Judgement(claim, ClaimVerdict.NOT_RUN, reason=_why_not(check, pairs, alike, evidence), unlike=unlike)
    judged = _judged(check, places)
    verdicts = {place.verdict for place in judged}
    if ClaimVerdict.DISAGREES in verdicts:
        verdict = ClaimVerdict.DISAGREES
    else:
        verdict = ClaimVerdict.AGREES if verdicts == {ClaimVerdict.AGREES} else ClaimVerdict.CANNOT_TELL
    return Judgement(claim, verdict, tuple(judged), unlike=unlike)


def _why_not(check: Check, pairs: Sequence[Match], alike: Sequence[Match], evidence: Evidence) -> str:
    """Why there is no place to judge."""
    if alike:
        if check.along:
            return f"there are no two sizes of {check.along} under otherwise the same conditions"
        return _unmeasured(check, alike, evidence)
    if pairs:
        assert check.alike is not None  # noqa: S101  (nothing else leaves pairs out)
        return f"no two rows are alike in {check.alike.metric} (within a factor of {check.alike.factor:g})"
    missing = [_described(side) for side in (check.left, check.right) if not chosen(side, check, evidence.rows)]
    return f"no row of {' or '.join(missing)}" if missing else "both sides ran, but never under the same conditions"


def _unmeasured(check: Check, alike: Sequence[Match], evidence: Evidence) -> str:
    """Why no lead is known although both sides ran: of times, that none of both sides may be compared."""
    trials = pd.concat([evidence.trials(row) for match in alike for row in (match.left, match.right)])
    seeds = [set(evidence.trials(match.left).seed) & set(evidence.trials(match.right).seed) for match in alike]
    if not any(seeds):
        return "both sides ran, but on no seed in common"
    what = check.metric or QUANTITIES[check.quantity].text
    column = QUANTITIES[check.quantity].column
    is_timed = check.metric is None and check.quantity != SCORE and (column is None or column in TIMES)
    if is_timed and len(trusted(trials)) < len(trials):
        return f"{what} was measured, but not so that both sides may be compared (protocol, rule 6)"
    return f"{what} was not measured on both sides"


def _described(side: Side) -> str:
    args = ", ".join(f"{name} {value}" for name, value in side.method_args.items())
    names = " or ".join((*side.methods, *side.objectives)) or "any method"
    return f"{names} ({args})" if args else names


def _is_alike(match: Match, check: Check, evidence: Evidence) -> bool:
    if check.alike is None:
        return True
    values = [value_of(check.alike.metric, evidence.trials(row), evidence.tables) for row in (match.left, match.right)]
    low, high = sorted(abs(value) for value in values if value is not None) if None not in values else (0.0, 1.0)
    return high <= check.alike.factor * low


def _pairs(check: Check, alike: Sequence[Match], evidence: Evidence) -> list[Place]:
    leads = ((match, _lead(check, match, evidence)) for match in alike)
    return [Place(match, lead) for match, lead in leads if lead is not None]


def _series(check: Check, alike: Sequence[Match], evidence: Evidence) -> list[Place]:
    places = []
    for start, end in series(check, alike, evidence.families):
        first, last = (_lead(check, match, evidence) for match in (start, end))
        if first is not None and last is not None:
            places.append(Place(end, _change(first, last), start=start))
    return places


def _lead(check: Check, match: Match, evidence: Evidence) -> Lead | None:
    """How far the left row is ahead; None where it was not measured on both sides."""
    left, right = match.left, match.right
    if check.metric is not None:
        return metric_lead(check.metric, evidence.trials(left), evidence.trials(right), evidence.tables)
    if check.quantity == SCORE:
        return _score_lead(left, right, evidence)
    sides = ((left, check.left), (right, check.right))
    values = [of_trials(check.quantity, evidence.trials(row), evidence.tables, side.variant) for row, side in sides]
    return cost_lead(check.quantity, *values)


def _score_lead(left: Any, right: Any, evidence: Evidence) -> Lead | None:
    if left.trial_ids not in evidence.comparisons or right.trial_ids not in evidence.comparisons:
        return None
    comparison, first = evidence.comparisons[left.trial_ids]
    other, second = evidence.comparisons[right.trial_ids]
    if comparison is not other:
        return None
    pair = comparison.pair(first, second)
    difference = replace(pair.difference, p=None) if pair.one_seed else pair.difference
    return Lead(difference, pair.pooled, left.test_score, right.test_score)


def _change(first: Lead, last: Lead) -> Lead:
    """The last lead less the first one: of other models or other data, so the errors are independent."""
    a, b = last.interval, first.interval
    seeds, examples = min(a.seeds, b.seeds), min(a.examples, b.examples)
    estimate = (a.estimate or 0.0) - (b.estimate or 0.0)
    own = _both(a.error, b.error) if last.is_judged and first.is_judged else Error()
    basis = f"{a.basis}, twice" if a.basis == b.basis else f"{b.basis}; {a.basis}"
    change = interval(estimate, own, basis, seeds, examples, of_difference=True)
    return Lead(change, _both(last.pooled, first.pooled), a.estimate or 0.0, b.estimate or 0.0, last.ratio)


def _both(a: Error, b: Error) -> Error:
    """The error of a difference of two independent means."""

    def part(first: Part | None, second: Part | None) -> Part | None:
        return summed([one for one in (first, second) if one is not None])

    return Error(
        part(a.of_seeds, b.of_seeds),
        part(a.of_examples, b.of_examples),
        part(a.examples_alone, b.examples_alone),
        a.rest + b.rest,
    )


def _judged(check: Check, places: Sequence[Place]) -> list[Place]:
    """The places with their verdicts, corrected for all of them."""
    margins = [_margin(check, place) for place in places]
    said = [_p_values(check, place.lead, margin) for place, margin in zip(places, margins, strict=True)]
    agree, disagree = (holm([pair[which] for pair in said]) for which in (0, 1))
    judged = []
    for place, yes, no in zip(places, agree, disagree, strict=True):
        if no is not None and no <= _LEVEL:
            judged.append(replace(place, verdict=ClaimVerdict.DISAGREES, p=no))
        elif yes is not None and yes <= _LEVEL:
            judged.append(replace(place, verdict=ClaimVerdict.AGREES, p=yes))
        else:
            judged.append(replace(place, smallest=_smallest(place.lead, len(places))))
    return judged


def _margin(check: Check, place: Place) -> float:
    """What makes no difference, in the unit of the lead."""
    if QUANTITIES[check.quantity].ratio:
        return math.log1p(check.margin)
    if check.quantity != SCORE:
        return check.margin
    metric = METRICS.get(check.metric or place.match.left.primary_metric)
    if metric is None:
        return check.margin
    return check.margin * (metric.maximum if math.isfinite(metric.maximum) else abs(place.lead.right))


def _p_values(check: Check, lead: Lead, margin: float) -> tuple[float | None, float | None]:
    """p of the hypotheses that the claim is wrong here, and that it is right; None where nothing may be concluded."""
    estimate = lead.interval.estimate
    if not lead.is_judged or estimate is None:
        return None, None

    def above(threshold: float) -> float:
        return lead.p(threshold) if estimate > threshold else 1.0

    def below(threshold: float) -> float:
        return lead.p(threshold) if estimate < threshold else 1.0

    # A claim of a difference is wrong where there surely is none that matters, or not as large a one.
    least, none = (math.log(check.factor),) * 2 if check.factor else (0.0, margin)
    match check.relation:
        case "better" | "rises":
            return above(least), below(none)
        case "worse" | "falls":
            return below(-least), above(-none)
        case "equivalent":
            return max(above(-margin), below(margin)), min(above(margin), below(-margin))
        case _:
            return above(-margin), below(-margin)


def _smallest(lead: Lead, places: int) -> float | None:
    """The lead, beyond a threshold, that would have been seen with a probability of 80 %; None where none would."""
    if not lead.is_judged or not lead.interval.error.parts or not lead.pooled.parts:
        return None
    return visible(lead.interval.error, lead.pooled, _LEVEL / places)
