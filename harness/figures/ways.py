"""Pictures of the execution study: what each way to train is worth, added to the usual one and taken from them all."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from harness.figures import published
from harness.figures.labels import beside_points
from harness.figures.style import COLOURS, MUTED, style

_LINE = 0.36
"""Inches of a row."""
_TICKS = [factor * 2.0**power for power in range(-6, 7) for factor in (1.0, 1.4)]


class Factor(Protocol):
    """A speed over that of the baseline, with its interval; both ends are NaN with a single repeat."""

    @property
    def label(self) -> str: ...
    @property
    def value(self) -> float: ...
    @property
    def low(self) -> float: ...
    @property
    def high(self) -> float: ...


def plus_and_minus(plus: Sequence[Factor], minus: Sequence[Factor], finding: str) -> Figure:
    """Factors of speed by row: ways added one by one, then each taken out of all, then published factors in grey."""
    others = _published()
    blocks: list[tuple[str, Sequence[Factor], str, bool]] = [
        ("Added one by one", plus, COLOURS["blue"], True),
        ("All but one", minus, COLOURS["red"], False),
        ("Published: 8B on one H100", others, MUTED, False),
    ]
    blocks = [block for block in blocks if block[1]]
    rows = sum(len(factors) + 1 for _, factors, _, _ in blocks)
    with style():
        fig: Figure
        fig, axes = plt.subplots(figsize=(7.5, _LINE * rows + 1.4), layout="constrained")
        place = 0
        names: dict[int, str] = {}
        for name, factors, colour, joined in blocks:
            axes.annotate(name, (0, place), (4, 0), xycoords=axes.get_yaxis_transform(), textcoords="offset points",
                          va="center", fontweight="bold", fontsize=9, color=colour)  # fmt: skip
            _block(axes, place + 1, factors, colour, joined)
            names |= {place + 1 + row: factor.label for row, factor in enumerate(factors)}
            place += len(factors) + 1
        axes.set_yticks([*names], [*names.values()])
        axes.axvline(1, color=MUTED, lw=0.8, zorder=0)
        axes.set_ylim(place - 0.4, -0.6)
        axes.set_xscale("log", base=2)
        low, high = axes.get_xlim()
        axes.set_xlim(low / 1.05, high * 1.05)
        axes.set_xticks([tick for tick in _TICKS if low / 1.05 <= tick <= high * 1.05])
        axes.xaxis.set_major_formatter("{x:.2g}")
        axes.minorticks_off()
        axes.set_xlabel("Training tokens per second over the baseline\n(line: 95 % interval over repeats)")
        axes.set_title(textwrap.fill(finding, 62))
    return fig


@dataclass(frozen=True)
class _Anchor:
    label: str
    value: float
    low: float = math.nan
    high: float = math.nan


def _published() -> list[_Anchor]:
    """Speeds of one source over the first of them, without an uncertainty."""
    anchors = published.read("throughput_anchors", source="soup_h100", metric="tokens_per_s")
    names = anchors.setting.str.partition(";")[0].str.replace("_", " ").str.replace("+", " + ")
    return [_Anchor(name, value / anchors.value.iloc[0]) for name, value in zip(names, anchors.value, strict=True)]


def _block(axes: Axes, first: int, factors: Sequence[Factor], colour: str, joined: bool) -> None:
    """Points with their intervals in rows from ``first`` on; ``joined`` where each row builds on the one before."""
    for place, factor in enumerate(factors, start=first):
        if not math.isnan(factor.low):
            axes.plot([factor.low, factor.high], [place, place], color=colour, lw=2, solid_capstyle="butt")
        axes.plot(factor.value, place, "o", color=colour)
        axes.annotate(f"{factor.value:.2f}", (factor.value, place), (0, 6), textcoords="offset points", ha="center",
                      fontsize=8, color=colour)  # fmt: skip
    if joined:
        axes.plot(
            [factor.value for factor in factors], range(first, first + len(factors)), color=colour, lw=0.8, alpha=0.4
        )


def speed_and_memory(table: pd.DataFrame) -> Figure:
    """What a forward pass keeps against the speed, both over the first row; ``table`` is indexed by the names of ways.

    Its columns are ``tokens_per_s`` and ``activations_bytes``; rows without a speed are left out.
    """
    known = table.dropna(subset=["tokens_per_s", "activations_bytes"])
    speed = known.tokens_per_s / known.tokens_per_s.iloc[0]
    kept = known.activations_bytes / known.activations_bytes.iloc[0]
    with style():
        fig: Figure
        fig, axes = plt.subplots(figsize=(7.5, 4.2), layout="constrained")
        axes.plot(speed, kept, "o", color=COLOURS["blue"])
        axes.set_xlabel("Training tokens per second over the baseline")
        axes.set_ylabel("Activations over the baseline")
        axes.set_ylim(0, None)
        axes.set_title(f"‘{kept.idxmin()}’ keeps {kept.min():.0%} of the baseline’s activations")
        axes.margins(x=0.3, y=0.12)
        fig.canvas.draw()
        beside_points(axes, list(speed), list(kept), list(known.index))
    return fig
