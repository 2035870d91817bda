"""Did every method get a fair choice of learning rates?"""

from __future__ import annotations

from typing import Any

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import LogFormatter

from harness.figures.panels import FACET, Nothing, Panel, Tables, extreme, small_multiples, why_empty
from harness.figures.style import look, rate_text
from harness.results.selection import CELL, PLANNED, SETTING


def draw(tables: Tables) -> Figure | Nothing:
    """Mean validation score at each learning rate, over the seeds on which all rates of the method were scored.

    So rates that were tried on the first seed alone stand beside the chosen one's score on that seed.
    """
    trials = tables["trials"]
    scored = trials[(trials.status == "ok") & trials.valid_score.notna() & trials.learning_rate.notna()]
    if scored.empty:
        return Nothing(why_empty(trials, "no trained model was scored on a validation split"))
    sign = scored.higher_is_better.fillna(True).map({True: 1.0, False: -1.0}).astype(float)
    means = (
        scored.assign(good=scored.valid_score * sign)[_is_shared(scored)]
        .groupby([*CELL, *SETTING], dropna=False, sort=False)
        .agg(good=("good", "mean"), score=("valid_score", "mean"), metric=("primary_metric", "first"))
        .reset_index()
        .sort_values("good", ascending=False, kind="stable")
        .drop_duplicates([*CELL, "learning_rate"])
        .sort_index()
    )
    # A rate that diverged was tried: what lies beyond the best one is known there. It has no measured device.
    tried = trials[trials.learning_rate.notna() & trials.status.isin(("ok", "diverged"))].groupby(PLANNED, dropna=False)
    means = means.merge(tried.learning_rate.agg(lowest="min", highest="max").reset_index(), on=PLANNED, how="left")
    several = means.groupby(CELL, dropna=False).learning_rate.transform("nunique") > 1
    if not several.any():
        return Nothing(why_empty(trials, "one learning rate was tried for each method"))
    return small_multiples(means[several.groupby([means[name] for name in FACET]).transform("any")], _draw)


def _is_shared(scored: pd.DataFrame) -> pd.Series:
    """Which rows have a seed that all settings of their cell have; all rows of a cell without such a seed."""
    cell = scored.groupby(CELL, dropna=False).ngroup()
    setting = scored.groupby([*CELL, *SETTING], dropna=False).ngroup()
    of_cell = setting.groupby(cell).transform("nunique")
    shared = setting.groupby([cell, scored.seed]).transform("nunique") == of_cell
    return shared | ~shared.groupby(cell).transform("any")


def _draw(panel: Panel, frame: pd.DataFrame) -> str:
    axes = panel.axes
    peaks: list[Any] = []
    at_edge = several = 0
    for _, line in frame.groupby("label", sort=False):
        line = line.sort_values("learning_rate")
        method_look = look(line.method.iloc[0])
        axes.plot(
            line.learning_rate, line.score, color=method_look.colour, marker=method_look.marker, lw=1.4, markersize=6
        )
        peaks.append(peak := extreme(line, "good", largest=True))
        several += len(line) > 1
        at_edge += len(line) > 1 and peak.learning_rate in (line.lowest.iloc[0], line.highest.iloc[0])
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter(_Rates())
    axes.xaxis.set_minor_formatter(_Rates())
    axes.margins(x=0.1, y=0.12)
    axes.set_xlabel("Learning rate (log scale)")
    axes.set_ylabel(f"{frame.metric.iloc[0]} on validation")
    panel.label_points([p.learning_rate for p in peaks], [p.score for p in peaks], [p.label for p in peaks])
    if not at_edge:
        some = f"each of the {several} methods" if several > 1 else "the one method"
        whose = "Every method’s" if several == len(peaks) else f"Of {some} with several rates, the"
        return f"{whose} best learning rate lies inside the range that was tried"
    return f"{at_edge} of {several} methods are best at the edge of the rates tried: others may suit them better"


class _Rates(LogFormatter):
    """Learning rates at the ticks that matplotlib would label; without mathematics, which figures do not set."""

    def __call__(self, x: float, pos: int | None = None) -> str:
        return rate_text(x) if super().__call__(x, pos) else ""
