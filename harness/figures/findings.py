"""Sentences computed from the tables: titles of figures, and the report's answer in brief.

Every sentence follows from verdicts (:mod:`harness.judgement.verdicts`) and the numbers that it quotes.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import pandas as pd

from harness.figures.panels import FACET, extreme, rows
from harness.figures.style import percent_text, score_text
from harness.judgement.intervals import SPREAD_SEEDS
from harness.judgement.labels import labelled
from harness.judgement.power import Power, power
from harness.judgement.recommendation import good_enough
from harness.judgement.verdicts import Comparison, Verdict, compare, is_reward_model, is_trained
from harness.results.baseline import FULL as FULL
from harness.results.files import Tables

_NAMED = 3
"""More rows than this are counted and not named."""


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


def trained(frame: pd.DataFrame) -> pd.DataFrame:
    """The rows whose method trains something."""
    mask = pd.Series([is_trained(row) for row in rows(frame)], index=frame.index, dtype=bool)
    return frame[mask]


def caution(frame: pd.DataFrame) -> str | None:
    """What a reader must know first: which trained methods ran on one seed only. ``None`` where none did."""
    frame = trained(frame)
    single = frame[frame.seeds < SPREAD_SEEDS]
    if single.empty:
        return None
    names = labelled(frame).label[single.index]
    if len(frame[FACET].drop_duplicates()) > 1:
        names = names + " on " + single.task + " · " + single.model
    who = f"{len(single)} of {len(frame)} methods" if len(single) > _NAMED else joined(names)
    if len(single) == len(frame):
        return "Every method ran on one seed, which says nothing about the spread between runs: none is called better"
    which = "it is not" if len(single) == 1 else "none of these is"
    return f"{who} ran on one seed, which says nothing about the spread between runs: {which} called better or worse"


def standings(frame: pd.DataFrame, tables: Tables) -> str:
    """:func:`standing` for labelled rows of ``aggregate`` of one task and model, of all that may be compared."""
    return "; ".join(standing(comparison) for comparison in compare(frame, tables))


def standing(comparison: Comparison) -> str:
    """Which row has the best score, which others it is better than, and which it is not."""
    listed = list(rows(comparison.rows))
    top = listed[0]
    kind = "reward model " if is_reward_model(top) else ""
    if len(listed) == 1:
        return f"{kind}{top.label} scores {scored(top)}"
    against = comparison.against(0)
    better = [listed[other] for other, pair in against.items() if pair.verdict is Verdict.BETTER]
    if len(better) == len(against):
        others = {1: "the other", 2: "both others"}.get(len(better), f"all {len(better)} others")
        return f"{kind}{top.label} scores best: {scored(top)}, better than {others}"
    ties = sum(1 for other in listed[1:] if other.test_score == top.test_score)
    shared = f", which {'another has' if ties == 1 else f'{ties} others have'} too" if ties else ""
    side = "highest" if comparison.higher_is_better else "lowest"
    said = [
        f"{kind}{top.label} has the {side} score, {scored(top)}{shared}",
        *([f"better than {_who(better, len(against))}"] if better else []),
    ]
    equal = [listed[other] for other, pair in against.items() if pair.verdict is Verdict.EQUIVALENT]
    if equal:
        said.append(f"equivalent to {_who(equal, len(against))} (apart by less than {comparison.margin:g})")
    worse = [listed[other] for other, pair in against.items() if pair.verdict is Verdict.WORSE]
    if worse:
        said.append(f"worse than {_who(worse, len(against))} on the seeds that both have")
    open_ = {other: pair for other, pair in against.items() if pair.verdict is Verdict.CANNOT_TELL}
    if not open_:
        # Of a tie, a second part that begins with an adjective needs its verb.
        return f"{', '.join(said[:-1])}, and {'is ' if len(said) == 2 else ''}{said[-1]}"
    single = " (one seed)" if all(pair.one_seed for pair in open_.values()) else ""
    unshown = _any_of([listed[other] for other in open_], len(against))
    return f"{', '.join(said)}, but is not shown to be better than {unshown}{single}"


def against_untrained(comparison: Comparison) -> str:
    """How the trained methods stand to the bare model, with its score; also where all are below it."""
    bare = comparison.zero_shot
    listed = list(rows(comparison.rows))
    if bare is None:
        base = trained(comparison.rows).base_score.dropna()
        if base.empty:
            return "the untrained model was not scored, so no gain is known"
        span = sorted({score_text(value) for value in (base.min(), base.max())}, key=float)
        return f"the untrained model scores {' to '.join(span)}"
    said = f"the untrained model scores {scored(listed[bare])}"
    methods = {place: row for place, row in enumerate(listed) if is_trained(row)}
    if not methods:
        return said
    sign = 1.0 if comparison.higher_is_better else -1.0
    gains = [sign * (row.test_score - listed[bare].test_score) for row in methods.values()]
    pairs = {place: comparison.pair(place, bare) for place in methods}
    parts = [
        f"{text}: {_who([methods[place] for place, pair in pairs.items() if pair.verdict is verdict], len(methods))}"
        for verdict, text in _AGAINST.items()
        if any(pair.verdict is verdict for pair in pairs.values())
    ]
    side = "below" if sign > 0 else "above"
    none = [f"every trained method scores {side} it"] if max(gains) < 0 else []
    return "; ".join([said, *none, *parts])


_AGAINST = {
    Verdict.BETTER: "better than it",
    Verdict.WORSE: "worse than it",
    Verdict.EQUIVALENT: "equivalent to it",
    Verdict.CANNOT_TELL: "not told apart from it",
}


def against_constant(comparison: Comparison) -> str | None:
    """What a model gets that reads nothing, and whether the methods' intervals lie beyond it; None elsewhere."""
    known = comparison.rows[comparison.rows.majority_score.notna()]
    if known.empty:
        return None
    level = known.majority_score.iloc[0]
    sign = 1.0 if comparison.higher_is_better else -1.0
    bound = comparison.rows.ci_low if sign > 0 else comparison.rows.ci_high
    methods = trained(comparison.rows)
    above = [row for row in rows(methods) if sign * (bound[row.Index] - level) > 0]
    side = "above" if sign > 0 else "below"
    who = f"of {_who(above, len(methods))}" if above else "of no trained method"
    return f"a model that reads nothing scores {score_text(level)}; the interval {who} lies {side} that"


