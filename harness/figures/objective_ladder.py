"""What does each step of training add, by several measures? (Ouyang et al. 2022, the panels of its announcement)"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import pandas as pd
from matplotlib.figure import Figure

from harness.figures import published
from harness.figures.lines import Series, draw_lines
from harness.figures.panels import FACET, Nothing, Panel, Tables, View, compose, why_empty
from harness.figures.preferences import OPPONENT, measures
from harness.figures.published_panels import lines_view
from harness.figures.style import score_text
from harness.figures.words import leading
from harness.judgement.statistics import select
from harness.results.baseline import BASELINE
from harness.tasks.metrics import METRICS

#: The rungs from below; an objective that is none of them has no place on the ladder.
RUNGS = ("untrained", "sft", "best_of_n", "rrhf", "dpo", "kto", "orpo", "grpo", "rloo", "ppo")

_NONE_OF_A_POLICY = ("kl", "reward_accuracy")
"""A distance, which is neither good nor bad, and a measure of the judge."""


def draw(tables: Tables) -> Figure | Nothing:
    """The mean of each measure on test, from the untrained model over SFT to each preference objective.

    A panel per task, model and measure, a line per method; bars are standard errors over the examples. The SFT model
    has the measures that the policies recorded of it as their opponent.
    """
    trials = tables["trials"]
    chosen = select(trials)
    climbed = chosen[chosen.objective.isin(RUNGS[2:])]
    if climbed.empty:
        return Nothing(why_empty(trials, "no objective that learns from preferences ended well"))
    own = measures(tables, chosen[chosen.objective.isin(RUNGS)])
    own = own.assign(rung=own.objective.where(own.method != BASELINE, RUNGS[0]))
    opponent = measures(tables, climbed, OPPONENT).assign(rung="sft")
    frame = pd.concat([own, opponent], ignore_index=True)
    frame = frame[~frame.metric.isin(_NONE_OF_A_POLICY)]
    views = []
    for key, rows in frame.groupby([*FACET, "metric"], sort=False):
        rungs = _rungs(rows)
        if rungs.place.nunique() > 1 and rungs.place.max() > 1:
            views.append(View(" · ".join(map(str, key)), partial(_draw, frame=rungs), rungs.label.nunique()))
    if not views:
        return Nothing("no measure was recorded on two rungs of the ladder")
    return compose([*views, *_ouyang()], height=lambda lines: max(3.4, 1.4 + 0.2 * lines))


def _rungs(rows: pd.DataFrame) -> pd.DataFrame:
    """A row per method and rung. The untrained model and an SFT model as opponent belong to every method's line."""
    means = rows.groupby(["method", "rung"], sort=False)[["value", "stderr"]].median().reset_index()
    methods = [name for name in means.method.unique() if name != BASELINE]
    below = means[means.method == BASELINE]
    shared = [below.assign(method=method) for method in methods]
    frame = pd.concat([means[means.method != BASELINE], *shared], ignore_index=True)
    return frame.assign(
        label=frame.method,
        metric=rows.metric.iloc[0],
        place=frame.rung.map(RUNGS.index).astype(float),
        low=frame.value - frame.stderr.fillna(0.0),
        high=frame.value + frame.stderr.fillna(0.0),
    )


def _draw(panel: Panel, frame: pd.DataFrame) -> str:
    present = [rung for rung in RUNGS if rung in set(frame.rung)]
    frame = frame.assign(place=frame.rung.map(present.index).astype(float))
    draw_lines(panel, frame, _series(present), str(frame.metric.iloc[0]))
    metric = METRICS.get(frame.metric.iloc[0])
    higher = metric is None or metric.higher_is_better
    best = leading(frame.assign(label=frame.rung), "value", higher)
    word = "highest" if higher else "lowest"
    others = [f"{rung} {_range(frame[frame.rung == rung].value)}" for rung in present[:2] if rung not in best.names]
    return f"{best.who} {word} in {frame.metric.iloc[0]}: {best.text}" + (f"; {', '.join(others)}" if others else "")


def _series(rungs: Sequence[str]) -> Series:
    return Series(
        "place", "bars: standard error over the examples", lambda place: rungs[int(place)].replace("_", " "), "value",
        low="low", high="high", log_x=False,
        is_series=False,
    )  # fmt: skip


def _range(values: pd.Series) -> str:
    low, high = score_text(values.min()), score_text(values.max())
    return low if low == high else f"{low} to {high}"


_MEASURES = {
    "realtoxicity": "toxicity, lower is better",
    "truthfulqa": "TruthfulQA, higher is better",
    "api_hallucinations": "hallucinations, lower is better",
    "api_customer_assistant_appropriate": "appropriate for an assistant, higher is better",
}
_STEPS = {"gpt3": "GPT-3", "sft": "SFT", "instructgpt": "InstructGPT"}


def _ouyang() -> list[View]:
    frame = published.read("ouyang2022_instructgpt", table="blog_figure")
    frame = frame.assign(place=frame.method.map(list(_STEPS).index).astype(float), label="GPT-3, all sizes")
    names = list(_STEPS.values())
    views = []
    for task, label in _MEASURES.items():
        rows = frame[frame.task == task].assign(method="full")
        values = rows.set_index("place").value
        said = "; ".join(f"{name} {values[float(place)]:.3f}" for place, name in enumerate(names))
        series = Series("place", "", lambda place: names[int(place)], log_x=False, is_series=False)
        views.append(lines_view(rows, label, series, label.partition(",")[0], said))
    return views
