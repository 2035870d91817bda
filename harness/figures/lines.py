"""A line per method, with an interval at every point. The figures of series share it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pandas as pd
import seaborn as sns
from matplotlib.ticker import FuncFormatter, MaxNLocator

from harness.figures.layout import Panel
from harness.figures.published import look_like
from harness.figures.style import look
from harness.figures.words import leading


@dataclass(frozen=True)
class Series:
    """What the two axes of a panel of lines show."""

    x: str
    """The column on the horizontal axis."""
    x_label: str
    x_text: Callable[[float], str]
    y: str = "test_score"
    y_text: Callable[[float], str] | None = None
    """How the vertical axis writes a value; None: as matplotlib does."""
    low: str | None = "ci_low"
    """The columns with the ends of each point's interval; None where there is none."""
    high: str | None = "ci_high"
    log_x: bool = True
    log_y: bool = False


def draw_lines(panel: Panel, frame: pd.DataFrame, series: Series, y_label: str, published: bool = False) -> None:
    """A line per ``label`` of ``frame`` through its rows in the order of ``series.x``, named at its end.

    The markers of ``published`` values are hollow.
    """
    axes = panel.axes
    frame = frame.sort_values(["label", series.x], kind="stable")
    looks = {label: (look_like if published else look)(method) for label, method in zip(frame.label, frame.method)}
    sns.lineplot(
        data=frame,
        x=series.x,
        y=series.y,
        hue="label",
        style="label",
        palette={label: one.colour for label, one in looks.items()},
        markers={label: one.marker for label, one in looks.items()},
        dashes=False,
        markersize=7,
        markeredgewidth=1.2 if published else 0.5,
        lw=1.5,
        alpha=0.75 if published else 1.0,
        errorbar=None,
        estimator=None,
        legend=False,
        ax=axes,
    )
    ends: dict[str, tuple[float, float]] = {}
    for label, line in frame.groupby("label", sort=True):
        colour = looks[str(label)].colour
        if series.low and series.high:
            axes.vlines(line[series.x], line[series.low], line[series.high], color=colour, lw=1.2, alpha=0.7)
        ends[str(label)] = (float(line[series.x].iloc[-1]), float(line[series.y].iloc[-1]))
    if published:
        for drawn in axes.lines:
            drawn.set_markerfacecolor("white")
            drawn.set_markeredgecolor(drawn.get_color())
    if series.log_x:
        axes.set_xscale("log")
    if series.log_y:
        axes.set_yscale("log")
    else:
        axes.yaxis.set_major_locator(MaxNLocator(5))
    if series.y_text is not None:
        text = series.y_text
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: text(value)))
        axes.yaxis.set_minor_formatter(FuncFormatter(lambda value, _: ""))
    panel.ticks(frame[series.x].tolist(), series.x_text)
    axes.margins(x=0.06, y=0.1)
    axes.set(xlabel=series.x_label, ylabel=y_label)
    axes.grid(axis="x", visible=False)
    panel.label_ends(*zip(*ends.values(), strict=True), list(ends), [looks[label].colour for label in ends])


def best_at_the_ends(frame: pd.DataFrame, series: Series, higher: bool, said: Callable[[float], str]) -> str:
    """Which lines lead at the smallest and at the largest x; ``said`` writes an x with its unit."""
    first, last = frame[series.x].min(), frame[series.x].max()
    low = leading(frame[frame[series.x] == first], series.y, higher)
    high = leading(frame[frame[series.x] == last], series.y, higher)
    best = "highest" if higher else "lowest"
    if low.names == high.names:
        return f"{low.who} {best} at {said(first)} ({low.text}) and at {said(last)} ({high.text})"
    return f"{low.who} {best} at {said(first)} ({low.text}), {high.who} at {said(last)} ({high.text})"


def varied(frame: pd.DataFrame, facet: list[str], x: str) -> pd.DataFrame:
    """The rows of those groups by ``facet`` in which some method has at least two values of ``x``."""
    known = frame[frame[x].notna()]
    if known.empty:
        return known
    several = known.groupby([*facet, "method"], dropna=False)[x].transform("nunique") > 1
    return known[several.groupby([known[name] for name in facet], dropna=False).transform("any")]
