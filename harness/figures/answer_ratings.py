"""Whose answers win? Ratings from pairwise comparisons of answers (Dettmers et al. 2023, table 1)."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from harness.figures import published
from harness.figures.panels import (
    FACET,
    Nothing,
    Panel,
    Tables,
    View,
    compose,
    rows,
    shortened,
    why_empty,
)
from harness.figures.published_panels import dots_view
from harness.figures.style import MUTED, look
from harness.figures.words import leading
from harness.judgement.answer_pairs import judged
from harness.judgement.bradley_terry import ELO, Rating, guards, ratings
from harness.judgement.labels import labelled
from harness.judgement.statistics import aggregate
from harness.judgement.verdicts import compare


def draw(tables: Tables) -> Figure | Nothing:
    """A rating and its 95 % interval per method; 0 is the mean of all methods.

    The judge is the task's metric, and in panels of their own each model that was asked (``tunebench judge``). Beside
    a rating stands the mean length of the stored answers.
    """
    chosen = aggregate(tables)
    views = []
    for (task, model), frame in chosen[chosen.test_score.notna()].groupby(FACET, sort=False):
        for judge, rated in _rated(frame, tables):
            where = f"{task} · {model} · judge: {judge}"
            length = int(rated.label.str.len().max())
            views.append(View(where, partial(_draw, frame=rated), len(rated), name_length=length))
    if not views:
        return Nothing(why_empty(tables["trials"], "no two methods have scores of the same single examples"))
    return compose([*views, _dettmers()], height=lambda rows: 1.0 + 0.29 * rows)


def _rated(frame: pd.DataFrame, tables: Tables) -> list[tuple[str, pd.DataFrame]]:
    """For each comparison and judge: its name, and the rated rows with ``elo`` and the interval ``low`` to ``high``."""
    parts = []
    for comparison in compare(labelled(frame.reset_index(drop=True)), tables):
        by_metric = ratings(comparison)
        judges = [(str(comparison.rows.primary_metric.iloc[0]), dict(enumerate(by_metric or ())))]
        judges += [(one.judge, one.ratings) for one in judged(comparison, tables)]
        for judge, strengths in judges:
            if strengths:
                few = comparison.rows.iloc[list(strengths)].reset_index(drop=True)
                beside = pd.DataFrame(_columns(few, list(strengths.values()), tables))
                parts.append((judge, pd.concat([shortened(few), beside], axis=1)))
    return parts


def _columns(few: pd.DataFrame, strengths: Sequence[Rating], tables: Tables) -> dict[str, list[object]]:
    return {
        # A hundredth of a point is nothing that is measured, and ties would be told apart by what rounding leaves.
        "elo": [round(one.elo, 2) + 0.0 for one in strengths],
        "low": [round(ELO * one.low, 2) + 0.0 for one in strengths],
        "high": [round(ELO * one.high, 2) + 0.0 for one in strengths],
        "words": [_words(row.trial_ids, tables) for row in rows(few)],
    }


def _words(trial_ids: Sequence[str], tables: Tables) -> str:
    """The mean length of the answers, which a judge may like or dislike for itself; '' where none are stored."""
    stored = guards(trial_ids, tables)
    return "" if stored is None else f" · {stored.words:.0f} word{'' if round(stored.words) == 1 else 's'}"


def _draw(panel: Panel, frame: pd.DataFrame) -> str:
    axes = panel.axes
    frame = frame.sort_values("elo", kind="stable").reset_index(drop=True)
    for place, row in enumerate(rows(frame)):
        one = look(row.method)
        axes.plot([row.low, row.high], [place, place], color=one.colour, alpha=0.4, lw=6, solid_capstyle="butt")
        axes.plot(row.elo, place, one.marker, color=one.colour, markersize=5)
        axes.text(
            1.01, place, f"{row.elo:+.0f} [{row.low:+.0f}, {row.high:+.0f}]{row.words}", fontsize=8.5, color=MUTED,
            va="center", transform=axes.get_yaxis_transform(),
        )  # fmt: skip
    axes.axvline(0, color=MUTED, ls="--", lw=1, zorder=0.5)
    axes.set_yticks(range(len(frame)), frame.label)
    axes.set_ylim(-0.6, len(frame) - 0.4)
    axes.margins(x=0.06)
    axes.xaxis.set_major_locator(MaxNLocator(5))
    axes.grid(axis="y", visible=False)
    axes.set_xlabel("Rating, Elo points from the mean of all")
    best = leading(frame, "elo", largest=True, text=lambda elo: f"{elo:+.0f}")
    return f"{best.who} rated highest: {best.text} Elo points{_range(frame)}"


def _range(frame: pd.DataFrame) -> str:
    """How many other ratings have an interval that overlaps that of the highest."""
    top = frame.iloc[-1]
    overlapping = int((frame.high[:-1] >= top.low).sum())
    return f"; the interval of {overlapping} of {len(frame) - 1} others reaches into its own"


def _dettmers() -> View:
    frame = published.read("dettmers2023_qlora", table="table1", metric="elo")
    frame = frame.assign(label=frame.model).sort_values("value", ascending=False, kind="stable")
    values = frame.set_index("model").value
    guanaco, chatgpt, gpt4 = (values[name] for name in ("guanaco-65b", "chatgpt", "gpt-4"))
    said = f"Guanaco 65B is rated {guanaco:.0f}, ChatGPT {chatgpt:.0f}, GPT-4 {gpt4:.0f}"
    return dots_view(frame, "Vicuna benchmark, judge GPT-4", "Elo rating", said)
