"""What the papers say, and whether the tables of a report agree: a section of its own."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import pandas as pd

from harness.figures.panels import FACET, rows
from harness.figures.style import bytes_text, count_text, rate_text, score_text, seconds_text
from harness.judgement.claim_verdicts import ClaimVerdict, Evidence, Judgement, Place, judge
from harness.judgement.claims import load_all
from harness.judgement.intervals import SPREAD_SEEDS
from harness.judgement.labels import labelled
from harness.judgement.quantities import QUANTITIES
from harness.report.sections import Html, escape
from harness.results.files import Tables

_PLACES = 4
"""More places than this are counted and not shown."""

_TITLES = {
    ClaimVerdict.AGREES: "Agrees here",
    ClaimVerdict.DISAGREES: "Disagrees here",
    ClaimVerdict.CANNOT_TELL: "Cannot tell",
    ClaimVerdict.NOT_RUN: "Not run here",
}


def claims(tables: Tables) -> Html:
    """Every claim under its verdict, with its source and the evidence."""
    evidence = Evidence.of(tables)
    labels = _labels(evidence)
    judged = [judge(claim, evidence) for claim in load_all()]
    parts = []
    for verdict, title in _TITLES.items():
        some = [one for one in judged if one.verdict is verdict]
        if some:
            items = "".join(_item(one, labels) for one in some)
            parts.append(f"<h3>{title} ({len(some)} of {len(judged)})</h3>{items}")
    return Html("".join(parts))


def _labels(evidence: Evidence) -> dict[tuple[str, ...], str]:
    """How each row is called among those of its task and model, by its trials."""
    if not evidence.rows:
        return {}
    groups = pd.DataFrame(evidence.rows).groupby(FACET, sort=False)
    return {row.trial_ids: row.label for _, frame in groups for row in rows(labelled(frame))}


def _item(one: Judgement, labels: dict[tuple[str, ...], str]) -> str:
    claim = one.claim
    said = f"{claim.source.citation}, {claim.source.where}: {claim.source.says}."
    lines = [said, *([claim.note] if claim.note else []), *evidence_lines(one, labels)]
    items = "".join(f"<li>{escape(line)}</li>" for line in lines)
    return f"<details><summary>{escape(claim.statement)}</summary><ul>{items}</ul></details>"


def evidence_lines(one: Judgement, labels: dict[tuple[str, ...], str]) -> list[str]:
    """The evidence for a verdict as sentences; ``labels`` name rows by their trials."""
    if one.reason is not None:
        return [f"Not run here: {one.reason}."]
    ordered = sorted(one.places, key=lambda place: _ORDER.index(place.verdict))
    lines = [_line(one, place, labels) for place in ordered[:_PLACES]]
    if rest := ordered[_PLACES:]:
        counts = {verdict: sum(place.verdict is verdict for place in rest) for verdict in _ORDER}
        said = ", ".join(f"{verdict.value} {count}" for verdict, count in counts.items() if count)
        lines.append(f"{len(rest)} more places: {said}.")
    if one.unlike:
        assert one.claim.check.alike is not None  # noqa: S101  (nothing else leaves pairs out)
        lines.append(f"Pairs that differ too much in {one.claim.check.alike.metric} to be compared: {one.unlike}.")
    return lines


_ORDER = [ClaimVerdict.DISAGREES, ClaimVerdict.AGREES, ClaimVerdict.CANNOT_TELL]


def _line(one: Judgement, place: Place, labels: dict[tuple[str, ...], str]) -> str:
    left, right = place.match.left, place.match.right
    names = [_with_variant(labels.get(row.trial_ids, row.method), side.variant) for row, side in _sides(one, place)]
    where = f"{left.task} · {left.model}"
    if place.start is None:
        values = [_shown(one, value) for value in (place.lead.left, place.lead.right)]
        said = f"{names[0]} {values[0]}, {names[1]} {values[1]}; {_apart(one, place)}"
    else:
        ends = [f"{getattr(match.left, one.claim.check.along or ''):g}" for match in (place.start, place.match)]
        leads = [_lead_text(value, place.lead.ratio) for value in (place.lead.right, place.lead.left)]
        along = (one.claim.check.along or "").replace("_", " ")
        said = f"{names[0]} against {names[1]}: {leads[0]} at {ends[0]} {along}, {leads[1]} at {ends[1]}"
        said += f"; changed by {_apart(one, place)}"
    assert right.task == left.task  # noqa: S101  (what is compared answered the same questions)
    return f"{place.verdict.value} on {where}: {said}{_doubt(place)}."


def _sides(one: Judgement, place: Place) -> Iterable[tuple[Any, Any]]:
    return ((place.match.left, one.claim.check.left), (place.match.right, one.claim.check.right))


def _with_variant(name: str, variant: str) -> str:
    return name if variant == "plain" else f"{name} ({variant})"


def _shown(one: Judgement, value: float) -> str:
    name = one.claim.check.quantity
    say = next((say for ending, say in _UNITS.items() if name.endswith(ending)), score_text)
    return say(value)


_UNITS: dict[str, Callable[[float], str]] = {
    "_bytes": bytes_text,
    "per_s": count_text,
    "_params": count_text,
    "_s": seconds_text,
    "_median": seconds_text,
    "_rate": rate_text,
}


def _lead_text(value: float, ratio: bool) -> str:
    return f"{math.exp(value):.3g} times" if ratio else f"{value:+.3f}"


def _apart(one: Judgement, place: Place) -> str:
    """The difference, or the ratio of left to right, with its interval and what that covers."""
    found, quantity = place.lead.interval, QUANTITIES[one.claim.check.quantity]
    if found.estimate is None:
        return "no seed in common"
    # A lead is positive where left is better; readers want left less right.
    sign = 1.0 if quantity.higher_is_better or place.start is not None else -1.0
    estimate = _lead_text(sign * (found.estimate or 0.0), place.lead.ratio)
    if found.low is None or found.high is None or found.low == found.high:
        return estimate
    low, high = sorted(sign * bound for bound in (found.low, found.high))
    bounds = (math.exp(low), math.exp(high)) if place.lead.ratio else (low, high)
    return f"{estimate} [{bounds[0]:.3g}, {bounds[1]:.3g}], {found.basis}"


def _doubt(place: Place) -> str:
    """Why it cannot tell."""
    if place.verdict is not ClaimVerdict.CANNOT_TELL:
        return ""
    if place.lead.interval.estimate is None:
        return ""
    if place.lead.interval.seeds < SPREAD_SEEDS:
        return "; one seed says nothing of the spread between runs"
    if place.smallest is None:
        return ""
    size = f"a factor of {math.exp(place.smallest):.3g}" if place.lead.ratio else f"{place.smallest:.3g}"
    return f"; {size} beyond what is claimed would have been seen with a probability of 80 %"
