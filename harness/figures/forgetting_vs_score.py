"""Does a method that learns less forget less? (Biderman et al. 2024, figures 1 and 2)"""

from __future__ import annotations

import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure

from harness.figures import published
from harness.figures.findings import metric_label, trained
from harness.figures.panels import Nothing, Panel, Tables, View, rows, small_multiples, why_empty
from harness.figures.published import look_like
from harness.figures.style import MUTED, look
from harness.figures.words import leading
from harness.judgement.statistics import aggregate


def draw(tables: Tables) -> Figure | Nothing:
    """Mean test score against the rise of the loss on general text; the dashed line is a model that forgets nothing."""
    chosen = aggregate(tables)
    scored = trained(chosen[chosen.forgetting.notna() & chosen.test_score.notna()])
    if scored.empty:
        return Nothing(why_empty(tables["trials"], "no trained model was probed for what it forgot"))
    return small_multiples(scored, _draw, published=[_biderman()])


def _draw(panel: Panel, frame: pd.DataFrame) -> str:
    axes = panel.axes
    for row in rows(frame):
        one = look(row.method)
        axes.plot([row.forgetting] * 2, [row.ci_low, row.ci_high], color=one.colour, lw=1.2)
        axes.plot(row.forgetting, row.test_score, one.marker, color=one.colour, markersize=7)
    axes.axvline(0, color=MUTED, ls="--", lw=1)
    axes.margins(x=0.12, y=0.12)
    axes.set(xlabel="Forgotten: rise of the loss on general text, nats", ylabel=metric_label(frame))
    spans = list(zip(frame.ci_low, frame.ci_high, strict=True))
    panel.label_points(frame.forgetting.tolist(), frame.test_score.tolist(), frame.label.tolist(), spans)
    if len(frame) == 1:
        return f"{frame.label.iloc[0]} forgets {_nats(frame.forgetting.iloc[0])}"
    least, most = (leading(frame, "forgetting", largest, _nats) for largest in (False, True))
    if least.text == most.text:
        return f"All {len(frame)} forget as much: {least.text}"
    return f"{least.who} lowest in what was forgotten ({least.text}), {most.who} highest ({most.text})"


def _nats(value: float) -> str:
    return f"{value:.3f} nats" if round(value, 3) else "0.000 nats"


_BASE = 0.671
"""The base model's mean accuracy on the three retention tasks."""


def _biderman() -> View:
    """Llama-2-7B on MetaMathQA, a point per number of epochs; forgetting is accuracy lost on three other tasks."""
    learned = published.read("biderman2024_lora_tradeoffs", table="figure1d")
    kept = published.read("biderman2024_lora_tradeoffs", table="figure2d")
    frame = learned.merge(kept, on=["method", "setting"], suffixes=("", "_kept"))
    frame = frame.assign(lost=_BASE - frame.value_kept, label=frame.method.str.replace("_r", ", r "))
    last = frame.groupby("label", sort=False).tail(1)

    def draw_paths(panel: Panel) -> str:
        axes = panel.axes
        for _, path in frame.groupby("label", sort=False):
            one = look_like(path.method.iloc[0])
            sns.lineplot(
                data=path, x="lost", y="value", sort=False, estimator=None, color=one.colour, marker=one.marker,
                mfc="white", mec=one.colour, markersize=7, legend=False, ax=axes,
            )  # fmt: skip
            published.bars(axes, path.lost, path.value, path.error)
        axes.margins(x=0.12, y=0.12)
        axes.set(xlabel="Forgotten: accuracy lost on other tasks", ylabel="GSM8K accuracy, 1 to 16 epochs")
        names = frame.label.where(frame.index.isin(last.index), "")
        panel.label_points(frame.lost.tolist(), frame.value.tolist(), names.tolist())
        full, lora = (last[last.method == name].lost.item() for name in ("full", "lora_r16"))
        return (
            f"After 16 epochs, full fine-tuning has lost {full:.3f} of accuracy elsewhere, LoRA of rank 16 {lora:.3f}"
        )

    return View(published.where(frame, "Llama-2-7B on MetaMathQA"), draw_paths, published=True)
