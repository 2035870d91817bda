"""Which method scores best, and how sure is that?"""

from __future__ import annotations

from functools import partial

import pandas as pd
from matplotlib.figure import Figure

from harness.figures.findings import metric_label, standings
from harness.figures.panels import Panel, Tables, nothing, rows, small_multiples, why_empty
from harness.figures.style import MUTED, look, score_text
from harness.judgement.statistics import aggregate


def draw(tables: Tables) -> Figure:
    """A dot and a 95 % interval per method, best on top; the dashed line is the untrained model."""
    chosen = aggregate(tables)
    scored = chosen[chosen.test_score.notna()]
    if scored.empty:
        return nothing(why_empty(tables["trials"], "no trial was scored on a test split"))
    return small_multiples(scored, partial(_draw, tables=tables), height=lambda rows: 0.9 + 0.29 * rows)


def _draw(panel: Panel, frame: pd.DataFrame, tables: Tables) -> str:
    axes = panel.axes
    frame = frame.sort_values("test_score", ascending=bool(frame.higher_is_better.iloc[0])).reset_index(drop=True)
    for place, row in enumerate(rows(frame)):
        method_look = look(row.method)
        axes.plot(
            [row.ci_low, row.ci_high], [place, place], color=method_look.colour, alpha=0.4, lw=6, solid_capstyle="butt"
        )
        axes.plot(row.test_score, place, method_look.marker, color=method_look.colour, markersize=5)
        text = score_text(row.test_score)
        if pd.notna(row.ci_low):
            text += f" [{score_text(row.ci_low)}, {score_text(row.ci_high)}]"
        axes.text(1.01, place, text, fontsize=8.5, color=MUTED, va="center", transform=axes.get_yaxis_transform())
    base = frame.base_score.dropna()
    if len(base):
        axes.axvline(base.iloc[0], color=MUTED, ls="--", lw=1, zorder=0.5)
    axes.set_yticks(range(len(frame)), frame.label)
    axes.set_ylim(-0.6, len(frame) - 0.4)
    axes.margins(x=0.06)
    axes.grid(axis="y", visible=False)
    axes.set_xlabel(metric_label(frame))
    return standings(frame, tables)
