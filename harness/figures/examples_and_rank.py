"""Do more data need a higher rank? Test score by training examples and rank."""

from __future__ import annotations

import json
from functools import partial

import pandas as pd
from matplotlib.figure import Figure

from harness.figures.grids import cell_texts, draw_grid, half_intervals
from harness.figures.panels import FACET, Nothing, Panel, Tables, View, compose, why_empty
from harness.figures.style import score_text
from harness.judgement.labels import labelled
from harness.judgement.statistics import aggregate

_AXES = ("r", "train_examples")
#: What a rank takes along: alpha / r is the scale of the change.
_WITH_IT = ("alpha",)


def draw(tables: Tables) -> Figure | Nothing:
    """A heat map per task, model and method: ranks by training examples, each cell the mean score and its interval.

    What differs else makes maps of its own, where it was scored with several ranks and numbers of examples.
    """
    chosen = aggregate(tables)
    ranks = [json.loads(text or "{}").get("r") for text in chosen.method_args]
    chosen = chosen.assign(rank=pd.to_numeric(pd.Series(ranks, index=chosen.index, dtype="object")))
    known = chosen[chosen.test_score.notna() & chosen["rank"].notna()]
    groups = [
        ((*key, label), rows)
        for key, of_model in known.groupby(FACET, sort=False)
        for label, rows in labelled(of_model, among=(*_AXES, *_WITH_IT)).groupby("label", sort=False)
        if rows["rank"].nunique() > 1 and rows.train_examples.nunique() > 1
    ]
    if not groups:
        return Nothing(why_empty(tables["trials"], "no method was scored with two ranks and two numbers of examples"))
    views = [
        View(" · ".join(map(str, key)), partial(_draw, frame=rows), rows["rank"].nunique()) for key, rows in groups
    ]
    return compose(views, height=lambda ranks: 1.4 + 0.42 * ranks)


def _draw(panel: Panel, frame: pd.DataFrame) -> str:
    higher = bool(frame.higher_is_better.iloc[0])
    # Of several scales, the one that validation prefers.
    best = frame.sort_values("valid_score", ascending=not higher, kind="stable").drop_duplicates(
        ["rank", "train_examples"]
    )
    cells = best.pivot(index="rank", columns="train_examples", values="test_score").sort_index(ascending=False)
    halves = best.assign(half=half_intervals(best)).pivot(index="rank", columns="train_examples", values="half")
    texts = cell_texts(cells, halves, score_text)
    shown = cells.rename(index=lambda rank: f"{rank:g}", columns=lambda count: f"{count:g}")
    draw_grid(panel, shown, texts, pd.Series(higher, index=shown.columns), by_column=False)
    panel.axes.set(xlabel="Training examples", ylabel="Rank")
    return _finding(cells, higher)


def _finding(cells: pd.DataFrame, higher: bool) -> str:
    """Which rank scores best with the fewest and with the most examples."""
    parts = []
    for examples in (cells.columns[0], cells.columns[-1]):
        scores = cells[examples].dropna()
        top = scores.max() if higher else scores.min()
        ranks = sorted(float(str(rank)) for rank, score in scores.items() if score_text(score) == score_text(top))
        names = " and ".join(f"{rank:g}" for rank in ranks[:3]) + (" and others" if len(ranks) > 3 else "")
        word = "ranks" if len(ranks) > 1 else "rank"
        parts.append(f"{word} {names} with {examples:g} examples ({score_text(top)})")
    return f"{'Highest' if higher else 'Lowest'} scores: {parts[0]}; {parts[1]}"
