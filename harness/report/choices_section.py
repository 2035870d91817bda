"""What to take: a table of recommendations by memory and goal, and how stable the order behind them is."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import pandas as pd

from harness.figures.style import bytes_text, percent_text
from harness.judgement.answer_pairs import Judged, judged
from harness.judgement.bradley_terry import ELO, Guards, Rating, guards, rated_by, ratings
from harness.judgement.fronts import on_front
from harness.judgement.intervals import SPREAD_SEEDS
from harness.judgement.labels import labelled
from harness.judgement.normalised import OverTasks, over_tasks
from harness.judgement.quantities import QUANTITIES
from harness.judgement.ranks import ranks
from harness.judgement.recommendation import GOALS, Choice, Costs, choose, names
from harness.judgement.resampling import resampled
from harness.judgement.statistics import aggregate
from harness.judgement.verdicts import Comparison, compare, is_trained
from harness.report.sections import Html, escape
from harness.results.files import Tables

#: Budgets of the table, in bytes: machines and cards that people have.
_BUDGETS = tuple(int(size * 1e9) for size in (1, 2, 4, 8, 16, 24, 48, 80, 141))

_NAMED = 3
"""More rows than this are counted and not named."""

#: Costs of which the fronts are told.
_COSTS = ("peak_train_bytes", "chain_train_s", "checkpoint_bytes")

_SURE = 0.95
"""Rows with this probability to be on a front, or to be off it, are told together."""


def choices(tables: Tables) -> Html:
    """For each comparison the recommendations by memory and goal, and how stable they are; then a score over tasks."""
    comparisons = [one for one in compare(aggregate(tables), tables) if _has_policies(one)]
    if not comparisons:
        return Html("<p>No trained model was scored, so there is nothing to recommend.</p>")
    parts = []
    for comparison in comparisons:
        row = comparison.rows.iloc[0]
        parts.append(f"<h3>{escape(str(row.task))} · {escape(str(row.model))}</h3>")
        parts.append(_table(comparison, tables))
        items = "".join(f"<li>{escape(line)}.</li>" for line in stability(comparison, tables))
        parts.append(f"<ul>{items}</ul>" if items else "")
    if (found := over_tasks(comparisons)) is not None:
        parts.append(f"<h3>Over {found.tasks} tasks and models</h3>{_over_tasks(found)}")
    return Html("".join(parts))


def _has_policies(comparison: Comparison) -> bool:
    return bool(comparison.policies)


def _table(comparison: Comparison, tables: Tables) -> str:
    """A line per budget that changes anything, a column per goal."""
    called = names(comparison)
    peaks = comparison.rows.peak_train_bytes.dropna().to_dict()
    lines: list[tuple[str, list[str]]] = []
    fitting = None
    costs = Costs(comparison, tables)
    for budget in (*_BUDGETS, None):
        before, fitting = fitting, frozenset(place for place, peak in peaks.items() if budget and peak <= budget)
        if budget is not None and fitting in (before, frozenset()):
            continue
        picks = [choose(comparison, costs, goal, budget) for goal in GOALS]
        cells = [_said(pick, called) for pick in picks]
        if all(pick.best is None for pick in picks) or (lines and lines[-1][1] == cells):
            continue
        label = "any" if budget is None else bytes_text(budget)
        lines.append((label, cells))
    if not lines:
        return "<p>Nothing that a recommendation needs was measured.</p>"
    heads = "".join(f'<th scope="col">{head}</th>' for head in ("Memory", *GOALS))
    body = "".join(
        f"<tr><td>{escape(label)}</td>{''.join(f'<td>{escape(cell)}</td>' for cell in cells)}</tr>"
        for label, cells in lines
    )
    return f'<div class="scroll"><table><thead><tr>{heads}</tr></thead><tbody>{body}</tbody></table></div>'


def _said(choice: Choice, called: Sequence[str]) -> str:
    if choice.best is None:
        return "–"
    said = [called[choice.best]]
    if choice.ahead:
        said.append(f"worse than {_who(choice.ahead, called)} on the seeds that both have")
    if choice.tied:
        said.append(f"not told from {_who(choice.tied, called)}")
    return ", ".join(said)


def stability(comparison: Comparison, tables: Tables) -> list[str]:
    """Sentences on the order of a comparison: ranks, fronts and pairwise wins. Empty for a single row."""
    if len(comparison.rows) < 2:
        return []
    draws, called = resampled(comparison), names(comparison)
    said = []
    if (found := ranks(comparison, draws)) is not None:
        said.append(_of_ranks(found.first, found.tau, comparison, called))
        for cost in _COSTS:
            said += _of_front(on_front(comparison, cost, tables, draws), cost, called)
    if (strengths := ratings(comparison)) is not None:
        said.append(_of_wins(dict(enumerate(strengths)), "the task's metric", called))
        said += _of_guards(comparison, tables, called)
    if (by_reward := rated_by("reward", comparison, tables)) is not None:
        said.append(_of_wins(by_reward, "the reward model", called))
    for one in judged(comparison, tables):
        rated = _of_wins(one.ratings, f"the model {one.judge}", called) if one.ratings else _of_nothing(one.judge)
        said.append(rated + _how(one))
    return said


def _of_ranks(first: np.ndarray, tau: float, comparison: Comparison, called: Sequence[str]) -> str:
    order = np.argsort(-first, kind="stable")
    shares = [f"{called[place]} {percent_text(float(first[place]))}" for place in order[:_NAMED] if first[place] > 0]
    single = any(row.seeds < SPREAD_SEEDS and is_trained(row) for row in comparison.listed)
    over = "other test examples (some methods have one seed)" if single else "other seeds and test examples"
    return f"with {over}, the best score would be that of {', '.join(shares)}; two such orders agree by τ = {tau:.2f}"


def _of_front(shares: np.ndarray, cost: str, called: Sequence[str]) -> list[str]:
    known = [place for place in range(len(called)) if not np.isnan(shares[place])]
    if len(known) < 2:
        return []
    often = [place for place in known if shares[place] >= _SURE]
    seldom = [place for place in known if shares[place] <= 1 - _SURE]
    between = [place for place in known if 1 - _SURE < shares[place] < _SURE]
    parts = [
        f"{said} {_who(places, called)}"
        for said, places in (("in 95 % of resamples or more:", often), ("in 5 % or fewer:", seldom))
        if places
    ]
    if between:
        shown = [f"{called[place]} {percent_text(float(shares[place]))}" for place in between]
        parts.append(f"in between: {', '.join(shown) if len(between) <= _NAMED else f'{len(between)} rows'}")
    return [f"on the front of score against {QUANTITIES[cost].text}, {'; '.join(parts)}"]


def _of_wins(strengths: Mapping[int, Rating], judge: str, called: Sequence[str]) -> str:
    best = sorted(strengths, key=lambda place: -strengths[place].strength)[:_NAMED]
    shown = [
        f"{called[place]} {_elo(one.strength):+.0f} [{_elo(one.low):+.0f}, {_elo(one.high):+.0f}]"
        for place, one in ((place, strengths[place]) for place in best)
    ]
    return f"answer by answer, judged by {judge} (Bradley–Terry, Elo scale, mean 0): {', '.join(shown)}"


def _of_nothing(judge: str) -> str:
    return f"no rating follows from what the model {judge} replied"


def _how(judged: Judged) -> str:
    """What a reader must know of a judge's verdicts."""
    parts = ["1 pair of answers" if judged.pairs == 1 else f"{judged.pairs} pairs of answers"]
    for count, what in (
        (judged.same, "the same text, and ties"),
        (judged.swayed, "judged differently in the other order, and ties"),
        (judged.unreadable, "without a readable verdict, and left out"),
    ):
        parts += [f"{count} {what}"] if count else []
    return f" (over {'; '.join(parts)})"


