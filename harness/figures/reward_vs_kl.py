"""How much reward for how much distance from the reference? (Rafailov et al. 2023, figure 2)"""

from __future__ import annotations

from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from harness.figures import published
from harness.figures.panels import FACET, Nothing, Panel, Tables, View, compose, rows, why_empty
from harness.figures.preferences import OPPONENT, measures
from harness.figures.published_panels import dots_view
from harness.figures.style import GRID, MUTED, look, rate_text, score_text
from harness.figures.words import leading
from harness.judgement.labels import labelled
from harness.judgement.statistics import pareto
from harness.results.selection import CELL, SETTING


def draw(tables: Tables) -> Figure | Nothing:
    """Mean reward on test against KL to the reference; every setting that ran is a point, the band joins the front.

    Bars are standard errors over the examples. The dashed line is the SFT model that the policies started from.
    """
    trials = tables["trials"]
    known = measures(tables, trials[trials.status == "ok"])
    keys = [*CELL, *SETTING]
    wide: Any = known[known.metric.isin(("reward", "kl"))].set_index([*keys, "metric"])[["value", "stderr"]].unstack()
    wide.columns = ["_".join(name) for name in wide.columns]
    if not {"value_kl", "value_reward"} <= set(wide.columns) or wide[["value_kl", "value_reward"]].dropna().empty:
        return Nothing(why_empty(trials, "no trial recorded both a reward and its distance from the reference"))
    frame = wide.dropna(subset=["value_kl", "value_reward"]).reset_index()
    sft = measures(tables, trials[trials.status == "ok"], OPPONENT)
    level = sft[sft.metric == "reward"].groupby(FACET).value.median()
    views = [
        _view(key, group.reset_index(drop=True), level.get(key)) for key, group in frame.groupby(FACET, sort=False)
    ]
    return compose([*views, _rafailov()])


def _view(key: Any, frame: pd.DataFrame, level: float | None) -> View:
    several = frame.groupby([*CELL], dropna=False).learning_rate.transform("nunique") > 1
    frame = labelled(frame)
    names = frame.objective + (", " + frame.method if frame.method.nunique() > 1 else "")
    rates = frame.learning_rate.map(lambda rate: "" if pd.isna(rate) else f", lr {rate_text(rate)}").where(several, "")
    frame = frame.assign(label=(names.str.rstrip(", ") + rates))
    return View(" · ".join(map(str, key)), lambda panel: _draw(panel, frame, level))


def _draw(panel: Panel, frame: pd.DataFrame, level: float | None) -> str:
    axes = panel.axes
    front = frame[pareto(frame, "value_kl", "value_reward")].sort_values("value_kl")
    axes.plot(front.value_kl, front.value_reward, color=GRID, lw=6, zorder=0.5, solid_capstyle="round")
    for row in rows(frame):
        one = look(row.objective)
        axes.errorbar(
            row.value_kl, row.value_reward, xerr=row.stderr_kl, yerr=row.stderr_reward, fmt=one.marker,
            color=one.colour, elinewidth=1, markersize=7,
        )  # fmt: skip
    if level is not None:
        axes.axhline(level, color=MUTED, ls="--", lw=1)
        panel.label_line(level, "SFT model", frame.value_kl.tolist(), frame.value_reward.tolist())
    axes.margins(x=0.15, y=0.15)
    axes.set(xlabel="KL to the reference, nats per answer (bars: standard error)", ylabel="mean reward on test")
    spans = list(zip(frame.value_reward - frame.stderr_reward, frame.value_reward + frame.stderr_reward, strict=True))
    panel.label_points(frame.value_kl.tolist(), frame.value_reward.tolist(), frame.label.tolist(), spans)
    best = leading(frame, "value_reward", largest=True)
    distance = frame.value_kl[frame.label.isin(best.names)].iloc[0]
    if level is None:
        return f"{best.who} highest in reward ({best.text}), {score_text(distance)} nats from the reference"
    there = f"{best.text}, {score_text(distance)} nats away"
    return f"{best.who} highest in reward: {there}; the SFT model has {score_text(level)}"


def _rafailov() -> View:
    frame = published.read("rafailov2023_dpo_figures", table="figure2_right")
    frame = frame.assign(label=frame.method.str.replace("_", " "))
    both = frame.set_index("method")
    gap = both.value["dpo"] - both.value["ppo"]
    noise = (both.error["dpo"] ** 2 + both.error["ppo"] ** 2) ** 0.5
    said = f"DPO wins {gap:.1f} ± {noise:.1f} points more than PPO: within what 256 prompts can tell"
    return dots_view(frame, "TL;DR, GPT-J 6B, against reference summaries", "wins, % (bars: standard error)", said)
