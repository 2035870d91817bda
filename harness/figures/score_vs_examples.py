"""Which method needs the fewest training examples? (Ben Zaken et al. 2021, figure 2)"""

from __future__ import annotations

import pandas as pd
from matplotlib.figure import Figure

from harness.figures.findings import metric_label
from harness.figures.lines import Series, best_at_the_ends, draw_lines, line_views
from harness.figures.panels import FACET, Nothing, Panel, Tables, compose, why_empty
from harness.judgement.statistics import aggregate

_SERIES = Series("train_examples", "Training examples (log scale)", lambda count: f"{count:g}")


def draw(tables: Tables) -> Figure | Nothing:
    """Mean test score and its interval against the number of training examples; a panel per task and model."""
    chosen = aggregate(tables)
    panels = line_views(chosen[chosen.test_score.notna()], _draw, FACET, _SERIES)
    if not panels:
        return Nothing(why_empty(tables["trials"], "no method was scored with two numbers of training examples"))
    return compose(panels, height=lambda lines: max(3.6, 1.6 + 0.2 * lines))


def _draw(panel: Panel, frame: pd.DataFrame) -> str:
    draw_lines(panel, frame, _SERIES, metric_label(frame))
    return best_at_the_ends(
        frame, _SERIES, bool(frame.higher_is_better.iloc[0]), lambda examples: f"{examples:g} examples"
    )
