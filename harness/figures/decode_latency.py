"""How fast does each tuned model answer?"""

from __future__ import annotations

import pandas as pd
from matplotlib.figure import Figure

from harness.figures.bars import dots
from harness.figures.panels import Panel, Tables, extreme, nothing, small_multiples, why_empty
from harness.figures.style import seconds_text
from harness.results.baseline import BASELINE
from harness.results.files import where
from harness.results.stats import CELL, select

_ANSWERS = {"decode": "generated token", "predict": "prediction"}


def draw(tables: Tables) -> Figure:
    """Median seconds per generated token (decoders) or prediction (classifiers), batch 1; the line ends at the p95."""
    chosen = select(tables["trials"])[["trial_id", *CELL]].rename(columns={"batch_size": "train_batch_size"})
    rows = where(tables, "latency", chosen.trial_id, batch_size=1)
    rows = rows[rows.phase.isin(_ANSWERS) & rows.p50_s.notna()].merge(chosen, on="trial_id")
    if rows.empty:
        return nothing(why_empty(tables["trials"], "no latency at batch size 1 was measured in any trial"))
    keys = ["task", "model", "method", "baseline_args", "objective", "dtype", "train_examples", "variant", "phase"]
    frame = rows.groupby(keys, sort=False).agg(value=("p50_s", "median"), high=("p95_s", "median")).reset_index()
    frame = frame.assign(low=frame.value, high=frame.high.fillna(frame.value))
    return small_multiples(frame, _draw, height=lambda count: 0.9 + 0.29 * count)


def _draw(panel: Panel, frame: pd.DataFrame) -> str:
    dots(panel, frame, seconds_text, ascending=False)
    what = _ANSWERS[frame.phase.iloc[0]]
    panel.axes.set_xlabel(f"Median time per {what} at batch size 1\n(thick line: to the 95th percentile)")
    slowest, fastest = extreme(frame, "value", largest=True), extreme(frame, "value", largest=False)
    if len(frame) == 1:
        return f"{slowest.label} takes {seconds_text(slowest.value)} per {what}"
    base = frame[frame.method == BASELINE]
    if base.empty or slowest.method == BASELINE:
        return f"{fastest.label} answers fastest: {seconds_text(fastest.value)} per {what}"
    extra = slowest.value / base.value.min() - 1
    return f"{slowest.label} answers slowest: {100 * extra:.0f} % more time per {what} than the untrained model"
