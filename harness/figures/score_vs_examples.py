"""Which method needs the fewest training examples? (Ben Zaken et al. 2021, figure 2)"""

from __future__ import annotations

import pandas as pd
from matplotlib.figure import Figure

from harness.figures.findings import metric_label
from harness.figures.lines import Series, best_at_the_ends, draw_lines, varied
from harness.figures.panels import FACET, Nothing, Panel, Tables, compose, views, why_empty
from harness.figures.style import count_text
from harness.judgement.statistics import aggregate

_SERIES = Series("train_examples", "Training examples (log scale)", count_text)


def draw(tables: Tables) -> Figure | Nothing:
    """Mean test score and its interval against the number of training examples; a panel per task and model."""
    chosen = aggregate(tables)
    scored = varied(chosen[chosen.test_score.notna()], FACET, "train_examples")
    if scored.empty:
        return Nothing(why_empty(tables["trials"], "no method was scored with two numbers of training examples"))
    panels = views(scored, _draw, FACET, among=["train_examples"])
    return compose(panels, height=lambda lines: max(3.6, 1.6 + 0.2 * lines))


def _draw(panel: Panel, frame: pd.DataFrame) -> str:
    draw_lines(panel, frame, _SERIES, metric_label(frame))
    return best_at_the_ends(
        frame, _SERIES, bool(frame.higher_is_better.iloc[0]), lambda examples: f"{count_text(examples)} examples"
    )
