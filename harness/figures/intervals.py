"""A dot and a 95 % interval per row, best on top."""

from __future__ import annotations

import pandas as pd

from harness.figures.findings import scored
from harness.figures.layout import Panel
from harness.figures.panels import rows
from harness.figures.style import MUTED, look


def draw_intervals(panel: Panel, frame: pd.DataFrame) -> pd.DataFrame:
    """Draw ``test_score`` and its interval for each labelled row; returns the rows in the order drawn."""
    axes = panel.axes
    frame = frame.sort_values("test_score", ascending=bool(frame.higher_is_better.iloc[0])).reset_index(drop=True)
    for place, row in enumerate(rows(frame)):
        one = look(row.method)
        axes.plot([row.ci_low, row.ci_high], [place, place], color=one.colour, alpha=0.4, lw=6, solid_capstyle="butt")
        axes.plot(row.test_score, place, one.marker, color=one.colour, markersize=5)
        axes.text(
            1.01, place, scored(row), fontsize=8.5, color=MUTED, va="center", transform=axes.get_yaxis_transform()
        )
    axes.set_yticks(range(len(frame)), frame.label)
    axes.set_ylim(-0.6, len(frame) - 0.4)
    axes.margins(x=0.06)
    axes.grid(axis="y", visible=False)
    return frame
