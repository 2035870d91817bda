"""A line per method, with an interval at every point. The figures of series share it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator

from harness.figures.layout import Panel, View
from harness.figures.panels import of_rows, shortened
from harness.figures.published import look_like
from harness.figures.style import look
from harness.figures.words import leading
from harness.judgement.labels import labelled


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
    is_series: bool = True
    """False: the values of x are kinds, and a dotted line leads the eye from one to the next."""


def draw_lines(panel: Panel, frame: pd.DataFrame, series: Series, y_label: str, published: bool = False) -> None:
    """A line per ``label`` of ``frame`` through its rows in the order of ``series.x``, named at its end.

    The markers of ``published`` values are hollow.
    """
    axes = panel.axes
    frame = frame.sort_values(["label", series.x], kind="stable")
    looks = {
        label: (look_like if published else look)(method)
        for label, method in zip(frame.label, frame.method, strict=True)
    }
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
    for drawn in axes.lines if not series.is_series else ():
        drawn.set(linestyle=":", linewidth=0.9)
    _scale(axes, series, frame[series.y])
    mark = panel.ticks if series.is_series else panel.kinds
    mark(frame[series.x].tolist(), series.x_text)  # behind the scale, which sets ticks of its own
    axes.set(xlabel=series.x_label, ylabel=y_label)
    xs, ys = ([end[axis] for end in ends.values()] for axis in (0, 1))
    panel.label_ends(xs, ys, list(ends), [looks[label].colour for label in ends])


def _scale(axes: Axes, series: Series, values: pd.Series) -> None:
    if series.log_x:
        axes.set_xscale("log")
    if series.log_y:
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0) if _few_decades(values) else (1.0,)))
    else:
        axes.yaxis.set_major_locator(MaxNLocator(5))
    if series.y_text is not None:
        text = series.y_text
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: text(value)))
        axes.yaxis.set_minor_formatter(FuncFormatter(lambda value, _: ""))
    axes.margins(x=0.06, y=0.1)
    axes.grid(axis="x", visible=False)


def best_at_the_ends(frame: pd.DataFrame, series: Series, higher: bool, said: Callable[[float], str]) -> str:
    """Which lines lead at the smallest and at the largest x; ``said`` writes an x with its unit."""
    first, last = frame[series.x].min(), frame[series.x].max()
    low = leading(frame[frame[series.x] == first], series.y, higher)
    high = leading(frame[frame[series.x] == last], series.y, higher)
    best = "highest" if higher else "lowest"
    if low.names == high.names:
        return f"{low.who} {best} at {said(first)} ({low.text}) and at {said(last)} ({high.text})"
    return f"{low.who} {best} at {said(first)} ({low.text}), {high.who} at {said(last)} ({high.text})"


def line_views(
    frame: pd.DataFrame,
    draw: Callable[[Panel, pd.DataFrame], str],
    facet: Sequence[str],
    series: Series,
    among: Sequence[str] = (),
) -> list[View]:
    """Views of the groups by ``facet`` in which some line has two points; rows that are alone are counted, not drawn.

    Rows form a line when nothing but ``series.x`` and ``among`` tells them apart.
    """
    lines = []
    for key, group in frame[frame[series.x].notna()].groupby(list(facet), sort=False):
        rows = labelled(group.reset_index(drop=True), [series.x, *among])
        joined = rows.groupby("label")[series.x].transform("nunique") > 1
        alone = int((~joined).sum())
        if joined.any():
            where = " · ".join(map(str, key)) + (f" · {alone} {_ALONE[alone == 1]} left out" if alone else "")
            drawn = labelled(rows[joined].reset_index(drop=True), [series.x, *among])  # fewer rows need fewer words
            drawn = shortened(drawn)
            length = int(drawn.label.str.len().max())
            lines.append(View(where, of_rows(draw, drawn), drawn.label.nunique(), name_length=length))
    return lines


_ALONE = ("rows that form no line", "row that forms no line")


def _few_decades(values: pd.Series) -> bool:
    return bool(values.max() < 50 * values.min())
