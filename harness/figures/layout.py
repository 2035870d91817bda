"""Where things stand in a figure: panels in a grid, findings that fit above them, labels that cover nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.text import Text

from harness import plain
from harness.figures import labels
from harness.figures.style import INK, MUTED, RC

#: Inches: the width of the report's column.
WIDTH = 9.6

_PUBLISHED = "#f4f1ea"
"""The background of a panel that shows numbers of others."""

_LEVEL = 4
"""More names than this below an axis stand aslant."""

_ROUNDS = 4
"""How often a figure is laid out at most."""

_MARGIN = 7.0
"""Pixels between a finding and the edge of its column."""


class Panel:
    """One panel: its axes, and the labels that wait until the layout is final."""

    def __init__(self, axes: Axes) -> None:
        self.axes = axes
        self._later: list[Callable[[], None]] = []

    def label_points(
        self,
        xs: Sequence[float],
        ys: Sequence[float],
        texts: Sequence[str],
        spans: Sequence[tuple[float, float]] = (),
    ) -> None:
        """Write each text beside its point, so that it covers no point, no other text and no error bar (``spans``)."""
        self._later.append(lambda: labels.beside_points(self.axes, xs, ys, texts, spans))

    def label_line(self, y: float, text: str, xs: Sequence[float], ys: Sequence[float]) -> None:
        """Write ``text`` at the end of the horizontal line at ``y`` where it covers the fewest of the points given."""
        self._later.insert(0, lambda: labels.on_line(self.axes, y, text, xs, ys))

    def label_ends(
        self, xs: Sequence[float], ys: Sequence[float], texts: Sequence[str], colours: Sequence[str]
    ) -> None:
        """Write each text to the right of the panel, joined to its line's end; texts that would overlap move apart."""
        ends = labels.at_ends(self.axes, xs, ys, texts, colours)
        self._later.append(lambda: labels.move_apart(self.axes, ends))

    def ticks(self, values: Sequence[float], text: Callable[[float], str]) -> None:
        """Ticks of the x axis at ``values`` alone, without those whose label would cover another."""
        self.axes.set_xticks(sorted(set(values)), [text(value) for value in sorted(set(values))])
        self.axes.minorticks_off()
        self._later.insert(0, lambda: labels.thin_out(self.axes))

    def kinds(self, values: Sequence[float], text: Callable[[float], str]) -> None:
        """Ticks of the x axis at ``values``, every one with its name, aslant where there are many."""
        places = sorted(set(values))
        aslant: dict[str, Any] = (
            {"rotation": 40, "ha": "right", "rotation_mode": "anchor"} if len(places) > _LEVEL else {}
        )
        self.axes.set_xticks(places, [text(value) for value in places], **aslant)

    def finish(self) -> None:
        """Place the labels."""
        for place in self._later:
            place()


@dataclass(frozen=True)
class View:
    """What one panel shows."""

    where: str
    """The line under the finding, such as 'trec · smollm2-135m'."""
    draw: Callable[[Panel], str]
    """Fills the panel and returns its finding for the title."""
    rows: int = 0
    """How many rows or lines it shows; the height of the panel may depend on it."""
    published: bool = False
    """Whether the numbers are those of a paper, not of these tables."""
    name_length: int = 0
    """Characters of the longest name beside the panel. Long names get a panel as wide as the figure."""


_LONG_NAME = 30


def compose(views: Sequence[View], height: Callable[[int], float] = lambda _rows: 4.2) -> Figure:
    """A figure with one panel per view; ``height`` gives the inches for a number of rows."""
    columns = 1 if len(views) == 1 or any(view.name_length > _LONG_NAME for view in views) else 2
    lines = [views[start : start + columns] for start in range(0, len(views), columns)]
    tall = [height(max(view.rows for view in line)) + 0.9 for line in lines]
    with look_of_figures():
        figure = Figure(figsize=(WIDTH, sum(tall)), layout=ConstrainedLayoutEngine(wspace=0.04, hspace=0.03))
        FigureCanvasAgg(figure)
        grid = figure.subplots(len(lines), columns, squeeze=False, height_ratios=tall)
        panels = [Panel(axes) for axes in grid.flat]
        heads = [_Head(panel.axes, view.draw(panel), view) for panel, view in zip(panels, views, strict=False)]
        for panel in panels[len(views) :]:
            panel.axes.remove()
        _legend(figure)
        figure.draw_without_rendering()
        edges = [min(head.left() for head in heads[column::columns]) for column in range(columns)]
        edges.append(figure.bbox.width + _MARGIN)
        for _ in range(_ROUNDS):  # a finding of two lines lowers its panel, which may break the label beside it
            changed = [head.fit(edges[at % columns], edges[at % columns + 1]) for at, head in enumerate(heads)]
            if not any(changed):
                break
            figure.draw_without_rendering()
        figure.set_layout_engine("none")
        for panel in panels[: len(views)]:
            panel.finish()
    return figure