def seen(comparison: Comparison) -> str | None:
    """What the comparison could have seen, and what would decide its closest pair; None where nothing is open."""
    found = power(comparison)
    if found is None:
        return None
    first, second = (comparison.rows.label[place] for place in found.closest)
    apart = comparison.pair(*found.closest).difference.estimate or 0.0
    ways = [f"{found.seeds} seeds"] if found.seeds else []
    ways += [f"{found.examples:,} test examples".replace(",", " ")] if found.examples else []
    need = f"would take {' or '.join(ways)}" if ways else "is out of reach: neither 100 seeds nor more examples would"
    left_out = len(comparison.pairs) - found.pairs
    pairs = f"{found.undecided} of {found.pairs} pairs are undecided" if found.pairs > 1 else "the pair is undecided"
    if left_out:
        pairs = f"{found.undecided} of {found.pairs} pairs {_are(found.undecided)} undecided"
        pairs += f", and of {left_out} more nothing can be told (one seed, or no error is known)"
    return (
        f"{pairs}; {_visible(found)} with a probability of 80 %, and to show which of the pair that is nearest to a "
        f"decision is better ({first} and {second}, {score_text(abs(apart))} apart) {need}"
    )


def _visible(found: Power) -> str:
    """What the undecided pairs would have shown, as far as the metric's range goes."""
    if not found.possible:
        return "no possible difference would have been seen"
    if found.undecided == 1:
        return f"a difference of {score_text(found.smallest)} would have been seen"
    if 2 * found.possible < found.undecided:
        few = f"{found.possible} of these would have shown a possible one"
        return f"{few}, from {score_text(found.least)} on,"
    return f"at least half of these would have shown a difference of {score_text(found.smallest)}"


def _are(count: int) -> str:
    return "is" if count == 1 else "are"


def unpaired(comparison: Comparison) -> str | None:
    """Which rows have no scores of single examples, so that they were compared by standard errors; None if none."""
    without = [row for row in rows(comparison.rows) if not row.has_examples]
    if not without or len(comparison.rows) == 1:
        return None
    who = _who(without, len(comparison.rows))
    return f"scores of single examples are missing of {who}: compared by standard errors, not in pairs"


def _less(what: str) -> str:
    """'less memory', but 'fewer parameters'."""
    return f"{'fewer' if what.endswith('s') else 'less'} {what}"


