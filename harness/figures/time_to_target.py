"""What does a target score cost? The least time and energy in which each method comes near full fine-tuning."""

from __future__ import annotations

from functools import partial
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from harness.figures.bars import dots
from harness.figures.findings import joined, reference, trained
from harness.figures.panels import FACET, Nothing, Panel, Tables, View, compose, shortened, why_empty
from harness.figures.style import energy_text, score_text, seconds_text
from harness.figures.words import leading
from harness.judgement.labels import labelled
from harness.judgement.recommendation import GOOD, good_enough
from harness.judgement.statistics import aggregate

_COSTS = {"chain_train_s": ("training time", seconds_text), "chain_energy_j": ("energy of training", energy_text)}


def draw(tables: Tables) -> Figure | Nothing:
    """For each task, model and cost: the cheapest row of each method that reaches the target.

    The target is the share :data:`harness.judgement.recommendation.GOOD` of full fine-tuning's gain over the untrained
    model, or of the best method's where full fine-tuning did not run.
    """
    chosen = trained(aggregate(tables))
    scored = chosen[chosen.test_score.notna() & (chosen.objective != "reward")]
    views = []
    for (task, model), rows in scored.groupby(FACET, sort=False):
        for cost in _COSTS:
            known = shortened(labelled(rows[rows[cost] > 0].reset_index(drop=True)))
            if known.method.nunique() > 1:
                where = f"{task} · {model} · {_COSTS[cost][0]}"
                draw_one = partial(_draw, frame=known, cost=cost)
                views.append(
                    View(where, draw_one, known.method.nunique(), name_length=int(known.label.str.len().max()))
                )
    if not views:
        return Nothing(why_empty(tables["trials"], "no two methods have a test score and a known training time"))
    return compose(views, height=lambda methods: 1.3 + 0.29 * methods)


def _draw(panel: Panel, frame: pd.DataFrame, cost: str) -> str:
    what, text = _COSTS[cost]
    aim = reference(frame)
    reached = good_enough(frame, aim) | (frame.index == aim.Index)
    cheapest = frame[reached].sort_values(cost, kind="stable").drop_duplicates("method").copy()
    cheapest["value"] = cheapest["low"] = cheapest["high"] = cheapest[cost]
    dots(panel, cheapest, text, ascending=False)
    missed = [str(name) for name in frame.method.unique() if name not in set(cheapest.method)]
    label = f"{what.capitalize()}, median over seeds"
    if missed:
        many = joined(missed) if len(missed) <= _NAMED else f"{len(missed)} methods"
        label += f"\nnot there with any setting: {many}"
    panel.axes.set_xlabel(label)
    first = leading(cheapest, "value", largest=False, text=text)
    runs = " (one run each)" if (cheapest.seeds == 1).all() else ""
    return f"{first.who} cheapest {_target(aim)}: {first.text}{runs}"


def _target(aim: Any) -> str:
    """What a row had to reach: without a gain over the untrained model, or its score, that is the score itself."""
    sign = 1.0 if aim.higher_is_better else -1.0
    score = score_text(aim.test_score)
    if sign * (aim.test_score - aim.base_score) > 0:
        return f"within {GOOD * 100:g} % of {aim.label}’s gain ({score})"
    return f"of those no worse than {aim.label} ({score})"


_NAMED = 5
"""More methods than this are counted and not named."""
