"""Sentences computed from the tables: the titles of the figures and the report's answer in brief."""

from __future__ import annotations

from typing import Any

import pandas as pd

from harness.figures.panels import FACET, extreme, labelled
from harness.figures.style import percent_text, score_text
from harness.results.baseline import BASELINE

FULL = "full"

#: A method is good enough when it keeps this share of the best method's gain over the untrained model.
GOOD = 0.95


def metric_label(frame: pd.DataFrame) -> str:
    """The axis label of a score: the metric, the split and its direction."""
    metric = frame.primary_metric.dropna()
    name = str(metric.iloc[0]) if len(metric) else "score"
    return f"{name} on test ({'higher' if _higher(frame) else 'lower'} is better)"


def standing(frame: pd.DataFrame) -> str:
    """Which row is best, and from which others it cannot be told: those whose interval overlaps with its own.

    ``frame`` holds labelled rows of one task and model from :func:`harness.results.stats.aggregate`.
    """
    frame = frame[frame.test_score.notna()]
    top = extreme(frame, "test_score", largest=_higher(frame))
    if len(frame) == 1:
        return f"{top.label} scores {score_text(top.test_score)}"
    sentence = f"{top.label} scores best: {score_text(top.test_score)}"
    overlap = (frame.ci_low <= top.ci_high) & (frame.ci_high >= top.ci_low) & (frame.index != top.Index)
    rivals = frame.label[overlap].tolist()
    if len(rivals) > 3:
        return f"{sentence}, not clearly ahead of {len(rivals)} others"
    if rivals:
        return f"{sentence}, not clearly ahead of {_and(rivals)}"
    return sentence


def cheapest_good(frame: pd.DataFrame, cost: str, of: str) -> str:
    """What the cheapest good method keeps of the score, and of the cost, of full fine-tuning (or of the best).

    Good: at least :data:`GOOD` of the reference's gain over the untrained model; of its score where that one is
    unknown. ``frame`` as in :func:`standing`; ``cost`` is a column and ``of`` its name in a sentence.
    """
    frame = frame[frame.test_score.notna() & frame[cost].notna()]
    full = frame[frame.method == FULL]
    reference = extreme(full if len(full) else frame, "test_score", largest=_higher(frame))
    spent = getattr(reference, cost)
    reached = f"{reference.label} reaches {score_text(reference.test_score)}"
    cheaper = frame[frame[cost] < spent]
    if len(frame) == 1:
        return reached
    if cheaper.empty:
        return f"{reached} and needs the least {of}"
    good = cheaper[_kept(cheaper, reference) >= GOOD]
    if good.empty:
        return f"{reached}; no method with less {of} keeps {percent_text(GOOD)} of its gain"
    cheap = extreme(good, cost, largest=False)
    price = f"with {percent_text(getattr(cheap, cost) / spent)} of its {of}"
    ahead = cheap.test_score - reference.test_score
    if ahead == 0 or (ahead > 0) == _higher(frame):
        return f"{cheap.label} matches {reference.label} {price}"
    if _higher(frame) and cheap.test_score > 0:
        kept = percent_text(cheap.test_score / reference.test_score)
        return f"{cheap.label} reaches {kept} of {reference.label}’s score {price}"
    scores = f"{score_text(cheap.test_score)} against {score_text(reference.test_score)}"
    return f"{cheap.label} comes close to {reference.label} ({scores}) {price}"


def answer(chosen: pd.DataFrame) -> dict[tuple[str, str], list[str]]:
    """The answer in brief: per task and model, what the rows of :func:`harness.results.stats.aggregate` say."""
    found: dict[tuple[str, str], list[str]] = {}
    trained = chosen[chosen.test_score.notna() & (chosen.method != BASELINE)]
    for (task, model), frame in trained.groupby(FACET, sort=False):
        frame = labelled(frame)
        said = [standing(frame)]
        for cost, of in _COSTS.items():
            if (frame[cost] > 0).sum() > 1:
                said.append(cheapest_good(frame[frame[cost] > 0], cost, of))
        if len(base := frame.base_score.dropna()):
            said.append(f"the untrained model scores {score_text(base.iloc[0])}")
        found[str(task), str(model)] = said
    return found


_COSTS = {"trainable_params": "trainable parameters", "peak_train_bytes": "peak memory", "train_s": "training time"}


def _kept(frame: pd.DataFrame, reference: Any) -> pd.Series:
    """Which share of the reference's gain over the untrained model each row keeps.

    Where there is no such gain, or the untrained model was not scored, the ratio of the scores, upside down where
    lower is better.
    """
    ratio = frame.test_score / reference.test_score if _higher(frame) else reference.test_score / frame.test_score
    gained = reference.test_score - frame.base_score
    real = gained > 0 if _higher(frame) else gained < 0
    kept: pd.Series = ((frame.test_score - frame.base_score) / gained).where(real, ratio)
    return kept


def _higher(frame: pd.DataFrame) -> bool:
    return bool(frame.higher_is_better.iloc[0])


def _and(items: list[str]) -> str:
    return items[0] if len(items) == 1 else ", ".join(items[:-1]) + " and " + items[-1]
