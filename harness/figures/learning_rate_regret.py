"""What does a wrong learning rate cost? Regret against the rate, with full fine-tuning's best rate as the unit."""

from __future__ import annotations

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullFormatter

from harness.figures import published
from harness.figures.findings import FULL
from harness.figures.panels import FACET, Nothing, Panel, Tables, View, compose, views, why_empty
from harness.figures.style import COLOURS, look
from harness.figures.words import leading
from harness.results.selection import PLANNED

_DIVERGED = 1.12
"""Diverged runs stand above the largest regret, by this factor."""


def draw(tables: Tables) -> Figure | Nothing:
    """Loss of validation score against each method's chosen rate, seed by seed; the band spans the seeds.

    Crosses diverged.

    The unit of the horizontal axis is the best rate of full fine-tuning on the same task and model, or of the method
    itself where full fine-tuning did not run.
    """
    trials = tables["trials"]
    regrets = _regrets(trials[trials.learning_rate.notna() & trials.status.isin(("ok", "diverged"))])
    if regrets.empty:
        return Nothing(why_empty(trials, "no method was scored on validation with two learning rates"))
    return compose([*views(regrets, _draw, FACET), _tinker()], height=lambda lines: 3.8)


def _regrets(trials: pd.DataFrame) -> pd.DataFrame:
    """A row per trial: ``ratio`` of its rate to the unit, and its ``regret``, NaN where it diverged.

    The best rate is the one that validation chose (protocol, rule 2), and a trial is compared with it on its own seed:
    rates that were tried on one seed alone stand beside what that seed scored. Seeds without the chosen rate are left
    out.
    """
    sign = trials.higher_is_better.map({True: 1.0, False: -1.0}).astype("float64").fillna(1.0)
    frame = trials.assign(good=trials.valid_score * sign)
    frame = frame[frame.good.notna() | (frame.status == "diverged")]
    groups = frame.groupby(PLANNED, dropna=False)
    frame = frame[groups.learning_rate.transform("nunique") > 1]
    chosen = frame[frame.selected.astype(bool) & frame.good.notna()]
    best = chosen.groupby(PLANNED, dropna=False).agg(best_rate=("learning_rate", "first"), best=("good", "mean"))
    best = best.reset_index()
    of_seed = chosen.groupby([*PLANNED, "seed"], dropna=False).good.mean().rename("on_seed").reset_index()
    frame = frame.merge(best, on=PLANNED).merge(of_seed, on=[*PLANNED, "seed"])
    of_full = best[best.method == FULL].sort_values("best", ascending=False, kind="stable").drop_duplicates(FACET)
    frame = frame.merge(of_full[[*FACET, "best_rate"]].rename(columns={"best_rate": "unit"}), on=FACET, how="left")
    return frame.assign(
        is_own=frame.unit.isna(),
        ratio=frame.learning_rate / frame.unit.fillna(frame.best_rate),
        regret=frame.on_seed - frame.good,
    )


def _draw(panel: Panel, frame: pd.DataFrame) -> str:
    axes = panel.axes
    colours = {label: look(method).colour for label, method in zip(frame.label, frame.method, strict=True)}
    markers = {label: look(method).marker for label, method in zip(frame.label, frame.method, strict=True)}
    scored = frame[frame.regret.notna()].sort_values(["label", "ratio"], kind="stable")
    sns.lineplot(
        data=scored, x="ratio", y="regret", hue="label", style="label", palette=colours, markers=markers, dashes=False,
        errorbar=("pi", 100), lw=1.4, markersize=6, legend=False, ax=axes,
    )  # fmt: skip
    top = max(float(scored.regret.max()), 1e-9)
    diverged = frame[frame.status == "diverged"]
    axes.scatter(
        diverged.ratio, np.full(len(diverged), _DIVERGED * top), marker="x", s=45, zorder=4,
        c=[colours[label] for label in diverged.label],
    )  # fmt: skip
    _scale(panel, frame.ratio)
    unit = "each method’s own best rate" if frame.is_own.all() else "full fine-tuning’s best rate"
    axes.set_xlabel(f"Learning rate / {unit}\n(band: range over seeds; cross: diverged)")
    axes.set_ylabel(f"{frame.primary_metric.dropna().iloc[0]} lost on validation")
    last = scored.groupby(["label", "ratio"]).regret.mean().reset_index().groupby("label").tail(1)
    panel.label_ends(
        last.ratio.tolist(), last.regret.tolist(), last.label.tolist(), [colours[name] for name in last.label]
    )
    return _finding(scored, diverged)