class _Head:
    """What stands above a panel: its finding, and where it holds."""

    def __init__(self, axes: Axes, finding: str, view: View) -> None:
        self._axes = axes
        where = plain.line(view.where)
        if view.published:
            axes.set_facecolor(_PUBLISHED)
            where = f"published, not measured here: {where}"
        self._finding = finding
        self._font: dict[str, Any] = (
            {"fontweight": "normal", "color": MUTED} if view.published else {"fontweight": "bold"}
        )
        self._title = axes.set_title("", linespacing=1.25, **self._font)
        self._where = axes.annotate(
            "", (0, 1), (0, 6), xycoords="axes fraction", textcoords="offset points", color=MUTED, fontsize=9
        )
        self._place = where

    def left(self) -> float:
        """The left edge of the panel with its tick labels and axis label, in pixels."""
        box = self._axes.get_tightbbox()
        return 0.0 if box is None else float(box.x0)

    def fit(self, left: float, right: float) -> bool:
        """Break the lines so that they fit between two edges, and begin them at the left one; whether any changed."""
        below, beside = self._axes.xaxis.label, self._axes.yaxis.label
        texts = (self._title, self._where, below, beside)
        before = [text.get_text() for text in texts]
        box = self._axes.get_window_extent()
        start = max(left, _MARGIN)
        width = right - 2 * _MARGIN - start
        self._where.set_text(wrapped(self._where, self._place, width))
        scale = self._axes.figure.dpi / 72
        self._where.set_position(((start - box.x0) / scale, 6))
        pad = 20 + 11 * self._where.get_text().count("\n")
        self._axes.set_title(wrapped(self._title, self._finding, width), pad=pad, **self._font)
        self._title.set_x((start - box.x0) / box.width)
        middle = (box.x0 + box.x1) / 2
        below.set_text(_broken(below, 2 * min(middle - start, right - _MARGIN - middle)))
        beside.set_text(_broken(beside, box.height))
        return before != [text.get_text() for text in texts]


def wrapped(artist: Text, text: str, width: float) -> str:
    """``text`` in lines of at most ``width`` pixels, as ``artist`` would draw it; a longer word is broken."""
    figure: Any = artist.figure
    measure = figure.canvas.get_renderer().get_text_width_height_descent
    font = artist.get_fontproperties()

    def fits(line: str) -> bool:
        return bool(measure(line, font, False)[0] <= width)

    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if fits(longer):
            lines[-1] = longer
            continue
        lines += [""] if lines[-1] else []
        for letter in word:
            lines += [""] if lines[-1] and not fits(lines[-1] + letter) else []
            lines[-1] += letter
    return "\n".join(lines)


def _broken(artist: Text, width: float) -> str:
    """The lines of ``artist``, each in as many as it needs."""
    return "\n".join(wrapped(artist, line, width) for line in artist.get_text().split("\n"))


@contextmanager
def look_of_figures() -> Iterator[None]:
    """The theme of every figure. A dollar sign in a name is a dollar sign, so tick labels hold no mathematics."""
    with (
        sns.axes_style("ticks"),
        sns.plotting_context("paper", font_scale=1.08),
        mpl.rc_context({**RC, "text.parse_math": False}),
    ):
        yield


def _legend(figure: Figure) -> None:
    """Add one legend for all panels below the figure, if anything in them has a name for a legend."""
    entries: dict[str, Any] = {}
    for axes in figure.axes:
        handles, texts = axes.get_legend_handles_labels()
        entries |= dict(zip(texts, handles, strict=True))
    if entries:
        columns = min(6, len(entries), max(1, 110 // (max(map(len, entries)) + 6)))
        figure.legend(
            entries.values(), entries.keys(), loc="outside lower center", ncols=columns, labelcolor=INK, fontsize=9
        )
