"""Labels beside the things they name, in place of a legend; no label covers another."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.text import Annotation

from harness.figures.style import MUTED

Floats = npt.NDArray[np.float64]

_RINGS = (8, 15, 24, 34, 46, 60, 76)
"""Distances between a data point and its label, in typographic points."""
_ANGLES = tuple(np.deg2rad([0, 30, -30, 90, -90, 60, -60, 150, -150, 180, 120, -120]))
_LEADER = 15
"""At this distance or more, a thin line joins label and point."""


def beside_points(
    axes: Axes,
    xs: Sequence[float],
    ys: Sequence[float],
    texts: Sequence[str],
    spans: Sequence[tuple[float, float]] = (),
) -> None:
    """Write each text at the nearest place beside its point where it covers no point and no other text.

    ``spans`` are the vertical error bars, which the texts do not cover either. The search is greedy and starts with the
    most crowded points. Call it when the layout of the figure is final.
    """
    figure = axes.figure
    scale = figure.dpi / 72
    points = axes.transData.transform(np.column_stack([np.asarray(xs, float), np.asarray(ys, float)]))
    taken = [(x - 5 * scale, y - 5 * scale, x + 5 * scale, y + 5 * scale) for x, y in points]
    for x, (low, high) in zip(xs, spans, strict=False):
        (left, bottom), (_, top) = axes.transData.transform([(x, low), (x, high)])
        if np.isfinite(bottom + top):
            taken.append((left - 2, bottom, left + 2, top))
    inside = axes.get_window_extent()
    gaps = np.hypot(*(points[:, None] - points[None]).transpose(2, 0, 1))
    for i in np.argsort(np.sort(gaps, axis=1)[:, :4].sum(axis=1)):
        text = axes.annotate(texts[i], (xs[i], ys[i]), (0, 0), textcoords="offset points", fontsize=9)
        size = text.get_window_extent()
        boxes, rings = _places(points[i], size.width, size.height, scale)
        best = int(np.argmin(_badness(boxes, np.array(taken), np.array(inside.extents)) + 1e-3 * rings))
        box, ring = boxes[best], rings[best]
        taken.append(tuple(box))
        text.set_position(tuple((box[:2] - points[i]) / scale))
        if ring >= _LEADER:
            end = np.clip(points[i], box[:2], box[2:])
            (x0, y0), (x1, y1) = axes.transData.inverted().transform([points[i], end])
            axes.plot([x0, x1], [y0, y1], color=MUTED, lw=0.6, zorder=1, scalex=False, scaley=False)


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
    axes: Axes, x: float, ys: Sequence[float], texts: Sequence[str], colours: Sequence[str]
) -> list[Annotation]:
    """Write each text to the right of ``(x, y)`` and join the two by a line; texts may still overlap.

    Call it before the layout, which then keeps room for the texts.
    """
    return [
        axes.annotate(
            text,
            (x, y),
            (14, 0),
            textcoords="offset points",
            va="center",
            fontsize=9,
            annotation_clip=False,
            arrowprops={"arrowstyle": "-", "color": colour, "lw": 0.8, "shrinkA": 1, "shrinkB": 0, "relpos": (0, 0.5)},
        )
        for y, text, colour in zip(ys, texts, colours, strict=True)
    ]


def move_apart(axes: Axes, ends: Sequence[Annotation], step: float = 12.5) -> None:
    """Move labels of :func:`at_ends` up and down until they are ``step`` points apart, within the axes' height."""
    scale = axes.figure.dpi / 72
    low, high = axes.get_window_extent().intervaly / scale
    step = min(step, (high - low) / max(1, len(ends) - 1))
    wanted = np.array([axes.transData.transform(end.xy)[1] / scale for end in ends])
    order = np.argsort(wanted, kind="stable")
    for index, place in zip(order, spread(wanted[order], step, low, high), strict=True):
        ends[index].set_position((14, place - wanted[index]))


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
