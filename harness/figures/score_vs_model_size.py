"""Does a method catch up with full fine-tuning as the model grows? (Lester et al. 2021, figure 1)"""

from __future__ import annotations

import pandas as pd
from matplotlib.figure import Figure

from harness.figures import published
from harness.figures.findings import FULL, metric_label
from harness.figures.lines import Series, best_at_the_ends, draw_lines, line_views
from harness.figures.panels import Nothing, Panel, Tables, View, compose, extreme, why_empty
from harness.figures.published_panels import lines_view
from harness.figures.style import count_text, score_text
from harness.judgement.statistics import aggregate

_SERIES = Series("model_params", "Parameters of the base model (log scale)", count_text)
_FACET = ["task", "primary_metric"]

_T5 = {"t5-small": 77e6, "t5-base": 248e6, "t5-large": 783e6, "t5-xl": 2.85e9, "t5-xxl": 11.1e9}
"""Parameters of the T5 models of version 1.1, which prompt tuning's paper adapts."""


def draw(tables: Tables) -> Figure | Nothing:
    """Mean test score and its interval against the size of the base model; a panel per task."""
    chosen = aggregate(tables)
    scored = chosen[chosen.test_score.notna() & (chosen.objective != "reward")]
    panels = line_views(scored, _draw, _FACET, _SERIES, among=["model_revision", "model"])
    if not panels:
        return Nothing(why_empty(tables["trials"], "no method was scored on models of two sizes"))
    return compose([*panels, _lester()], height=lambda lines: max(4.0, 1.6 + 0.2 * lines))


def _draw(panel: Panel, frame: pd.DataFrame) -> str:
    draw_lines(panel, frame, _SERIES, metric_label(frame))
    higher = bool(frame.higher_is_better.iloc[0])
    return _gap(frame) or best_at_the_ends(frame, _SERIES, higher, lambda size: f"{count_text(size)} parameters")


def _gap(frame: pd.DataFrame) -> str | None:
    """How the distance of the largest gap to full fine-tuning changes with the size; None without both ends."""
    sizes = frame[frame.method == FULL].model_params
    if sizes.nunique() < 2 or sizes.duplicated().any():
        return None
    ends = sizes.min(), sizes.max()
    sign = 1.0 if frame.higher_is_better.iloc[0] else -1.0
    full = frame[frame.method == FULL].set_index("model_params").test_score
    others = frame[(frame.method != FULL) & frame.model_params.isin(ends)]
    others = others[~others.duplicated(["label", "model_params"], keep=False)]
    others = others.assign(gap=sign * (others.model_params.map(full) - others.test_score))
    both = others[others.groupby("label").model_params.transform("nunique") == 2]
    if both.empty:
        return None
    widest = extreme(both[both.model_params == ends[0]], "gap", largest=True)
    last = both[(both.label == widest.label) & (both.model_params == ends[1])].gap.iloc[0]
    return (
        f"From {count_text(ends[0])} to {count_text(ends[1])} parameters, the distance from full to {widest.label} "
        f"goes from {score_text(widest.gap)} to {score_text(last)}"
    )


def _lester() -> View:
    frame = published.read("lester2021_prompt_tuning")
    sizes = frame.model.map(_T5).fillna(frame.model.map(_gpt3_params))
    frame = frame.assign(model_params=sizes, label=frame.method.str.replace("_", " "))
    scores = frame.pivot_table(index="model", columns="method", values="value")
    gap = scores["model_tuning"] - scores["prompt"]
    said = f"Prompt tuning’s distance to full tuning goes from {gap['t5-small']:.1f} to {gap['t5-xxl']:.1f} points"
    return lines_view(frame, "SuperGLUE; T5, and GPT-3 without training", _SERIES, "SuperGLUE score, dev", said)


def _gpt3_params(model: str) -> float:
    size = model.removeprefix("gpt3-")
    return float(size[:-1]) * {"m": 1e6, "b": 1e9}[size[-1]] if size != model else float("nan")
