"""How far is the estimated memory from the measured one?"""

from __future__ import annotations

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullFormatter

from harness.figures.panels import Nothing, Panel, Tables, compose, rows, views, why_empty
from harness.figures.style import MUTED, bytes_text, look, percent_text

_COUNTED = ["weights_bytes", "gradients_bytes", "optimizer_bytes", "activations_bytes"]


def draw(tables: Tables) -> Figure | Nothing:
    """Measured bytes of each method against the plan's estimate, medians over its trials; a panel per kind of device.

    On an accelerator that is the allocated peak. The peak of a process on a CPU holds the interpreter and its
    libraries, which no estimate knows, so there the tensors count that training holds.
    """
    trials = tables["trials"]
    trained = trials[(trials.status == "ok") & (trials.peak_train_bytes > 0) & (trials.estimated_bytes > 0)]
    counted = trained[_COUNTED].fillna(0).sum(axis=1)
    on_cpu = trained.device.str.startswith("cpu")
    both = trained.assign(measured=trained.peak_train_bytes.astype(float).where(~on_cpu, counted.astype(float)))
    both = both[both.measured > 0]
    if both.empty:
        return Nothing(why_empty(trials, "no trial has both an estimated and a measured peak of training"))
    both = both.assign(kind=both.device.str.partition(":")[0].map(lambda kind: _KINDS.get(kind, kind)))
    cells = both.groupby(["kind", "model", "method"], sort=False)
    medians = cells[["estimated_bytes", "measured"]].median().reset_index()
    return compose([*views(medians, _draw, ["kind"])], height=lambda _rows: 4.4)


_KINDS = {"cpu": "cpu: tensors counted, without temporaries", "cuda": "cuda: allocated memory"}


def _draw(panel: Panel, frame: pd.DataFrame) -> str:
    axes = panel.axes
    for row in rows(frame):
        one = look(row.method)
        axes.plot(row.estimated_bytes, row.measured, one.marker, color=one.colour, markersize=7)
    ends = [0.8 * frame[["estimated_bytes", "measured"]].min().min()]
    ends.append(1.25 * frame[["estimated_bytes", "measured"]].max().max())
    axes.plot(ends, ends, color=MUTED, lw=1, ls="--", zorder=0.5)
    axes.set(xscale="log", yscale="log", xlabel="Estimated peak (log scale; dashed: as estimated)",
             ylabel="Measured (log scale)")  # fmt: skip
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(FuncFormatter(lambda value, _: bytes_text(value)))
        axis.set_minor_formatter(NullFormatter())
    several = frame.model.nunique() > 1
    names = frame.method + (" · " + frame.model if several else "")
    panel.label_points(frame.estimated_bytes.tolist(), frame.measured.tolist(), names.tolist())
    ratio = frame.measured / frame.estimated_bytes
    return (
        f"What was measured is {percent_text(ratio.min())} to {percent_text(ratio.max())} of the estimate, "
        f"in the median {percent_text(ratio.median())}"
    )
