"""Labels beside the things they name, in place of a legend; no label covers another."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.text import Annotation, Text

from harness.figures.style import MUTED

Floats = npt.NDArray[np.float64]

_RINGS = (8, 15, 24, 34, 46, 60, 76)
"""Distances between a data point and its label, in typographic points."""
_ANGLES = tuple(np.deg2rad([0, 30, -30, 90, -90, 60, -60, 150, -150, 180, 120, -120]))
_GAP = 0.035
"""Between the axes and labels to their right, as a share of the axes' width."""
_COVERED = 4.0
"""Square pixels that a label may share with something else before it is left out."""
_FEW = 1
"""So many labels are written in any case."""
_LEADER = 15
"""At this distance or more, a thin line joins label and point."""


def beside_points(
    axes: Axes,
    xs: Sequence[float],
    ys: Sequence[float],
    texts: Sequence[str],
    spans: Sequence[tuple[float, float]] = (),
) -> None:
    """Write each text at the nearest place beside its point where it covers no point and no other text; '' is no text.

    ``spans`` are the vertical error bars, which the texts do not cover either. A text without such a place is left out,
    and the panel says how many. The search is greedy and starts with the
    most crowded points. Call it when the layout of the figure is final.
    """
    scale = axes.figure.dpi / 72
    points = axes.transData.transform(np.column_stack([np.asarray(xs, float), np.asarray(ys, float)]))
    taken = _squares(axes, xs, ys, 5 * scale) + [text.get_window_extent().extents for text in axes.texts]
    for x, (low, high) in zip(xs, spans, strict=False):
        (left, bottom), (_, top) = axes.transData.transform([(x, low), (x, high)])
        if np.isfinite(bottom + top):
            taken.append((left - 2, bottom, left + 2, top))
    inside = axes.get_window_extent()
    gaps = np.hypot(*(points[:, None] - points[None]).transpose(2, 0, 1))
    unnamed = 0
    for i in np.argsort(np.sort(gaps, axis=1)[:, :4].sum(axis=1), kind="stable"):
        if not texts[i]:
            continue
        text = axes.annotate(texts[i], (xs[i], ys[i]), (0, 0), textcoords="offset points", fontsize=9)
        size = text.get_window_extent()
        boxes, rings = _places(points[i], size.width, size.height, scale)
        badness = _badness(boxes, np.array(taken), np.array(inside.extents))
        best = int(np.argmin(badness + 1e-3 * rings))
        if badness[best] > _COVERED and len(xs) > _FEW:
            text.remove()
            unnamed += 1
            continue
        box, ring = boxes[best], rings[best]
        taken.append(tuple(box))
        text.set_position(tuple((box[:2] - points[i]) / scale))
        if ring >= _LEADER:
            end = np.clip(points[i], box[:2], box[2:])
            (x0, y0), (x1, y1) = axes.transData.inverted().transform([points[i], end])
            axes.plot([x0, x1], [y0, y1], color=MUTED, lw=0.6, zorder=1, scalex=False, scaley=False)
    if unnamed:
        _in_a_corner(axes, f"{unnamed} points have no room for a name", np.array(taken))


def _in_a_corner(axes: Axes, text: str, taken: Floats) -> None:
    """Write ``text`` in the corner where it covers the least of the boxes ``taken``."""
    corners = [
        axes.annotate(
            text, (x, y), (0, 0), xycoords="axes fraction", textcoords="offset points", fontsize=8, color=MUTED,
            ha="right" if x else "left", va="top" if y else "bottom",
        )
        for x in (1, 0)
        for y in (0, 1)
    ]  # fmt: skip
    boxes = np.array([corner.get_window_extent().extents for corner in corners])
    best = int(np.argmin(_badness(boxes, taken, np.array(axes.get_window_extent().extents))))
    for place, corner in enumerate(corners):
        if place != best:
            corner.remove()


def _squares(axes: Axes, xs: Sequence[float], ys: Sequence[float], half: float) -> list[Any]:
    """Boxes around the points that are drawn, ``half`` pixels to each side."""
    points = axes.transData.transform(np.column_stack([np.asarray(xs, float), np.asarray(ys, float)]))
    return [(x - half, y - half, x + half, y + half) for x, y in points if np.isfinite(x + y)]


def _places(point: Floats, width: float, height: float, scale: float) -> tuple[Floats, Floats]:
    """Boxes around ``point`` and their distance from it in points: to the right first, then further out."""
    rings, angles = np.repeat(_RINGS, len(_ANGLES)).astype(float), np.tile(_ANGLES, len(_RINGS))
    dx, dy = np.cos(angles), np.sin(angles)
    x = point[0] + rings * scale * dx - width * (1 - dx) / 2
    y = point[1] + rings * scale * dy - height * (1 - dy) / 2
    return np.column_stack([x, y, x + width, y + height]), rings


