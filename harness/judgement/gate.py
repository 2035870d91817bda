"""A regression gate: is a candidate's run worse than a baseline's, beyond noise? From two folders of tables alone.

Cells are joined by specification (:mod:`harness.judgement.joined`), each setting for itself, and compared seed by seed.

- An *ending* is a fact: a trial that ended well and does not any more has regressed.
- A *score* is compared on the same seeds and test examples (:func:`harness.judgement.intervals.paired_difference`).
- A *cost* is compared by the logarithm of its ratio, seed by seed, with the noise of its kind
  (:mod:`harness.judgement.tolerances`). Times of another machine, or that other work disturbed, are not judged.

Something has regressed if its change is larger than the tolerance, and not zero after Holm's correction for everything
that was tested. Spreads over seeds are pooled over the cells for it (:mod:`harness.judgement.pooling`).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

import pandas as pd

from harness.judgement.changes import UNKNOWN, Change, cost_change, score_change, values_text, with_noise
from harness.judgement.examples import scores_by_trial
from harness.judgement.intervals import CONFIDENCE, Interval, holm
from harness.judgement.joined import SPEC, BySeed, Cell, join
from harness.judgement.tolerances import COSTS, ENDING, NAMES
from harness.results.files import Tables


class Outcome(StrEnum):
    """What a check says."""

    REGRESSED = "regressed"
    DISAPPEARED = "disappeared"
    IMPROVED = "improved"
    NEW = "new"
    UNJUDGED = "not judged"
    STEADY = "no regression seen"


FAILING = (Outcome.REGRESSED, Outcome.DISAPPEARED)
"""What makes the gate fail."""


@dataclass(frozen=True)
class Check:
    """One quantity of one cell."""

    cell: int
    """Its row in :attr:`Gate.cells`."""
    quantity: str
    outcome: Outcome
    reason: str = ""
    """Why it is not judged, or how the trials ended; what the numbers say themselves is not said again."""
    baseline: float | None = None
    candidate: float | None = None
    """Means over the seeds that both have."""
    change: Interval = UNKNOWN
    """Candidate less baseline with its 95 % interval: of a score in its unit, of a cost as a share of the baseline."""
    p: float | None = None
    """Of no change, corrected for everything that was tested; None where nothing was."""


@dataclass(frozen=True)
class Gate:
    """All checks of a candidate against a baseline."""

    cells: pd.DataFrame
    """One row per cell: the columns that identify it, and ``primary_metric``."""
    checks: tuple[Check, ...]
    notes: tuple[str, ...]
    """What else differs between the two: versions, machines, commits."""

    def of(self, *outcomes: Outcome) -> list[Check]:
        """The checks with one of these outcomes."""
        return [check for check in self.checks if check.outcome in outcomes]

    @property
    def passes(self) -> bool:
        """Whether nothing regressed or disappeared."""
        return not self.of(*FAILING)


def gate(baseline: Tables, candidate: Tables) -> Gate:
    """Every check of ``candidate`` against ``baseline``: two sets of tables as :func:`harness.results.tables.read`.

    Long tables that are missing are taken as empty.
    """
    cells = join(baseline["trials"], candidate["trials"])
    before, after = (scores_by_trial(_ended_well(tables["trials"]), tables) for tables in (baseline, candidate))
    checks, changes = [], []
    for number, cell in enumerate(cells):
        checks += _endings(number, cell)
        if cell.versions is None:
            several = [score_change(number, cell, before, after), *(cost_change(number, cell, cost) for cost in COSTS)]
            changes += [change for change in several if change is not None]
    checks += _judged(changes)
    checks.sort(key=lambda check: (check.cell, NAMES.index(check.quantity)))
    return Gate(_frame(cells), tuple(checks), tuple(_notes(baseline["trials"], candidate["trials"])))


def _ended_well(trials: pd.DataFrame) -> pd.DataFrame:
    return trials[trials.status == "ok"]


def _endings(number: int, cell: Cell) -> list[Check]:
    """What is said of how a cell's trials ended."""

    def check(outcome: Outcome, reason: str) -> list[Check]:
        return [Check(number, ENDING, outcome, reason)]

    old, new = cell.baseline, cell.candidate
    well, still = ({seed for seed, row in rows.items() if row.status == "ok"} for rows in (old, new))
    if not old:
        return check(Outcome.NEW, f"only in the candidate; {_ended(new)}")
    if not new:
        outcome = Outcome.DISAPPEARED if well else Outcome.UNJUDGED
        return check(outcome, f"only in the baseline; {_ended(old)}")
    if cell.versions is not None:
        return check(Outcome.UNJUDGED, f"not comparable: {cell.versions}")
    if worse := (well - still) & new.keys():
        return check(Outcome.REGRESSED, f"ended well before, now {_ended(new, worse)}")
    if better := (still - well) & old.keys():
        return check(Outcome.IMPROVED, f"ends well now, before {_ended(old, better)}")
    if absent := sorted(well - new.keys()):
        return check(Outcome.UNJUDGED, f"the candidate has no trial of seed {', '.join(map(str, absent))}")
    return check(Outcome.STEADY if well else Outcome.UNJUDGED, "" if well else f"both {_ended(new)}")


