"""What does each way to train keep in memory, and how fast is it?"""

from __future__ import annotations

import pandas as pd
from matplotlib.figure import Figure

from harness.figures.layout import Panel, View, compose
from harness.figures.panels import Nothing, Tables, extreme, of_rows
from harness.figures.style import COLOURS, MUTED, percent_text
from harness.figures.ways_rows import NO_STUDY, of_study, place
from harness.results.ways_table import BASELINE

_MEASURED = ["tokens_per_s", "activations_bytes"]


def draw(tables: Tables) -> Figure | Nothing:
    """Activations against speed, medians of the repeats over those of the baseline; a panel per model and method."""
    found = []
    for rows in of_study(tables):
        medians = rows.groupby("way", sort=False)[_MEASURED].median().dropna()
        if BASELINE in medians.index and len(medians) > 1:
            frame = (medians / medians.loc[BASELINE]).reset_index()
            found.append(View(place(rows), of_rows(_draw, frame), len(frame)))
    if not found:
        return Nothing(NO_STUDY if not of_study(tables) else "no way but the usual one was active and measured")
    return compose(found)


def _draw(panel: Panel, frame: pd.DataFrame) -> str:
    axes = panel.axes
    axes.plot(frame.tokens_per_s, frame.activations_bytes, "o", color=COLOURS["blue"], markersize=7)
    for line in (axes.axvline, axes.axhline):
        line(1, color=MUTED, ls="--", lw=1, zorder=0.5)
    axes.set_xlabel("Training tokens per second over the baseline")
    axes.set_ylabel("Activations kept, over the baseline")
    axes.set_ylim(0, None)
    axes.margins(x=0.3, y=0.12)
    panel.label_points(frame.tokens_per_s.tolist(), frame.activations_bytes.tolist(), frame.way.tolist())
    least = extreme(frame, "activations_bytes", largest=False)
    if least.way == BASELINE:
        return "No way keeps fewer activations than the baseline"
    return f"‘{least.way}’ keeps {percent_text(least.activations_bytes)} of the baseline’s activations"
