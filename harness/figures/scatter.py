"""Score against a cost: what the figures score_vs_* share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullFormatter

from harness.figures.findings import cheapest_good, metric_label
from harness.figures.panels import Panel, Tables, nothing, rows, small_multiples, why_empty
from harness.figures.style import GRID, INK, MUTED, look
from harness.results.baseline import BASELINE
from harness.results.stats import aggregate, pareto


@dataclass(frozen=True)
class Cost:
    """A column of :func:`harness.results.stats.aggregate` that one would rather have small."""

    column: str
    label: str
    text: Callable[[float], str]
    of: str
    """How a sentence goes on: 'with 1 % of full's …'."""


def score_against(tables: Tables, cost: Cost) -> Figure:
    """Mean test score with its interval against ``cost``; the Pareto front is joined."""
    chosen = aggregate(tables["trials"])
    base = chosen[chosen.method == BASELINE]
    shown = chosen[(chosen[cost.column] > 0) & chosen.test_score.notna() & (chosen.method != BASELINE)]
    if shown.empty:
        return nothing(why_empty(tables["trials"], f"no trial has both a test score and {cost.label.lower()}"))

    def draw(panel: Panel, frame: pd.DataFrame) -> str:
        return _draw(panel, frame, cost, base)

    return small_multiples(shown, draw)


def _draw(panel: Panel, frame: pd.DataFrame, cost: Cost, base: pd.DataFrame) -> str:
    axes = panel.axes
    first = next(rows(frame))
    axes.set_xscale("log")
    front = frame[pareto(frame, cost.column, "test_score", first.higher_is_better)].sort_values(cost.column)
    axes.plot(front[cost.column], front.test_score, color=GRID, lw=6, zorder=0.5, solid_capstyle="round")
    for row in rows(frame):
        seen = look(row.method)
        error = np.abs([[row.test_score - row.ci_low], [row.ci_high - row.test_score]])
        axes.errorbar(
            getattr(row, cost.column),
            row.test_score,
            yerr=None if np.isnan(error).any() else error,
            fmt=seen.marker,
            color=seen.colour,
            markersize=7,
            elinewidth=1.2,
        )
    zero_shot = base[(base.task == first.task) & (base.model == first.model)].test_score
    if len(zero_shot):
        axes.axhline(zero_shot.iloc[0], color=MUTED, ls="--", lw=1)
        axes.text(
            0.995, zero_shot.iloc[0], "untrained model", color=MUTED, fontsize=9, ha="right", va="bottom",
            transform=axes.get_yaxis_transform(),
        )  # fmt: skip
    axes.margins(x=0.12, y=0.12)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: cost.text(value)))
    _tame_log_ticks(panel, frame[cost.column])
    axes.set_xlabel(f"{cost.label} (log scale)", color=INK)
    axes.set_ylabel(metric_label(frame))
    panel.label_points(frame[cost.column].tolist(), frame.test_score.tolist(), frame.label.tolist())
    return cheapest_good(frame, cost.column, cost.of)


def _tame_log_ticks(panel: Panel, values: pd.Series) -> None:
    """Within less than a decade a log axis has no major tick: label a few minor ones."""
    axes = panel.axes
    if values.max() / values.min() < 20:
        low, high = axes.get_xlim()
        axes.set_xticks(np.geomspace(low, high, 6)[1:-1])
    axes.xaxis.set_minor_formatter(NullFormatter())
