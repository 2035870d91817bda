"""Score against a cost. The figures score_vs_* share it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullFormatter

from harness.figures.findings import cheapest_good, metric_label, trained
from harness.figures.panels import FACET, Nothing, Panel, Tables, rows, small_multiples, why_empty
from harness.figures.style import GRID, MUTED, look
from harness.judgement.statistics import aggregate, pareto
from harness.judgement.timings import TIMES, why_untimed
from harness.judgement.verdicts import is_reward_model


@dataclass(frozen=True)
class Cost:
    """A column of :func:`harness.judgement.statistics.aggregate` in which less is better."""

    column: str
    label: str
    text: Callable[[float], str]
    of: str
    """Its name in a sentence such as 'with 1 % of full's …'."""


def score_against(tables: Tables, cost: Cost) -> Figure | Nothing:
    """Mean test score with its interval against ``cost``; a band joins the Pareto front."""
    chosen = aggregate(tables)
    scored = trained(chosen[chosen.test_score.notna()])
    scalar = pd.Series([is_reward_model(row) for row in rows(scored)], scored.index, dtype=bool)
    scored = scored if scalar.all() else scored[~scalar]  # a reward model's accuracy is no policy's score
    # Rows whose cost is not known stay, because the finding counts them.
    scored = scored.assign(**{cost.column: scored[cost.column].where(scored[cost.column] > 0)})
    scored = scored[scored.groupby(FACET)[cost.column].transform("count") > 0]
    if scored.empty:
        missing = f"no trial has both a test score and {cost.label.lower()}"
        if cost.column in TIMES:
            missing = why_untimed(tables["trials"], missing)
        return Nothing(why_empty(tables["trials"], missing))

    return small_multiples(scored, partial(_draw, cost=cost))


def _draw(panel: Panel, frame: pd.DataFrame, cost: Cost) -> str:
    whole, frame = frame, frame[frame[cost.column].notna()]
    axes = panel.axes
    first = next(rows(frame))
    _scale(axes, cost, frame[cost.column])
    front = frame[pareto(frame, cost.column, "test_score", first.higher_is_better)].sort_values(cost.column)
    axes.plot(front[cost.column], front.test_score, color=GRID, lw=6, zorder=0.5, solid_capstyle="round")
    for row in rows(frame):
        method_look = look(row.method)
        price = getattr(row, cost.column)
        axes.plot([price, price], [row.ci_low, row.ci_high], color=method_look.colour, lw=1.2)
        axes.plot(price, row.test_score, method_look.marker, color=method_look.colour, markersize=7)
    zero_shot = frame.base_score.dropna()
    if len(zero_shot):
        axes.axhline(zero_shot.iloc[0], color=MUTED, ls="--", lw=1)
        panel.label_line(
            float(zero_shot.iloc[0]), "untrained model", frame[cost.column].tolist(), frame.test_score.tolist()
        )
    axes.margins(x=0.12, y=0.12)
    axes.set_ylabel(metric_label(frame))
    spans = list(zip(frame.ci_low, frame.ci_high, strict=True))
    panel.label_points(frame[cost.column].tolist(), frame.test_score.tolist(), frame.label.tolist(), spans)
    return cheapest_good(whole, cost.column, cost.of)


def _scale(axes: Axes, cost: Cost, values: pd.Series) -> None:
    """Use a log axis where the costs span more than a decade; over less it would have hardly a round tick."""
    if values.max() > 10 * values.min():
        axes.set_xscale("log")
        axes.set_xlabel(f"{cost.label} (log scale)")
    else:
        axes.xaxis.set_major_locator(MaxNLocator(5))
        axes.set_xlabel(cost.label)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: cost.text(value)))
    axes.xaxis.set_minor_formatter(NullFormatter())
