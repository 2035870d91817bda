"""How fast does each method train?"""

from __future__ import annotations

import pandas as pd
from matplotlib.figure import Figure

from harness.figures.bars import dots
from harness.figures.findings import FULL
from harness.figures.panels import Nothing, Panel, Tables, extreme, small_multiples, why_empty
from harness.figures.style import count_text
from harness.judgement.statistics import select
from harness.judgement.timings import UNSTEADY, why_untimed
from harness.results.selection import CELL, SETTING

_UNMEASURED = "the speed of training was not measured in any trial"


def draw(tables: Tables) -> Figure | Nothing:
    """Median tokens per second of the training steps; the thick line spans the seeds."""
    chosen = select(tables["trials"])
    chosen = chosen[chosen.train_tokens_per_s > 0]
    if chosen.empty:
        return Nothing(why_empty(tables["trials"], why_untimed(tables["trials"], _UNMEASURED)))
    speed = chosen.groupby([*CELL, *SETTING], dropna=False, sort=False).train_tokens_per_s
    frame = speed.agg(value="median", low="min", high="max").reset_index()
    spread = chosen.train_step_s_p95 / chosen.train_step_s_median
    frame["spread"] = (
        spread.groupby([chosen[name] for name in [*CELL, *SETTING]], dropna=False, sort=False).max().to_numpy()
    )
    return small_multiples(frame, _draw, height=lambda rows: 0.9 + 0.29 * rows)


def _draw(panel: Panel, frame: pd.DataFrame) -> str:
    frame = dots(panel, frame, count_text)
    panel.axes.set_xlabel("Training tokens per second, padding left out\n(thick line: range over seeds)")
    return _finding(frame)


def _finding(frame: pd.DataFrame) -> str:
    unsteady = frame[frame.spread > UNSTEADY]
    if len(unsteady):
        worst = extreme(unsteady, "spread", largest=True)
        return (
            f"These speeds do not show which trains faster: the 95th percentile of a step of {worst.label} is "
            f"{worst.spread:.1f} times the median"
        )
    fastest = extreme(frame, "value", largest=True)
    if len(frame) == 1:
        return f"{fastest.label} trains on {count_text(fastest.value)} tokens per second"
    full = frame[frame.method == FULL]
    speed = f"{fastest.label} trains fastest, {count_text(fastest.value)} tokens per second"
    if full.empty:
        return speed
    if fastest.method == FULL:
        slowest = extreme(frame, "value", largest=False)
        return f"{speed}; {slowest.label} is the slowest at {slowest.value / fastest.value:.2f} times that"
    return f"{speed}: {fastest.value / full.value.max():.2f} times as fast as full fine-tuning"
