"""Sentences computed from the tables: titles of figures, and the report's answer in brief."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pandas as pd

from harness.figures.panels import FACET, extreme, labelled, rows
from harness.figures.style import percent_text, score_text
from harness.judgement.statistics import is_ahead
from harness.judgement.uncertainty import SPREAD_SEEDS
from harness.results.baseline import BASELINE

FULL = "full"

#: A method is good enough when it keeps this share of full fine-tuning's gain over the untrained model.
GOOD = 0.95


def metric_label(frame: pd.DataFrame) -> str:
    """The axis label of a score: the metric, the split and its direction."""
    metric = frame.primary_metric.dropna()
    name = str(metric.iloc[0]) if len(metric) else "score"
    return f"{name} on test ({'higher' if _higher(frame) else 'lower'} is better)"


def scored(row: Any) -> str:
    """The score of a row, with its interval where it has one: '0.790 [0.741, 0.839]'."""
    if pd.isna(row.ci_low):
        return score_text(row.test_score)
    return f"{score_text(row.test_score)} [{score_text(row.ci_low)}, {score_text(row.ci_high)}]"


def caution(frame: pd.DataFrame) -> str | None:
    """What a reader must know first: which trained methods ran on one seed only. ``None`` where none did."""
    trained = frame[frame.method != BASELINE]
    single = trained[trained.seeds < SPREAD_SEEDS]
    if single.empty:
        return None
    names = labelled(trained).label[single.index]
    if len(trained[FACET].drop_duplicates()) > 1:
        names = names + " on " + single.task + " · " + single.model
    who = f"{len(single)} of {len(trained)} methods" if len(single) > 3 else _and(names)
    if len(single) == len(trained):
        who = "Every method"
    return f"{who} ran on one seed, which says nothing about the spread between runs: no method is called better"


def standing(frame: pd.DataFrame) -> str:
    """Which row has the best score, and which others it is not ahead of.

    ``frame`` holds labelled rows of one task and model from :func:`harness.judgement.statistics.aggregate`.
    :func:`harness.judgement.statistics.is_ahead` says what *ahead* means.
    """
    frame = frame[frame.test_score.notna()]
    top = extreme(frame, "test_score", largest=_higher(frame))
    if len(frame) == 1:
        return f"{top.label} scores {scored(top)}"
    rivals = [row.label for row in rows(frame) if row.Index != top.Index and not is_ahead(top, row)]
    if not rivals:
        others = {2: "the other", 3: "both others"}.get(len(frame), f"all {len(frame) - 1} others")
        return f"{top.label} scores best: {scored(top)}, ahead of {others}"
    sentence = f"{top.label} has the {'highest' if _higher(frame) else 'lowest'} score, {scored(top)}"
    who = _and(rivals) if len(rivals) <= 3 else f"{len(rivals)} of {len(frame) - 1} others"
    trained = frame[frame.method != BASELINE]
    why = " (one seed)" if (trained.seeds < SPREAD_SEEDS).any() else ""
    return f"{sentence}, and is not shown to be ahead of {who}{why}"


def cheapest_good(frame: pd.DataFrame, cost: str, of: str) -> str:
    """The scores and costs of the cheapest good method and of full fine-tuning (or of the best), side by side.

    :func:`_good` says which methods are good. ``frame`` is as in :func:`standing`; ``cost`` is a column, and ``of`` its
    name in a sentence. The sentence gives both scores with their intervals, because a share of a score would claim
    more than they support.
    """
    frame = frame[frame.test_score.notna() & frame[cost].notna()]
    full = frame[frame.method == FULL]
    reference = extreme(full if len(full) else frame, "test_score", largest=_higher(frame))
    spent = getattr(reference, cost)
    reached = f"{reference.label} scores {scored(reference)}"
    cheaper = frame[frame[cost] < spent]
    if len(frame) == 1:
        return reached
    if cheaper.empty:
        return f"{reached}, and no method needs less {of}"
    good = cheaper[_good(cheaper, reference)]
    if good.empty:
        nearest = extreme(cheaper, "test_score", largest=_higher(frame))
        return f"{reached}; of those with less {of}, {nearest.label} comes nearest: {scored(nearest)}"
    cheap = extreme(good, cost, largest=False)
    price = _price(getattr(cheap, cost) / spent)
    return f"{cheap.label} scores {scored(cheap)} with {price} of {reference.label}’s {of}; {reached}"


def answer(chosen: pd.DataFrame) -> dict[tuple[str, str], list[str]]:
    """The answer in brief: sentences for each (task, model) in the rows of ``aggregate``."""
    sentences: dict[tuple[str, str], list[str]] = {}
    trained = chosen[chosen.test_score.notna() & (chosen.method != BASELINE)]
    for (task, model), frame in trained.groupby(FACET, sort=False):
        frame = labelled(frame)
        said = [standing(frame)]
        for cost, of in _COSTS.items():
            if (frame[cost] > 0).sum() > 1:
                said.append(cheapest_good(frame[frame[cost] > 0], cost, of))
        if len(base := frame.base_score.dropna()):
            span = sorted({score_text(value) for value in (base.min(), base.max())}, key=float)
            said.append(f"the untrained model scores {' to '.join(span)}")
        sentences[str(task), str(model)] = said
    return sentences


_COSTS = {
    "trainable_params": "trainable parameters",
    "peak_train_bytes": "peak memory",
    "chain_train_s": "training time",
}


def _good(frame: pd.DataFrame, reference: Any) -> pd.Series:
    """Which rows keep at least :data:`GOOD` of the reference's gain over the untrained model, by mean scores.

    Where there is no gain, or no score of the untrained model, a good row scores no worse than the reference. A share
    of the score itself would mean nothing where scores are negative or where lower is better.
    """
    sign = 1.0 if _higher(frame) else -1.0
    gained = sign * (reference.test_score - frame.base_score)
    short = sign * (reference.test_score - frame.test_score)
    good: pd.Series = (short <= 0) | ((gained > 0) & (short <= (1 - GOOD) * gained))
    return good


def _price(share: float) -> str:
    """A share of a measured cost, with as many digits as a measurement supports."""
    return percent_text(share) if share < 0.995 else "more than 99 %"


def _higher(frame: pd.DataFrame) -> bool:
    return bool(frame.higher_is_better.iloc[0])


def _and(names: Iterable[str]) -> str:
    items = list(names)
    return items[0] if len(items) == 1 else ", ".join(items[:-1]) + " and " + items[-1]
