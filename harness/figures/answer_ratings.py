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
    labelled,
    rows,
    shortened,
    why_empty,
)
from harness.figures.published_panels import dots_view
from harness.figures.style import MUTED, look
from harness.figures.words import leading
from harness.judgement.bradley_terry import ELO, guards, ratings
from harness.judgement.statistics import aggregate
from harness.judgement.verdicts import compare


def draw(tables: Tables) -> Figure | Nothing:
    """A rating and its 95 % interval per method; the judge is the task's metric, and 0 the mean of all methods.

    Beside it stands the mean length of the stored answers.
    """
    chosen = aggregate(tables)
    views = []
    for (task, model), frame in chosen[chosen.test_score.notna()].groupby(FACET, sort=False):
        for rated in _rated(frame, tables):
            where = f"{task} · {model} · judge: {rated.primary_metric.iloc[0]}"
            length = int(rated.label.str.len().max())
            views.append(View(where, partial(_draw, frame=rated), len(rated), name_length=length))
    if not views:
        return Nothing(why_empty(tables["trials"], "no two methods have scores of the same single examples"))
    return compose([*views, _dettmers()], height=lambda rows: 1.0 + 0.29 * rows)


def _rated(frame: pd.DataFrame, tables: Tables) -> list[pd.DataFrame]:
    """For each comparison that can be rated: its rows with their ``elo`` and the interval ``low`` to ``high``."""
    parts = []
    for comparison in compare(labelled(frame.reset_index(drop=True)), tables):
        if (strengths := ratings(comparison)) is not None:
            elo = {"elo": [one.elo for one in strengths], "low": [ELO * one.low for one in strengths],
                   "high": [ELO * one.high for one in strengths],
                   "words": [_words(row.trial_ids, tables) for row in rows(comparison.rows)]}  # fmt: skip
            parts.append(shortened(comparison.rows.reset_index(drop=True)).assign(**elo))
    return parts


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