def cheapest_good(frame: pd.DataFrame, cost: str, of: str) -> str:
    """The scores and costs of the cheapest good method and of full fine-tuning (or of the best), side by side.

    :func:`harness.judgement.recommendation.good_enough` says which methods are good. ``frame`` holds labelled rows of
    ``aggregate`` of one task and model; ``cost`` is a column, and ``of`` its name in a sentence. The sentence gives
    both scores with their intervals, because a share of a score would claim more than they support.
    """
    scored_rows = frame[frame.test_score.notna()]
    frame = scored_rows[scored_rows[cost].notna()]
    aim = reference(frame)
    spent = getattr(aim, cost)
    reached = f"{aim.label} scores {scored(aim)}"
    cheaper = frame[frame[cost] < spent]
    if len(frame) == 1:
        return reached
    if cheaper.empty and len(frame) < len(scored_rows):
        who = f"of the {len(frame)} of {len(scored_rows)} methods whose {of} can be compared"
        return f"{reached}, and {who} none needs {_less(of)}"
    if cheaper.empty:
        return f"{reached}, and no method needs {_less(of)}"
    good = cheaper[good_enough(cheaper, aim)]
    if good.empty:
        nearest = extreme(cheaper, "test_score", largest=_higher(frame))
        return f"{reached}; of those with {_less(of)}, {nearest.label} scores {_best(frame)}: {scored(nearest)}"
    cheap = extreme(good, cost, largest=False)
    price = _price(getattr(cheap, cost) / spent)
    return f"{cheap.label} scores {scored(cheap)} with {price} of {aim.label}’s {of}; {reached}"


def reference(frame: pd.DataFrame) -> Any:
    """The row of full fine-tuning, of several the best one; where it did not run, the best row of all."""
    full = frame[frame.method == FULL]
    return extreme(full if len(full) else frame, "test_score", largest=_higher(frame))


def answer(chosen: pd.DataFrame, tables: Tables) -> dict[tuple[str, str], list[str]]:
    """The answer in brief: sentences for each (task, model) in the rows of ``aggregate`` with a trained method."""
    sentences: dict[tuple[str, str], list[str]] = {}
    known = chosen[chosen.test_score.notna()]
    for (task, model), frame in known.groupby(FACET, sort=False):
        if trained(frame).empty:
            continue
        said: list[str] = []
        for comparison in compare(labelled(frame), tables):
            said += _sentences(comparison)
        sentences[str(task), str(model)] = said
    return sentences


def _sentences(comparison: Comparison) -> list[str]:
    said = [standing(comparison)]
    methods = trained(comparison.rows)
    if methods.empty:
        return said
    for cost, of in _COSTS.items():
        if (methods[cost] > 0).sum() > 1:
            # Rows whose cost is not known stay, because the sentence counts them.
            said.append(cheapest_good(methods.assign(**{cost: methods[cost].where(methods[cost] > 0)}), cost, of))
    if not is_reward_model(next(rows(comparison.rows))):
        said.append(against_untrained(comparison))
    more = (against_constant(comparison), seen(comparison), unpaired(comparison))
    return said + [sentence for sentence in more if sentence]


_COSTS = {
    "trainable_params": "trainable parameters",
    "peak_train_bytes": "peak memory",
    "chain_train_s": "training time",
}


def _price(share: float) -> str:
    """A share of a measured cost, with as many digits as a measurement supports."""
    return percent_text(share) if share < 0.995 else "more than 99 %"


def _higher(frame: pd.DataFrame) -> bool:
    return bool(frame.higher_is_better.iloc[0])


def _best(frame: pd.DataFrame) -> str:
    return "highest" if _higher(frame) else "lowest"


def _who(some: Sequence[Any], of: int) -> str:
    """The labels of a few rows, or how many of how many."""
    if len(some) > _NAMED:
        return f"all {of}" if len(some) == of else f"{len(some)} of {of}"
    return joined(row.label for row in some)


def _any_of(some: Sequence[Any], of: int) -> str:
    """:func:`_who` in a sentence that denies: 'not better than all 8' may be better than some."""
    return f"any of the {of} others" if len(some) == of > _NAMED else _who(some, of)


def joined(names: Iterable[str]) -> str:
    """Names as a sentence lists them: 'a, b and c'."""
    items = list(names)
    if len(items) > 1 and any(", " in name for name in items):  # 'lora, r 8; head; and lora, r 4'
        return "; ".join(items[:-1]) + "; and " + items[-1]
    return items[0] if len(items) == 1 else ", ".join(items[:-1]) + " and " + items[-1]
