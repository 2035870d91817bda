"""What does an adapter cost at inference, merged and not? (Hu et al. 2021, table 1)"""

from __future__ import annotations

import pandas as pd
from matplotlib.figure import Figure

from harness.figures import published
from harness.figures.decode_latency import RENAMED
from harness.figures.lines import Series, draw_lines, line_views
from harness.figures.panels import Nothing, Panel, Tables, View, compose, extreme, rows, why_empty
from harness.figures.published_panels import lines_view
from harness.figures.style import seconds_text
from harness.figures.words import leading
from harness.judgement.statistics import select
from harness.judgement.timings import UNSTEADY, distrust, undisturbed, why_untimed
from harness.results.files import where
from harness.results.selection import CELL

_ONE_SIZE = "latency was measured at one batch size alone"
_SERIES = Series(
    "sequences", "Sequences in a batch (log scale)", lambda count: f"{count:g}", "p50_s", seconds_text,
    low="p50_s", high="p95_s", log_y=True,
)  # fmt: skip
_FACET = ["task", "model", "phase"]
_WHAT = {"prefill": "prompt", "decode": "token of every sequence", "predict": "prediction of a batch"}


def draw(tables: Tables) -> Figure | Nothing:
    """Median time of a step against the batch size, up to its 95th percentile; a panel per task, model and phase."""
    chosen = select(undisturbed(tables["trials"]))[["trial_id", "control_ratio", *CELL]].rename(columns=RENAMED)
    times = where(tables, "latency", chosen.trial_id).rename(columns={"batch_size": "sequences"})
    times = times[times.p50_s > 0].merge(chosen, on="trial_id")
    keys = [*chosen.columns.drop(["trial_id", "control_ratio"]), "variant", "phase", "prompt_tokens", "sequences"]
    frame = times.groupby(keys, sort=False, dropna=False)[["p50_s", "p95_s", "control_ratio"]].median().reset_index()
    usual = frame.groupby(_FACET, sort=False).prompt_tokens.transform(lambda counts: counts.mode().iloc[0])
    frame = frame[frame.prompt_tokens == usual].rename(columns={new: old for old, new in RENAMED.items()})
    panels = line_views(frame, _draw, _FACET, _SERIES)
    if not panels:
        return Nothing(why_empty(tables["trials"], why_untimed(tables["trials"], _ONE_SIZE)))
    return compose([*panels, _hu()], height=lambda lines: max(3.8, 1.6 + 0.1 * lines))


def _draw(panel: Panel, frame: pd.DataFrame) -> str:
    what = _WHAT.get(frame.phase.iloc[0], frame.phase.iloc[0])
    draw_lines(panel, frame, _SERIES, f"Median time per {what} (log scale)")
    return _finding(frame)


def _finding(frame: pd.DataFrame) -> str:
    if (doubt := distrust(frame)) is not None:
        return doubt.capitalize()
    unsteady = frame[frame.p95_s > UNSTEADY * frame.p50_s]
    if len(unsteady):
        worst = extreme(unsteady.assign(ratio=unsteady.p95_s / unsteady.p50_s), "ratio", largest=True)
        return (
            f"These times do not show which is faster: the 95th percentile of {worst.label} at {worst.sequences:g} is "
            f"{worst.p95_s / worst.p50_s:.1f} times its median"
        )
    first = frame[frame.sequences == frame.sequences.min()]
    pairs = first[first.variant == "unmerged"].merge(first[first.variant == "merged"], on=["method", "method_args"])
    if len(pairs) == 1:
        pair = next(rows(pairs))
        ratio = pair.p50_s_x / pair.p50_s_y
        return f"At batch {pair.sequences_x:g}, {pair.method} takes {ratio:.2f} times as long unmerged as merged"
    low, high = (leading(first, "p50_s", largest, seconds_text) for largest in (False, True))
    size = f"At batch {first.sequences.iloc[0]:g}"
    if low.text == high.text:
        return f"{size}, all take {low.text}"
    return f"{size}, {low.who} fastest ({low.text}) and {high.who} slowest ({high.text})"


def _hu() -> View:
    """GPT-2 medium on one Quadro RTX 8000; longer inputs come with larger batches."""
    frame = published.read("hu2021_lora_efficiency", table="table1")
    parts = frame.task.str.extract(r"batch(\d+)_seq(\d+)").astype(float)
    frame = frame.assign(sequences=parts[0], value=frame.value / 1000, error=frame.error / 1000)
    frame = frame.assign(
        label=frame.method.map({"full": "full, and merged LoRA"}).fillna(frame.method.str.replace("_", " "))
    )
    wide = frame.pivot_table(index="sequences", columns="method", values="value")
    more = wide.adapter_houlsby / wide.full - 1
    said = f"Adapters add {100 * more.loc[1.0]:.0f} % at batch 1 and {100 * more.loc[32.0]:.0f} % at batch 32"
    what = "GPT-2 medium; 128, 256 and 512 tokens"
    return lines_view(frame, what, _SERIES, "Time of a forward pass (log scale)", said)
