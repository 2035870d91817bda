"""What is each way to train worth, added to the usual one and taken from them all?"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial

from matplotlib.figure import Figure

from harness.figures import published
from harness.figures.layout import Panel, View, compose
from harness.figures.panels import Nothing, Tables, extreme
from harness.figures.published_panels import dots_view
from harness.figures.style import COLOURS, MUTED
from harness.figures.ways_rows import NO_STUDY, of_study, place
from harness.judgement.ways import Factor, added, left_out, sentence

_X = "Training tokens per second over the baseline\n(line: 95 % interval over repeats)"


def draw(tables: Tables) -> Figure | Nothing:
    """Factors of speed: blue where fields are added one by one, red for all but one; a panel per model and method."""
    found = []
    for rows in of_study(tables):
        plus, minus = added(rows), left_out(rows)
        if len(plus) + len(minus) > 1:
            longest = max(len(factor.label) for factor in (*plus, *minus))
            size = len(plus) + len(minus)
            found.append(View(place(rows), partial(_draw, plus=plus, minus=minus), size, name_length=longest))
    if not found:
        return Nothing(NO_STUDY if not of_study(tables) else "no way but the usual one was active")
    return compose([*found, _soup()], height=lambda rows: 1.1 + 0.3 * rows)


def _draw(panel: Panel, plus: Sequence[Factor], minus: Sequence[Factor]) -> str:
    axes = panel.axes
    places = list(range(len(plus) + len(minus)))[::-1]
    for at, (factor, colour) in zip(
        places, [*((one, COLOURS["blue"]) for one in plus), *((one, COLOURS["red"]) for one in minus)], strict=True
    ):
        if not math.isnan(factor.low):
            axes.plot([factor.low, factor.high], [at, at], color=colour, alpha=0.4, lw=6, solid_capstyle="butt")
        axes.plot(factor.value, at, "o", color=colour, markersize=5)
        axes.text(1.01, at, f"{factor.value:.2f}", fontsize=8.5, color=MUTED, va="center",
                  transform=axes.get_yaxis_transform())  # fmt: skip
    axes.plot([one.value for one in plus], places[: len(plus)], color=COLOURS["blue"], lw=0.8, alpha=0.4)
    axes.set_yticks(places, [factor.label for factor in (*plus, *minus)])
    axes.set_ylim(-0.6, len(places) - 0.4)
    axes.axvline(1, color=MUTED, ls="--", lw=1, zorder=0.5)
    axes.set_xscale("log")
    low, high = axes.get_xlim()
    panel.ticks([tick for tick in _TICKS if low <= tick <= high], lambda factor: f"{factor:.2g}")
    axes.grid(axis="y", visible=False)
    axes.set_xlabel(_X)
    return sentence(plus)


#: So close that every panel shows at least two; where they are too many for its width, some are left out.
_TICKS = (0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1, 1.1, 1.2, 1.4, 1.6, 2, 2.5, 3, 4, 6, 8, 12)


def _soup() -> View:
    """Speeds of one source over the first of them, which have no interval there."""
    frame = published.read("throughput_anchors", source="soup_h100", metric="tokens_per_s")
    name = frame.setting.str.partition(";")[0].str.replace("_", " ").str.replace("+", " + ")
    frame = frame.assign(label=name, value=frame.value / frame.value.iloc[0], error=math.nan)
    best = extreme(frame, "value", largest=True)
    said = f"{best.label} trains {best.value:.2f} times as fast as {frame.label.iloc[0]}"
    return dots_view(frame, "Llama-3.1-8B on one H100", "Training tokens per second over the first row", said)
