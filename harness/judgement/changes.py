"""How a score or a cost of one cell has changed between two folders of tables, and how far noise may change it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from harness.judgement.examples import clusters, stacked
from harness.judgement.intervals import SPREAD_SEEDS, Error, Floats, Interval, Part, interval, paired_difference
from harness.judgement.joined import BySeed, Cell
from harness.judgement.pooling import moderated
from harness.judgement.tolerances import MACHINE, MEMORY_OF, SCORE, SCORE_SPREAD, SCORE_TOLERANCE, Quantity
from harness.judgement.verdicts import is_trained
from harness.tasks.metrics import METRICS

ByTrial = Mapping[str, pd.Series]

UNKNOWN = Interval(None, None, None, None, "none")


@dataclass(frozen=True)
class Change:
    """One quantity of one cell, seed by seed: the score's difference, or the logarithm of the cost's ratio."""

    cell: int
    quantity: str
    larger_is_worse: bool = True
    tolerance: float = 0.0
    """In the unit of ``difference``."""
    baseline: float | None = None
    candidate: float | None = None
    difference: Interval = UNKNOWN
    """Candidate less baseline, with what this cell alone knows of its error."""
    spread: Part | None = None
    """Variance of one seed's difference; None with one seed."""
    assumed: float = 0.0
    """The variance that one seed's difference is taken to have where none was seen."""
    drift: float = 0.0
    """Variance of what all seeds of a run share."""
    exact: bool = False
    timed: bool = False
    watched: bool = True
    """Whether the tables say that no other work disturbed the times."""
    ratio: bool = False
    """Whether ``difference`` is the logarithm of a ratio."""
    fault: str = ""
    """Why it cannot be judged."""
    lost: bool = False
    """Whether the candidate lacks what the baseline has."""


def score_change(number: int, cell: Cell, before: ByTrial, after: ByTrial) -> Change | None:
    """How the score changed on the seeds that ended well in both; None where neither was scored."""
    old, new = ({seed: row for seed, row in rows.items() if row.test_score is not None} for rows in _shared(cell))
    seeds = sorted(old.keys() & new.keys())
    change = Change(number, SCORE)
    if not seeds:
        lost = bool(old) and not new
        said = "the candidate has no score" if lost else "the baseline has no score" if not old else "no seed in common"
        return replace(change, fault=said, lost=lost) if old or new else None
    pairs = [(old[seed], new[seed]) for seed in seeds]
    metrics = sorted({str(row.primary_metric) for pair in pairs for row in pair})
    if len(metrics) > 1:
        return replace(change, fault=f"scored by different metrics: {', '.join(metrics)}")
    difference, spread = _score_difference(pairs, before, after)
    if difference.estimate is None:
        return replace(change, fault="no test example in common")
    usual = _mean([row.test_score for row, _ in pairs])
    last = pairs[-1][1]
    maximum, span = _extent(metrics[0], abs(usual))
    return replace(
        change,
        larger_is_worse=last.higher_is_better is False,
        tolerance=SCORE_TOLERANCE * maximum,
        baseline=usual,
        candidate=_mean([row.test_score for _, row in pairs]),
        difference=difference,
        spread=spread,
        # What does not train answers alike in every run.
        assumed=2 * (SCORE_SPREAD * span) ** 2 if is_trained(last) else 0.0,
    )


def _extent(metric: str, usual: float) -> tuple[float, float]:
    """The largest value of a metric and the width of its range; of one without an end, the usual value for both."""
    known = METRICS.get(metric)
    if known is None or known.span is None:
        return usual, usual
    return known.maximum, known.span