def _badness(boxes: Floats, taken: Floats, inside: Floats) -> Floats:
    """Square pixels of each of ``boxes`` that cover one of ``taken`` or lie outside of ``inside``."""
    covered: Floats = _overlap(boxes[:, None], taken[None]).sum(axis=1)
    return covered + _overlap(boxes, boxes) - _overlap(boxes, inside)


def _overlap(a: Floats, b: Floats) -> Floats:
    """Square pixels that boxes (left, bottom, right, top) share."""
    sides = np.minimum(a[..., 2:], b[..., 2:]) - np.maximum(a[..., :2], b[..., :2])
    width, height = np.moveaxis(sides.clip(min=0), -1, 0)
    shared: Floats = width * height
    return shared


def at_ends(
    axes: Axes, xs: Sequence[float], ys: Sequence[float], texts: Sequence[str], colours: Sequence[str]
) -> list[Annotation]:
    """Write each text to the right of ``axes`` and join it to its ``(x, y)`` by a line; texts may still overlap.

    Call it before the layout, which then keeps room for the texts.
    """
    return [
        axes.annotate(
            text,
            (x, y),
            (1 + _GAP, y),
            textcoords=axes.get_yaxis_transform(),
            va="center",
            fontsize=9,
            annotation_clip=False,
            arrowprops={"arrowstyle": "-", "color": colour, "lw": 0.8, "shrinkA": 1, "shrinkB": 0, "relpos": (0, 0.5)},
        )
        for x, y, text, colour in zip(xs, ys, texts, colours, strict=True)
    ]


def move_apart(axes: Axes, ends: Sequence[Annotation], step: float = 12.5) -> None:
    """Move labels of :func:`at_ends` up and down until they are ``step`` points apart, within the axes' height."""
    scale = axes.figure.dpi / 72
    low, high = axes.get_window_extent().intervaly / scale
    step = min(step, (high - low) / max(1, len(ends) - 1))
    wanted = np.array([axes.transData.transform(end.xy)[1] / scale for end in ends])
    order = np.argsort(wanted, kind="stable")
    back = axes.transData.inverted()
    for index, place in zip(order, spread(wanted[order], step, low, high), strict=True):
        ends[index].set_position((1 + _GAP, back.transform((0, place * scale))[1]))


def on_line(axes: Axes, y: float, text: str, xs: Sequence[float], ys: Sequence[float]) -> None:
    """Write ``text`` above or below the line at ``y``, at the end where it covers the least of points and texts."""
    scale = axes.figure.dpi / 72
    taken = _squares(axes, xs, ys, 6 * scale) + [other.get_window_extent().extents for other in axes.texts]
    inside = np.array(axes.get_window_extent().extents)
    best: tuple[float, Text] | None = None
    for side, align in ((0.995, "right"), (0.005, "left")):
        for vertical in ("bottom", "top"):
            label = axes.text(
                side, y, text, color=MUTED, fontsize=9, ha=align, va=vertical, transform=axes.get_yaxis_transform()
            )
            box = np.array([label.get_window_extent().extents])
            badness = float(_badness(box, np.array(taken), inside)[0])
            if best is not None and badness >= best[0]:
                label.remove()
                continue
            if best is not None:
                best[1].remove()
            best = badness, label


def thin_out(axes: Axes) -> None:
    """Hide the labels of the x axis that would cover the one to their left; the last one stays."""
    shown = [label for label in axes.get_xticklabels() if label.get_text()]
    boxes = [label.get_window_extent() for label in shown]
    order = [*range(len(shown))[-1:], *range(len(shown))[:-1]]
    clear: list[Any] = []
    for index in order:
        if any(boxes[index].x0 < other.x1 + _APART and other.x0 < boxes[index].x1 + _APART for other in clear):
            shown[index].set_visible(False)
        else:
            clear.append(boxes[index])


_APART = 4.0
"""Pixels between two tick labels."""


def spread(wanted: Sequence[float] | npt.NDArray[Any], step: float, low: float, high: float) -> list[float]:
    """Positions in [``low``, ``high``], at least ``step`` apart, nearest to ``wanted`` (ascending) by least squares.

    Isotonic regression by pooling adjacent violators (Barlow et al. 1972), on positions less their rank's share.
    """
    blocks: list[tuple[float, int]] = []
    for rank, value in enumerate(wanted):
        total, count = float(value) - rank * step, 1
        while blocks and blocks[-1][0] / blocks[-1][1] > total / count:
            before = blocks.pop()
            total, count = total + before[0], count + before[1]
        blocks.append((total, count))
    levels = [total / count for total, count in blocks for _ in range(count)]
    highest = high - (len(levels) - 1) * step
    return [float(np.clip(level, low, highest)) + rank * step for rank, level in enumerate(levels)]
