"""How does the loss fall during training?"""

from __future__ import annotations

import pandas as pd
from matplotlib.figure import Figure

from harness.figures.panels import Nothing, Panel, Tables, small_multiples, why_empty
from harness.figures.style import look
from harness.judgement.statistics import select
from harness.results.files import where
from harness.results.selection import CELL, SETTING

_SMOOTH = 16
"""A curve is averaged over 1/16 of its steps."""


def draw(tables: Tables) -> Figure | Nothing:
    """Smoothed training loss of each method's selected setting at each step, as the mean over seeds."""
    chosen = select(tables["trials"])
    losses = where(tables, "curves", chosen.trial_id, split="train", metric="loss").dropna(subset="value")
    if losses.empty:
        return Nothing(why_empty(tables["trials"], "no training loss was recorded in any trial"))
    # Take means before the join: thousands of curves become one per method.
    chosen = chosen.assign(setting=chosen.groupby([*CELL, *SETTING], dropna=False, sort=False).ngroup())
    settings = losses.trial_id.map(chosen.set_index("trial_id").setting)
    means = losses.groupby([settings.rename("setting"), "step"]).value.mean().reset_index()
    return small_multiples(means.merge(chosen.drop_duplicates("setting"), on="setting"), _draw)


def _draw(panel: Panel, frame: pd.DataFrame) -> str:
    axes = panel.axes
    ends: dict[str, float] = {}
    lengths: list[float] = []
    colours: list[str] = []
    for label, rows in frame.groupby("label", sort=False):
        colour = look(rows.method.iloc[0]).colour
        curve = rows.groupby("step").value.mean()
        smooth = curve.rolling(max(1, len(curve) // _SMOOTH), min_periods=1).mean()
        axes.plot(smooth.index, smooth, color=colour, lw=1.6)
        ends[str(label)] = float(smooth.iloc[-1])
        lengths.append(float(smooth.index[-1]))
        colours.append(colour)
    axes.margins(x=0.01)
    axes.set_xlabel("Optimiser step")
    axes.set_ylabel("Training loss (nats)")
    panel.label_ends(lengths, list(ends.values()), list(ends), colours)
    lowest = min(ends, key=ends.__getitem__)
    steps = int(lengths[list(ends).index(lowest)])
    ties = sum(1 for end in ends.values() if f"{end:.2f}" == f"{ends[lowest]:.2f}") - 1
    shared = f", as {'another ends' if ties == 1 else f'{ties} others end'}" if ties else ""
    return f"{lowest} ends lowest: loss {ends[lowest]:.2f} after {steps} steps{shared}"
