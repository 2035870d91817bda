"""How small is a fine-tune whose change has one bit per weight? (Liu et al. 2024, table of compression factors)"""

from __future__ import annotations

import json

import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from harness.figures import published
from harness.figures.layout import Panel, View, compose
from harness.figures.panels import Nothing, Tables, why_empty
from harness.figures.style import MUTED, bytes_text, look
from harness.judgement.statistics import select

_KINDS = {"fine-tune": "full", "delta": "bitdelta"}


def draw(tables: Tables) -> Figure | Nothing:
    """Bytes of BitDelta's checkpoint beside those of the fine-tune that it compresses, per model."""
    trials = tables["trials"]
    deltas = select(trials[trials.method == "bitdelta"])
    parents = deltas.parents.map(lambda text: json.loads(text or "{}").get("full"))
    whole = parents.map(trials.drop_duplicates("trial_id").set_index("trial_id").checkpoint_bytes)
    frame = deltas.assign(whole=whole)
    frame = frame[(frame.checkpoint_bytes > 0) & (frame.whole > 0)]
    if frame.empty:
        return Nothing(why_empty(trials, "no fine-tune was compressed by BitDelta and measured with its parent"))
    sizes = frame.groupby("model", sort=False)[["whole", "checkpoint_bytes"]].median().reset_index()
    sizes.columns = ["model", *_KINDS]
    own = View("checkpoints, median over tasks and seeds", lambda panel: _draw(panel, sizes), len(sizes))
    return compose([own, _liu()], height=lambda models: 1.3 + 0.55 * models)


def _draw(panel: Panel, sizes: pd.DataFrame) -> str:
    """``sizes`` has a row per model, with the bytes of both kinds."""
    axes = panel.axes
    sns.barplot(
        data=sizes.melt("model", list(_KINDS), "kind", "bytes"), y="model", x="bytes", hue="kind", orient="y", ax=axes,
        palette={kind: look(method).colour for kind, method in _KINDS.items()}, width=0.75, errorbar=None, legend=False,
    )  # fmt: skip
    for place, row in sizes.iterrows():
        for shift, (kind, size) in zip((-0.19, 0.19), row[list(_KINDS)].items(), strict=True):
            axes.text(
                1.01, float(str(place)) + shift, f"{kind} {bytes_text(size)}", fontsize=8.5, color=MUTED, va="center",
                transform=axes.get_yaxis_transform(),
            )  # fmt: skip
    axes.xaxis.set_major_locator(MaxNLocator(4))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: bytes_text(value)))
    axes.grid(axis="y", visible=False)
    axes.set(xlabel="Checkpoint of one task", ylabel="")
    factor = sizes["fine-tune"] / sizes["delta"]
    low, high = f"{factor.min():.3g}", f"{factor.max():.3g}"
    return f"The fine-tune is {low if low == high else f'{low} to {high}'} times as large as its delta"


def _liu() -> View:
    """The paper prints the checkpoint in 10^9 bytes and the delta in 2^30 bytes; both are shown in bytes here."""
    frame = published.read("liu2024_bitdelta", table="compression")
    wide = frame.pivot_table(index="model", columns="metric", values="value", sort=False)
    sizes = pd.DataFrame({"model": wide.index, "fine-tune": wide.checkpoint_gb * 1e9, "delta": wide.delta_gb * 2**30})
    sizes = sizes.reset_index(drop=True)
    where = published.where(frame, "units made equal")
    return View(where, lambda panel: _draw(panel, sizes), len(sizes), published=True)