def _finding(scored: pd.DataFrame, diverged: pd.DataFrame) -> str:
    """The worst mean regret of the methods, and how many runs diverged."""
    means = scored.groupby(["label", "ratio"], sort=False).regret.mean().reset_index()
    worst = means.groupby("label", sort=False).regret.max().reset_index()
    least, most = leading(worst, "regret", largest=False), leading(worst, "regret", largest=True)
    names = ", ".join(dict.fromkeys(diverged.label)) if len(diverged) else ""
    runs = f"; {len(diverged)} run{'s' if len(diverged) > 1 else ''} diverged and lost more ({names})" if names else ""
    if least.text == most.text:
        return f"At the worst rate tried, {least.who.rsplit(' ', 1)[0]} lost {least.text}{runs}"
    low, high = (one.who.rsplit(" ", 1)[0] for one in (least, most))
    return f"At the worst rate tried, {low} lost least ({least.text}) and {high} most ({most.text}){runs}"


def _scale(panel: Panel, ratios: pd.Series) -> None:
    axes = panel.axes
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.axvline(1, color=COLOURS["pale"], lw=1, zorder=0.5)
    axes.margins(x=0.08)


def _tinker() -> View:
    """The authors' sweep of LoRA: how the test loss rises around the best rate of each model and rank."""
    frame = published.read("tinker_lora_sft_sweep")
    parts = frame.setting.str.extract(r"lr (\S+); rank (\d+); batch (\d+)")
    frame = frame.assign(rate=parts[0].astype(float), rank=parts[1].astype(int), batch=parts[2])
    runs = frame.groupby(["model", "rank", "batch"])
    best = frame.loc[runs.value.idxmin()].set_index(["model", "rank", "batch"])
    keys = pd.MultiIndex.from_frame(frame[["model", "rank", "batch"]])
    ratio = frame.rate / best.rate.reindex(keys).to_numpy()
    frame = frame.assign(ratio=ratio.round(4), regret=frame.value - best.value.reindex(keys).to_numpy())
    frame = frame[runs.rate.transform("nunique") > 1]
    frame = frame[frame.groupby("ratio").value.transform("size") >= _SHOWN]
    at_ten = frame[frame.ratio.between(9.9, 10.1)].regret.median()

    def draw_sweep(panel: Panel) -> str:
        axes, one = panel.axes, look("lora")
        for width, alpha in ((90, 0.15), (50, 0.3)):
            sns.lineplot(
                data=frame, x="ratio", y="regret", estimator="median", errorbar=("pi", width), marker="o", mfc="white",
                mec=one.colour, color=one.colour, err_kws={"alpha": alpha, "lw": 0}, lw=1.4, legend=False, ax=axes,
            )  # fmt: skip
        _scale(panel, frame.ratio)
        axes.set_xlabel(
            "Learning rate / best rate of the same model and rank\n(line: median; bands: half and nine tenths)"
        )
        axes.set_ylabel("test loss lost, nats")
        return f"At ten times its best rate, the median run of LoRA loses {at_ten:.3f} nats; diverged runs are left out"

    what = f"LoRA on Tulu 3, {frame.model.nunique()} models"
    return View(published.where(frame, what), draw_sweep, published=True)


_SHOWN = 5
"""Ratios with fewer runs are left out."""
