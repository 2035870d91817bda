"""A shaded table of numbers: rows by columns, each column from its worst to its best."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.colors import LinearSegmentedColormap

from harness.figures.layout import Panel
from harness.figures.style import COLOURS, INK

_LEAST = 0.1
"""Shades span at least this share of the best value, so that a small difference does not look like a large one."""
_SHADES = LinearSegmentedColormap.from_list("shades", ["#f7f7f7", COLOURS["sky"]])


def draw_grid(
    panel: Panel,
    cells: pd.DataFrame,
    texts: Sequence[Sequence[str]],
    higher: pd.Series | None,
    by_column: bool = True,
) -> None:
    """A heat map of ``cells`` with ``texts`` in them.

    ``higher`` says per column whether a larger value is the better one; None: in every one. Without ``by_column``, one
    scale of shades holds for the whole table. A cell without a value stays white and empty.
    """
    sign = 1.0 if higher is None else np.where(higher.reindex(cells.columns).astype(bool), 1.0, -1.0)
    values = cells.astype(float) * sign
    low, high = (values.min(), values.max()) if by_column else (values.min().min(), values.max().max())
    span = np.maximum(high - low, _LEAST * np.abs(high))
    shades = 1 - (high - values) / np.where(span > 0, span, 1.0)
    axes = panel.axes
    sns.heatmap(
        shades,
        annot=np.array(texts),
        fmt="",
        cmap=_SHADES,
        vmin=0,
        vmax=1,
        cbar=False,
        linewidths=1,
        annot_kws={"fontsize": max(5.5, min(8.5, 62 / max(1, len(cells.columns)))), "color": INK, "linespacing": 1.2},
        ax=axes,
    )
    axes.set(xlabel="", ylabel="")
    axes.tick_params(left=False, bottom=False)
    axes.set_xticks(np.arange(len(cells.columns)) + 0.5, [str(name) for name in cells.columns], rotation=0)
    axes.set_yticks(np.arange(len(cells)) + 0.5, [str(name) for name in cells.index], rotation=0)
    axes.grid(visible=False)
    for spine in axes.spines.values():
        spine.set_visible(False)


def half_intervals(frame: pd.DataFrame) -> pd.Series:
    """Half of each row's interval: of one that ends at the metric's range, the longer side is that of the other end."""
    sides = pd.concat([frame.ci_high - frame.test_score, frame.test_score - frame.ci_low], axis=1)
    return sides.max(axis=1, skipna=False)


def cell_texts(cells: pd.DataFrame, halves: pd.DataFrame, say: Callable[[float], str]) -> list[list[str]]:
    """Each cell as text, with half its interval below it where that is known; '' where there is no value."""
    return [
        [
            "" if pd.isna(value) else say(value) + ("" if pd.isna(half) else f"\n±{say(half)}")
            for value, half in zip(values, spreads, strict=True)
        ]
        for values, spreads in zip(cells.to_numpy(), halves.reindex_like(cells).to_numpy(), strict=True)
    ]