def cost_change(number: int, cell: Cell, cost: Quantity) -> Change | None:
    """How a cost changed, as the mean logarithm of its ratio over seeds; None where neither measured it, or it is 0."""
    old, new = _shared(cell)
    before, after = ({seed: _cost(row, cost) for seed, row in rows.items()} for rows in (old, new))
    known = [{seed for seed, value in costs.items() if value is not None} for costs in (before, after)]
    change = Change(
        number, cost.name, tolerance=math.log1p(cost.tolerance), exact=cost.exact, timed=cost.timed, ratio=True
    )
    if not any(before.values()) and not any(after.values()):
        return None
    if not (known[0] and known[1]):
        return replace(change, fault=f"not measured by the {'baseline' if known[1] else 'candidate'}")
    if not cost.exact and (moved := _moved(old, new, MACHINE if cost.timed else MEMORY_OF)):
        return replace(change, fault=f"measured on another machine: {moved}")
    seeds = sorted(known[0] & known[1])
    if cost.timed:
        shared = {seed for seed in seeds if old[seed].is_disturbed or new[seed].is_disturbed}
        untrusted = {seed for seed in seeds if old[seed].fails_control or new[seed].fails_control}
        seeds = [seed for seed in seeds if seed not in shared | untrusted]
        if not seeds:
            return replace(change, fault="other work disturbed it" if shared else _UNTRUSTED)
    costs = np.array([[before[seed], after[seed]] for seed in seeds], dtype=np.float64)
    if not (costs > 0).all():
        return replace(change, fault="it is 0 for a seed, and nothing is a ratio to 0")
    logs = np.log(costs)
    device = str(new[seeds[0]].device).partition(":")[0]
    return replace(
        change,
        baseline=float(costs[:, 0].mean()),
        candidate=float(costs[:, 1].mean()),
        difference=Interval(float((logs[:, 1] - logs[:, 0]).mean()), None, None, None, "none", len(seeds), 1),
        spread=_spread(logs[:, 1] - logs[:, 0]),
        assumed=2 * cost.spread_on(device) ** 2,
        drift=cost.drift**2,
        watched=not cost.timed or all(is_watched(rows[seed]) for rows in (old, new) for seed in seeds),
    )


_NONE = "none"
_UNTRUSTED = "networks that must answer equally fast did not: no time of that run is to be trusted"


def is_watched(row: Any) -> bool:
    """Whether it is known if a trial's times were disturbed."""
    return getattr(row, "disturbed", None) is not None


def _cost(row: Any, cost: Quantity) -> float | None:
    """The sum of the cost's columns; None where one is null."""
    parts = [getattr(row, column) for column in cost.columns]
    return None if None in parts else float(sum(parts))


def with_noise(changes: Iterable[Change]) -> list[tuple[Change, Interval]]:
    """Each change that can be judged, with the interval and p that the noise of all cells together gives it.

    Where nobody watched over the machine, a time that moved like those of the other cells may be the machine's: then
    the usual shift of all cells is noise.
    """
    by_quantity: dict[str, list[Change]] = {}
    for change in changes:
        by_quantity.setdefault(change.quantity, []).append(change)
    return [pair for group in by_quantity.values() for pair in _with_noise(group)]


def _with_noise(group: Sequence[Change]) -> list[tuple[Change, Interval]]:
    group = [_beside_others(change, group) for change in group]
    noisy = [change for change in group if not change.exact]
    several = [one for one in noisy if one.spread is not None and (one.spread.variance > 0 or one.difference.estimate)]
    spreads = dict(zip(map(id, several), _pooled(several), strict=True))
    common = _scatter([one.difference.estimate or 0.0 for one in noisy if one.spread is None])
    judged = []
    for change in group:
        if change.exact:
            estimate = change.difference.estimate or 0.0
            fact = replace(change.difference, low=estimate, high=estimate, p=0.0 if estimate else 1.0)
            judged.append((change, fact))
            continue
        spread = spreads.get(id(change)) or change.spread or _of_one_seed(change, common)
        judged.append((change, change.difference if spread is None else _interval(change, spread)))
    return judged


def _beside_others(change: Change, group: Sequence[Change]) -> Change:
    """A time that nobody watched over, with the median shift of such times as its drift."""
    if change.watched:
        return change
    shift = float(np.median([one.difference.estimate or 0.0 for one in group if not one.watched]))
    return replace(change, drift=max(change.drift, shift**2))


def _of_one_seed(change: Change, scatter: float | None) -> Part | None:
    """The spread of a cell with one seed: what is assumed, or more where the machine was restless.

    A single time, beside too few others to see how restless it was, says nothing: None.
    """
    if change.timed and scatter is None:
        return None
    return Part(max(change.assumed, scatter or 0.0) if change.assumed else 0.0, math.inf)


