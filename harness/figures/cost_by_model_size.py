"""What does training cost as models grow? (Zhao et al. 2023, table 9: GPUs, hours and tokens per second)"""

from __future__ import annotations

from functools import partial

import pandas as pd
from matplotlib.figure import Figure

from harness.figures import published
from harness.figures.findings import FULL, trained
from harness.figures.lines import Series, draw_lines, line_views
from harness.figures.panels import Nothing, Panel, Tables, View, compose, why_empty
from harness.figures.published_panels import lines_view
from harness.figures.style import bytes_text, count_text, seconds_text
from harness.figures.words import leading
from harness.judgement.statistics import select
from harness.results.selection import CELL, SETTING

_TOKENS = 1e6
_X = "Parameters of the base model (log scale)"
_MODEL = ("model", "model_revision")
_COSTS = {
    "speed_s": ("Time for a million tokens (log scale)", seconds_text),
    "peak_train_bytes": ("Peak memory of training (log scale)", bytes_text),
}


def draw(tables: Tables) -> Figure | Nothing:
    """Time for a million training tokens, and peak memory, against the size of the base model; a line per method."""
    trials = trained(select(tables["trials"]))
    groups = trials.groupby([*CELL, *SETTING], dropna=False, sort=False)
    chosen = groups[["model_params", "train_tokens_per_s", "peak_train_bytes"]].median().reset_index()
    chosen = chosen.assign(speed_s=_TOKENS / chosen.train_tokens_per_s.where(chosen.train_tokens_per_s > 0))
    panels = []
    for column in _COSTS:
        known = chosen[chosen[column] > 0]
        panels += line_views(known, partial(_draw, series=_series(column)), ["task", "device"], _series(column), _MODEL)
    if not panels:
        return Nothing(why_empty(tables["trials"], "no method was trained on models of two sizes"))
    return compose([*panels, *_zhao()], height=lambda lines: max(3.8, 1.6 + 0.2 * lines))


def _series(column: str) -> Series:
    return Series("model_params", _X, count_text, column, _COSTS[column][1], low=None, high=None, log_y=True)


def _draw(panel: Panel, frame: pd.DataFrame, series: Series) -> str:
    column, text = series.y, series.y_text or str
    draw_lines(panel, frame, series, _COSTS[column][0])
    largest = frame[frame.model_params == frame.model_params.max()]
    least, most = (leading(largest, column, is_largest, text) for is_largest in (False, True))
    size = f"With {count_text(frame.model_params.max())} parameters"
    if least.text == most.text:
        who = f"{least.names[0]} needs" if len(largest) == 1 else f"all {len(largest)} need"
        return f"{size}, {who} {least.text}"
    return f"{size}, {least.who} lowest ({least.text}) and {most.who} highest ({most.text})"


def _zhao() -> list[View]:
    """Tuning LLaMA on Alpaca-52K for three epochs on GPUs of 80 GB, and decoding with it."""
    frame = published.read("zhao2023_survey", table="table9")
    frame = frame.assign(params=frame.model.str.extract(r"(\d+)b")[0].astype(float) * 1e9)
    series = Series("params", _X, count_text, log_y=True, y_text=lambda value: f"{value:g}")
    tuned = frame[frame.method.isin([FULL, "lora"])]
    parts = tuned.pivot_table(index=["method", "params"], columns="metric", values="value").reset_index()
    gpu_hours = parts.assign(value=parts.hours * parts.gpus, error=float("nan"), label=parts.method,
                             source=frame.source.iloc[0])  # fmt: skip
    largest = gpu_hours[gpu_hours.params == gpu_hours.params.max()].set_index("method").value
    said = f"At 65B, full fine-tuning takes {largest[FULL]:.0f} GPU-hours on 16 GPUs, LoRA {largest['lora']:.0f} on one"
    decoding = frame[frame.metric == "tokens_per_s"].assign(method="baseline")
    decoding = decoding.assign(label=decoding.setting.str.replace("-80G", "").str.replace("-24G", ""))
    slow = decoding[decoding.setting.str.contains("8-bit")].merge(
        decoding[decoding.setting == "RTX3090-24G 16-bit"], on="model"
    )
    ratio = slow.value_x / slow.value_y
    times = f"{ratio.min():.2f} to {ratio.max():.2f} times the speed of 16-bit"
    slower = f"8-bit decoding runs at {times}, on half as many cards from 13B on"
    return [
        lines_view(gpu_hours, "LLaMA on Alpaca-52K, 80 GB GPUs", series, "GPU-hours (log scale)", said),
        lines_view(decoding, "decoding with LLaMA, batch 1", series, "Tokens per second (log scale)", slower),
    ]
