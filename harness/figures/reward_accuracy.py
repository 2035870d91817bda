"""How often does each reward model order a pair as people did?"""

from __future__ import annotations

import pandas as pd
from matplotlib.figure import Figure

from harness.figures import published
from harness.figures.findings import metric_label
from harness.figures.intervals import draw_intervals
from harness.figures.panels import Nothing, Panel, Tables, View, small_multiples, why_empty
from harness.figures.published_panels import dots_view
from harness.figures.style import MUTED
from harness.figures.words import leading
from harness.judgement.statistics import aggregate

_CHANCE = 0.5


def draw(tables: Tables) -> Figure | Nothing:
    """A dot and a 95 % interval per reward model; the dashed line is chance."""
    chosen = aggregate(tables)
    scored = chosen[(chosen.objective == "reward") & chosen.test_score.notna()]
    if scored.empty:
        return Nothing(why_empty(tables["trials"], "no reward model was scored on a test split"))
    return small_multiples(scored, _draw, height=lambda rows: 1.0 + 0.29 * rows, published=[_yuan()])


def _draw(panel: Panel, frame: pd.DataFrame) -> str:
    frame = draw_intervals(panel, frame)
    panel.axes.axvline(_CHANCE, color=MUTED, ls="--", lw=1, zorder=0.5)
    panel.axes.set_xlabel(f"{metric_label(frame)}\ndashed: chance")
    best = leading(frame, "test_score", bool(frame.higher_is_better.iloc[0]))
    above = int((frame.ci_low > _CHANCE).sum())
    top = (
        f"{best.who} most accurate: {best.text}; " if len(frame) > 1 else f"{frame.label.iloc[0]} orders {best.text}; "
    )
    return f"{top}{above} of {len(frame)} lie above chance with their interval"


def _yuan() -> View:
    frame = published.read("yuan2023_rrhf", table="table5", metric="pair_accuracy_percent")
    frame = frame.assign(label=frame.model.str.replace("_", " ")).sort_values("value", ascending=False, kind="stable")
    trained = frame[frame.method == "alpaca_rrhf_dp"].value.item()
    best = frame.value.max()
    said = f"As a reward model, RRHF’s policy orders {trained:.1f} % of the pairs, a trained reward model {best:.1f} %"
    return dots_view(frame, "HH, pairs ordered correctly", "pairs, %", said)
