"""Where does the memory of training go?"""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from harness.figures.findings import FULL, trained
from harness.figures.panels import Nothing, Panel, Tables, extreme, small_multiples, why_empty
from harness.figures.style import CATEGORY_COLOURS, INK, MUTED, bytes_text, percent_text
from harness.judgement.statistics import aggregate

_PARTS = {
    "weights": "weights_bytes",
    "gradients": "gradients_bytes",
    "optimizer": "optimizer_bytes",
    "activations": "activations_bytes",
}


def draw(tables: Tables) -> Figure | Nothing:
    """Peak memory of training, split into categories where all were counted; the tick marks the measured peak."""
    chosen = trained(aggregate(tables))
    split = chosen[list(_PARTS.values())].notna().all(axis=1)
    measured = chosen[split | chosen.peak_train_bytes.notna()]
    if measured.empty:
        return Nothing(why_empty(tables["trials"], "the memory of training was not measured in any trial"))
    return small_multiples(measured, _draw, height=lambda rows: 1.2 + 0.29 * rows)


def _stacks(frame: pd.DataFrame) -> pd.DataFrame:
    """Bytes per category; 'other' is the peak without the counted parts, 'not split' a peak without counted parts."""
    parts = frame[list(_PARTS.values())].rename(columns={column: name for name, column in _PARTS.items()})
    counted = parts.notna().all(axis=1)
    total = parts.sum(axis=1)
    return parts.where(counted, 0.0).assign(
        other=(frame.peak_train_bytes - total).clip(lower=0).fillna(0.0).where(counted, 0.0),
        **{"not split": frame.peak_train_bytes.where(~counted, 0.0)},
    )


def _draw(panel: Panel, frame: pd.DataFrame) -> str:
    axes = panel.axes
    frame = frame.assign(needed=frame.peak_train_bytes.fillna(_stacks(frame).sum(axis=1)))
    frame = frame.sort_values("needed", ascending=False).reset_index(drop=True)
    stacks = _stacks(frame)
    left = np.zeros(len(frame))
    for name in map(str, stacks):
        if stacks[name].any():
            axes.barh(range(len(frame)), stacks[name], left=left, color=CATEGORY_COLOURS[name], label=name, height=0.7)
            left += stacks[name].to_numpy()
    axes.plot(frame.peak_train_bytes, range(len(frame)), "|", color=INK, markersize=14, mew=1.5, ls="none")
    for place, needed in enumerate(frame.needed):
        axes.text(
            1.01, place, bytes_text(needed), fontsize=8.5, color=MUTED, va="center",
            transform=axes.get_yaxis_transform(),
        )  # fmt: skip
    axes.set_yticks(range(len(frame)), frame.label)
    axes.set_ylim(-0.6, len(frame) - 0.4)
    axes.xaxis.set_major_locator(MaxNLocator(5))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: bytes_text(value)))
    axes.grid(axis="y", visible=False)
    axes.set_xlabel("Memory while training (tick: measured peak)")
    return _finding(frame)


def _finding(frame: pd.DataFrame) -> str:
    least = extreme(frame, "needed", largest=False)
    sentence = f"{least.label} needs least: {bytes_text(least.needed)}"
    full = frame[frame.method == FULL]
    if full.empty or least.method == FULL:
        return sentence
    return f"{sentence}, {percent_text(1 - least.needed / full.needed.max())} less than full fine-tuning"
