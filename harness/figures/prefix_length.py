"""How long must a prefix be, and do embeddings alone suffice? (Li & Liang 2021, figure 4 and table 4)"""

from __future__ import annotations

import json

import pandas as pd
from matplotlib.figure import Figure

from harness.figures import published
from harness.figures.findings import metric_label
from harness.figures.lines import Series, best_at_the_ends, draw_lines, line_views
from harness.figures.panels import FACET, Nothing, Panel, Tables, View, compose, why_empty
from harness.figures.published_panels import dots_view
from harness.judgement.statistics import aggregate

_ARGUMENT = "num_virtual_tokens"
_SERIES = Series(_ARGUMENT, "Virtual tokens (log scale)", lambda count: f"{count:g}")


def draw(tables: Tables) -> Figure | Nothing:
    """Mean test score and its interval against the number of virtual tokens, for methods whose settings name it."""
    chosen = aggregate(tables)
    lengths = [json.loads(text or "{}").get(_ARGUMENT) for text in chosen.method_args]
    chosen = chosen.assign(**{_ARGUMENT: pd.Series(lengths, index=chosen.index, dtype="float64")})
    panels = line_views(chosen[chosen.test_score.notna()], _draw, FACET, _SERIES)
    if not panels:
        return Nothing(why_empty(tables["trials"], "no method was scored with two numbers of virtual tokens"))
    return compose([*panels, _li()], height=lambda lines: max(3.6, 1.6 + 0.2 * lines))


def _draw(panel: Panel, frame: pd.DataFrame) -> str:
    draw_lines(panel, frame, _SERIES, metric_label(frame))
    return best_at_the_ends(frame, _SERIES, bool(frame.higher_is_better.iloc[0]), _tokens)


def _tokens(count: float) -> str:
    return f"{count:g} virtual token{'' if count == 1 else 's'}"


def _li() -> View:
    frame = published.read("li2021_prefix", metric="bleu")
    frame = frame.assign(label=frame.method.str.replace("_", " ")).sort_values("value", ascending=False, kind="stable")
    best = frame[frame.method.str.startswith("embedding")].value.max()
    prefix = frame[frame.method == "prefix"].value.item()
    said = f"A prefix in every layer reaches {prefix:.1f} BLEU, embeddings alone at most {best:.1f}"
    return dots_view(frame, "E2E NLG, GPT-2 medium; numbers are virtual tokens", "BLEU", said)
