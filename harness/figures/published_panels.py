"""Panels of published numbers: the same kinds as our own, apart by their background and hollow marks."""

from __future__ import annotations

from dataclasses import replace

import pandas as pd
from matplotlib.ticker import MaxNLocator

from harness.figures.layout import Panel, View
from harness.figures.lines import Series, draw_lines
from harness.figures.panels import rows
from harness.figures.published import bars, look_like, where


def lines_view(frame: pd.DataFrame, what: str, series: Series, y_label: str, finding: str) -> View:
    """Lines through ``value`` with ``error``, one per ``label``; ``frame`` is of :func:`published.read`."""
    frame = frame.assign(_low=frame.value - frame.error, _high=frame.value + frame.error)
    own = replace(series, y="value", low="_low", high="_high")

    def draw(panel: Panel) -> str:
        draw_lines(panel, frame, own, y_label, published=True)
        return finding

    return View(where(frame, what), draw, frame.label.nunique(), published=True)


def dots_view(frame: pd.DataFrame, what: str, x_label: str, finding: str) -> View:
    """A hollow dot at ``value`` with ``error`` for each row, named by its ``label``, the first row on top."""

    def draw(panel: Panel) -> str:
        axes = panel.axes
        places = pd.Series(range(len(frame))[::-1], index=frame.index)
        bars(axes, frame.value, places, frame.error, horizontal=True)
        for row in rows(frame):
            one = look_like(row.method)
            axes.plot(row.value, places[row.Index], one.marker, color=one.colour, mfc="white", markersize=7)
        axes.set_yticks(places, frame.label)
        axes.set_ylim(-0.6, len(frame) - 0.4)
        axes.margins(x=0.1)
        axes.xaxis.set_major_locator(MaxNLocator(5))
        axes.grid(axis="y", visible=False)
        axes.set_xlabel(x_label)
        return finding

    return View(where(frame, what), draw, len(frame), published=True, name_length=int(frame.label.str.len().max()))
