"""How far is the estimated memory from the measured one?"""

from __future__ import annotations

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullFormatter

from harness.figures.panels import Nothing, Panel, Tables, compose, rows, views, why_empty
from harness.figures.style import MUTED, bytes_text, look, percent_text

PLAN = "plan"
"""The optional table with ``trial_id`` and ``estimated_bytes``, from a sweep's plan."""


def draw(tables: Tables) -> Figure | Nothing:
    """Measured peak of each method against the plan's estimate, medians over its trials; a panel per kind of device."""
    trials = tables["trials"]
    plan = tables.get(PLAN)
    if plan is None or plan.empty:
        return Nothing("these tables stand alone: the estimates are in the plan of the sweep's folder")
    both = trials[(trials.status == "ok") & (trials.peak_train_bytes > 0)].merge(plan, on="trial_id")
    both = both[both.estimated_bytes > 0]
    if both.empty:
        return Nothing(why_empty(trials, "no trial has both an estimated and a measured peak of training"))
    both = both.assign(kind=both.device.str.partition(":")[0].map(lambda kind: _KINDS.get(kind, kind)))
    cells = both.groupby(["kind", "model", "method"], sort=False)
    medians = cells[["estimated_bytes", "peak_train_bytes"]].median().reset_index()
    return compose([*views(medians, _draw, ["kind"])], height=lambda _rows: 4.4)


_KINDS = {"cpu": "cpu: resident memory, the interpreter and its libraries included", "cuda": "cuda: allocated memory"}


def _draw(panel: Panel, frame: pd.DataFrame) -> str:
    axes = panel.axes
    for row in rows(frame):
        one = look(row.method)
        axes.plot(row.estimated_bytes, row.peak_train_bytes, one.marker, color=one.colour, markersize=7)
    ends = [0.8 * frame[["estimated_bytes", "peak_train_bytes"]].min().min()]
    ends.append(1.25 * frame[["estimated_bytes", "peak_train_bytes"]].max().max())
    axes.plot(ends, ends, color=MUTED, lw=1, ls="--", zorder=0.5)
    axes.set(xscale="log", yscale="log", xlabel="Estimated peak (log scale; dashed: as estimated)",
             ylabel="Measured peak (log scale)")  # fmt: skip
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(FuncFormatter(lambda value, _: bytes_text(value)))
        axis.set_minor_formatter(NullFormatter())
    several = frame.model.nunique() > 1
    names = frame.method + (" · " + frame.model if several else "")
    panel.label_points(frame.estimated_bytes.tolist(), frame.peak_train_bytes.tolist(), names.tolist())
    ratio = frame.peak_train_bytes / frame.estimated_bytes
    return (
        f"The measured peak is {percent_text(ratio.min())} to {percent_text(ratio.max())} of the estimate, "
        f"in the median {percent_text(ratio.median())}"
    )
