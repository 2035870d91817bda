"""A horizontal mark per method for one number. The figures of speed and latency share it."""

from __future__ import annotations

from collections.abc import Callable

import pandas as pd
from matplotlib.ticker import FuncFormatter, MaxNLocator

from harness.figures.panels import Panel, rows
from harness.figures.style import MUTED, look


def dots(panel: Panel, frame: pd.DataFrame, text: Callable[[float], str], ascending: bool = True) -> pd.DataFrame:
    """Draw a dot at ``value`` and a line from ``low`` to ``high`` for each row; returns the rows in the order drawn.

    With ``ascending``, the largest value is on top. The axis starts at zero, so that lengths can be compared.
    """
    axes = panel.axes
    frame = frame.sort_values("value", ascending=ascending).reset_index(drop=True)
    for place, row in enumerate(rows(frame)):
        method_look = look(row.method)
        axes.plot([0, row.value], [place, place], color=method_look.colour, lw=1, alpha=0.35, zorder=1)
        axes.plot([row.low, row.high], [place, place], color=method_look.colour, lw=2.5, alpha=0.6, zorder=2)
        axes.plot(row.value, place, method_look.marker, color=method_look.colour, markersize=7, zorder=3)
        axes.text(
            1.01, place, text(row.value), fontsize=8.5, color=MUTED, va="center",
            transform=axes.get_yaxis_transform(),
        )  # fmt: skip
    axes.set_yticks(range(len(frame)), frame.label)
    axes.set_ylim(-0.6, len(frame) - 0.4)
    axes.set_xlim(0, 1.06 * frame.high.max())
    axes.xaxis.set_major_locator(MaxNLocator(5))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: text(value)))
    axes.grid(axis="y", visible=False)
    return frame