def _ended(rows: BySeed, seeds: Iterable[int] | None = None) -> str:
    """'oom (seed 0, 1): out of memory', one for each ending."""
    by_ending: dict[tuple[str, str], list[int]] = {}
    for seed in sorted(rows if seeds is None else seeds):
        by_ending.setdefault((rows[seed].status, rows[seed].reason or ""), []).append(seed)
    return "; ".join(
        f"{status} (seed {', '.join(map(str, those))})" + (f": {reason}" if reason else "")
        for (status, reason), those in by_ending.items()
    )


def _judged(changes: Sequence[Change]) -> list[Check]:
    """A check per change, corrected for all that were tested together."""
    faulty = [change for change in changes if change.fault]
    tested = with_noise(change for change in changes if not change.fault)
    adjusted = holm([None if change.exact else noise.p for change, noise in tested])
    checks = [
        Check(change.cell, change.quantity, Outcome.DISAPPEARED if change.lost else Outcome.UNJUDGED, change.fault)
        for change in faulty
    ]
    for (change, noise), p in zip(tested, adjusted, strict=True):
        corrected = noise.p if change.exact else _with_its_own_say(change, p)
        checks.append(_check(change, noise, corrected))
    return checks


def _with_its_own_say(change: Change, p: float | None) -> float | None:
    """``p``, unless the interval of a score's cell alone, which assumes nothing of other cells, is in more doubt."""
    if p is None or change.ratio or change.spread is None:
        return p
    return max(p, change.difference.p or 0.0)


def _check(change: Change, noise: Interval, p: float | None) -> Check:
    estimate = noise.estimate or 0.0
    if p is None or noise.low is None:
        outcome, reason = Outcome.UNJUDGED, "one trial says nothing of how its times vary"
    elif abs(estimate) <= change.tolerance or p > _LEVEL:
        outcome, reason = Outcome.STEADY, ""
    else:
        outcome = Outcome.REGRESSED if (estimate > 0) == change.larger_is_worse else Outcome.IMPROVED
        reason = ""
    shown = _as_share(noise) if change.ratio else noise
    if not reason and change.assumed and change.spread is None:
        reason = "one seed: its spread between runs is assumed"
    if outcome is Outcome.STEADY and not change.watched and abs(estimate) > change.tolerance:
        reason = "whether other work disturbed it is not known, and other times moved too"
    return Check(change.cell, change.quantity, outcome, reason, change.baseline, change.candidate, shown, p)


def _as_share(d: Interval) -> Interval:
    """A logarithm of a ratio as a share: log 1.1 -> 0.1."""
    estimate, low, high = (None if value is None else math.expm1(value) for value in (d.estimate, d.low, d.high))
    return replace(d, estimate=estimate, low=low, high=high)


_LEVEL = 1 - CONFIDENCE


def _frame(cells: Sequence[Cell]) -> pd.DataFrame:
    """One row per cell: what identifies it, and what its score is."""
    frame = pd.DataFrame([cell.key for cell in cells], columns=SPEC)
    rows = [[*cell.candidate.values(), *cell.baseline.values()] for cell in cells]
    metrics = [next((row.primary_metric for row in one if row.primary_metric), None) for one in rows]
    return frame.assign(primary_metric=pd.Series(metrics, index=frame.index, dtype=object))


def _notes(old: pd.DataFrame, new: pd.DataFrame) -> Iterable[str]:
    """What else differs, such as 'torch_version 2.12.0, now 2.13.0'."""
    for column in _NOTED:
        one, other = (values_text(side[column]) for side in (old, new))
        if one != other:
            yield f"{column} {one}, now {other}"


_NOTED = (
    "processor",
    "processor_threads",
    "accelerator",
    "device",
    "torch_version",
    "transformers_version",
    "peft_version",
    "trl_version",
    "bitsandbytes_version",
    "git_commit",
)
