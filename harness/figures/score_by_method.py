"""Which method scores best, and how sure is that?"""

from __future__ import annotations

from functools import partial

import pandas as pd
from matplotlib.figure import Figure

from harness.figures.findings import metric_label, standings
from harness.figures.intervals import draw_intervals
from harness.figures.panels import Nothing, Panel, Tables, small_multiples, why_empty
from harness.figures.style import MUTED
from harness.judgement.statistics import aggregate


def draw(tables: Tables) -> Figure | Nothing:
    """A dot and a 95 % interval per method, best on top; the dashed line is the untrained model."""
    chosen = aggregate(tables)
    scored = chosen[chosen.test_score.notna()]
    if scored.empty:
        return Nothing(why_empty(tables["trials"], "no trial was scored on a test split"))
    return small_multiples(scored, partial(_draw, tables=tables), height=lambda rows: 0.9 + 0.29 * rows)


def _draw(panel: Panel, frame: pd.DataFrame, tables: Tables) -> str:
    axes = panel.axes
    frame = draw_intervals(panel, frame)
    base = frame.base_score.dropna()
    if len(base):
        axes.axvline(base.iloc[0], color=MUTED, ls="--", lw=1, zorder=0.5)
    axes.set_xlabel(metric_label(frame))
    return standings(frame, tables)