def _interval(change: Change, spread: Part) -> Interval:
    d = change.difference
    of_seeds = Part(spread.variance / max(d.seeds, 1), spread.df)
    if change.ratio:
        # What a whole run shares stands where the examples' part is: a second source, which no further seed reduces.
        error = Error(of_seeds, Part(change.drift, math.inf) if change.drift else None)
        basis = f"{d.seeds} seeds" if d.seeds > 1 else "one seed"
    else:
        own = d.error.of_seeds or Part(0.0, of_seeds.df)
        error, basis = replace(d.error, of_seeds=Part(max(of_seeds.variance, own.variance), of_seeds.df)), d.basis
    return interval(d.estimate or 0.0, error, basis, d.seeds, d.examples, of_difference=True)


def _pooled(changes: Sequence[Change]) -> list[Part]:
    """The spread of each, with what the other cells say of it; a cost's that is not unusual is the usual one."""
    seen = moderated([change.spread for change in changes if change.spread is not None])
    return [
        Part(change.assumed, math.inf) if change.ratio and part.variance <= change.assumed else part
        for change, part in zip(changes, seen, strict=True)
    ]


def _scatter(differences: Sequence[float]) -> float | None:
    """Robust variance of the changes of cells with one seed: on a restless machine, most of them change.

    (1.4826 * median absolute deviation)², of at least :data:`_FEWEST_CHANGES`; else None.
    """
    if len(differences) < _FEWEST_CHANGES:
        return None
    values = np.asarray(differences)
    return float((1.4826 * np.median(np.abs(values - np.median(values)))) ** 2)


_FEWEST_CHANGES = 5


def _score_difference(
    pairs: Sequence[tuple[Any, Any]], before: ByTrial, after: ByTrial
) -> tuple[Interval, Part | None]:
    """Candidate less baseline on the examples of both, and the spread of one seed's; without examples, by seed."""
    old, new = (
        pd.DataFrame(
            [{name: getattr(pair[side], name) for name in ("trial_id", "seed", "test_score")} for pair in pairs]
        )
        for side in (0, 1)
    )
    a, b = stacked(new, after), stacked(old, before)
    if a is None or b is None:
        first, second = (rows.test_score.to_numpy(dtype=np.float64)[:, None] for rows in (new, old))
        return paired_difference(first, second), _spread((first - second)[:, 0])
    both = set(a.examples)
    examples = [one for one in b.examples if one in both]
    difference = a.at(b.seeds, examples) - b.at(b.seeds, examples)
    by_seed = np.array([one[np.isfinite(one)].mean() for one in difference if np.isfinite(one).any()])
    return paired_difference(difference, np.zeros_like(difference), clusters(examples)), _spread(by_seed)


def _spread(by_seed: Floats) -> Part | None:
    return Part(float(by_seed.var(ddof=1)), len(by_seed) - 1) if len(by_seed) >= SPREAD_SEEDS else None


def _shared(cell: Cell) -> tuple[BySeed, BySeed]:
    """The trials of both on the seeds that ended well in both, in the same order."""
    well = [
        seed
        for seed, row in cell.baseline.items()
        if row.status == "ok" and seed in cell.candidate and cell.candidate[seed].status == "ok"
    ]
    return {seed: cell.baseline[seed] for seed in well}, {seed: cell.candidate[seed] for seed in well}


def _moved(old: BySeed, new: BySeed, columns: Sequence[str]) -> str:
    """'processor A, now B' where the machines differ; '' where they do not, as far as both say."""
    sides = [
        (name, *(values_text(getattr(row, name) for row in rows.values()) for rows in (old, new))) for name in columns
    ]
    return "; ".join(
        f"{name} {one}, now {other}" for name, one, other in sides if one != other and _NONE not in (one, other)
    )


def values_text(values: Iterable[object]) -> str:
    """Every value once, as text; 'none' without any."""
    known = (value for value in values if value is not None and value == value)
    return ", ".join(sorted({f"{value:g}" if isinstance(value, float) else str(value) for value in known})) or _NONE


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