def _elo(strength: float) -> float:
    return float(ELO * strength)


def _of_guards(comparison: Comparison, tables: Tables, called: Sequence[str]) -> list[str]:
    """Who answers at the shortest and the longest, where answers are texts of several words."""
    found = [(called[row.Index], guards(row.trial_ids, tables)) for row in comparison.listed]
    known = [(name, one) for name, one in found if one is not None]
    if len(known) < 2 or max(one.words for _, one in known) < 2:
        return []
    short, long = min(known, key=lambda pair: pair[1].words), max(known, key=lambda pair: pair[1].words)
    same = f"{short[1].words:.3g}" == f"{long[1].words:.3g}"
    lengths = f"{short[1].words:.3g} words in every row" if same else f"{_words(short)} to {_words(long)} words"
    said = [f"mean length of the answers: {lengths}"]
    name, most = max(known, key=lambda pair: pair[1].repetition or 0.0)
    if most.repetition and [one.repetition for _, one in known].count(most.repetition) == 1:
        said[0] += f"; {name} repeats most, {percent_text(most.repetition)} of its word triples"
    return said + _of_surprise(known)


def _of_surprise(known: Sequence[tuple[str, Guards]]) -> list[str]:
    """Whose answers surprise the untouched model least and most; nothing where two rows are not known to differ."""
    values = sorted((one.perplexity, name) for name, one in known if one.perplexity is not None)
    if len(values) < 2:
        return []
    (low, least), (high, most) = values[0], values[-1]
    few, many = f"{low:.3g}", f"{high:.3g}"
    shown = f"{few} for every row" if few == many else f"from {few} ({least}) to {many} ({most})"
    rest = len(known) - len(values)
    return [
        f"perplexity of the answers under the untouched model: {shown}" + (f"; {rest} not measured" if rest else "")
    ]


def _words(pair: tuple[str, Guards]) -> str:
    return f"{pair[1].words:.3g} ({pair[0]})"


def _over_tasks(found: OverTasks) -> str:
    called = labelled(pd.DataFrame([{"method": one.method, "method_args": one.method_args} for one in found.methods]))
    lines = "".join(
        f"<li>{escape(name)}: {one.score:.2f} [{one.low:.2f}, {one.high:.2f}], on {one.tasks} of {found.tasks}</li>"
        for name, one in zip(called.label, found.methods, strict=True)
    )
    left_out = f" {found.left_out} left out, which have no such scale." if found.left_out else ""
    return (
        "<p>Interquartile mean of the scores, where 0 is the untrained model and 1 is full fine-tuning."
        f"{left_out}</p><ul>{lines}</ul>"
    )


def _who(places: Iterable[int], called: Sequence[str]) -> str:
    some = [called[place] for place in places]
    return ", ".join(some) if len(some) <= _NAMED else f"{len(some)} rows"
