"""How fast does each tuned model answer?"""

from __future__ import annotations

import pandas as pd
from matplotlib.figure import Figure

from harness.figures.bars import dots
from harness.figures.panels import Nothing, Panel, Tables, extreme, small_multiples, why_empty
from harness.figures.style import seconds_text
from harness.judgement.statistics import select
from harness.judgement.timings import TOLERANCE, UNSTEADY, distrust, undisturbed, why_untimed
from harness.results.baseline import BASELINE
from harness.results.files import where
from harness.results.selection import CELL

RENAMED = {"batch_size": "train_batch_size"}
"""The latency table has its own column ``batch_size``."""

_UNMEASURED = "no latency at batch size 1 was measured in any trial"
_ANSWERS = {"decode": "generated token", "predict": "prediction"}


def draw(tables: Tables) -> Figure | Nothing:
    """Median seconds per generated token (decoders) or prediction (classifiers), batch 1; the line ends at the p95."""
    chosen = select(undisturbed(tables["trials"]))
    chosen = chosen[["trial_id", "total_params", "weights_bytes", "control_ratio", *CELL]].rename(columns=RENAMED)
    rows = where(tables, "latency", chosen.trial_id, batch_size=1)
    rows = rows[rows.phase.isin(_ANSWERS) & rows.p50_s.notna()].merge(chosen, on="trial_id")
    if rows.empty:
        return Nothing(why_empty(tables["trials"], why_untimed(tables["trials"], _UNMEASURED)))
    keys = [*(RENAMED.get(name, name) for name in CELL), "variant", "phase"]
    frame = (
        rows.groupby(keys, sort=False, dropna=False)
        .agg(
            value=("p50_s", "median"),
            high=("p95_s", "median"),
            total_params=("total_params", "median"),
            weights_bytes=("weights_bytes", "median"),
            control_ratio=("control_ratio", "max"),
        )
        .reset_index()
        .rename(columns={new: old for old, new in RENAMED.items()})
    )
    frame = frame.assign(low=frame.value, high=frame.high.fillna(frame.value))
    return small_multiples(frame, _draw, height=lambda count: 0.9 + 0.29 * count)


def _draw(panel: Panel, frame: pd.DataFrame) -> str:
    dots(panel, frame, seconds_text, ascending=False)
    what = _ANSWERS[frame.phase.iloc[0]]
    panel.axes.set_xlabel(f"Median time per {what} at batch size 1\n(thick line: to the 95th percentile)")
    return finding(frame, what)


def finding(frame: pd.DataFrame, what: str) -> str:
    """What the median times say about the slowest network, or why they say nothing.

    ``frame`` has a label, the median ``value``, the 95th percentile ``high`` and the columns that tell networks apart.
    Rows with the untrained model's network, such as those of full fine-tuning, should take equally long, so the
    distance between them is the error of these measurements.
    """
    if (doubt := distrust(frame)) is not None:
        return doubt.capitalize()
    if len(frame) == 1:
        only = extreme(frame, "value", largest=True)
        return f"{only.label} takes {seconds_text(only.value)} per {what}"
    unsteady = frame[frame.high > UNSTEADY * frame.value]
    if len(unsteady):
        return f"These times do not show which is faster: {_spread(unsteady)}"
    fastest, slowest = extreme(frame, "value", largest=False), extreme(frame, "value", largest=True)
    numbers = f"From {seconds_text(fastest.value)} ({fastest.label}) to {seconds_text(slowest.value)} ({slowest.label})"
    base = frame[frame.method == BASELINE]
    if base.empty or len(frame[["dtype", "device"]].drop_duplicates()) > 1:
        return f"{numbers} per {what}"
    is_same = _has_network(frame, base)
    same, other = frame[is_same], frame[~is_same]
    if same.value.max() > TOLERANCE * same.value.min():
        return f"These times do not show which is faster: the same network took {_range(same)} per {what}"
    if other.empty:
        return f"All answer with the untrained model’s network: {_range(frame)} per {what}"
    slowest = extreme(other, "value", largest=True)
    if slowest.value <= max(same.value.max(), base.high.max()):
        return f"No added time stands out from the untrained model’s own spread: {_range(frame)} per {what}"
    took = f"{slowest.label} takes longest, {seconds_text(slowest.value)} per {what}"
    return f"{took}; the untrained model takes {_range(base)}"


def _has_network(frame: pd.DataFrame, base: pd.DataFrame) -> pd.Series:
    """Which rows answer with the untrained model's network: merged ones, and those of the same size.

    The same size means as many parameters in about as many bytes. Buffers change the bytes a little, quantised weights
    change them much. Where bytes were not measured, the parameters decide.
    """
    usual = base.weights_bytes.median()
    bytes_differ = (frame.weights_bytes - usual).abs() > 0.01 * usual
    as_large = (frame.total_params == base.total_params.median()) & ~bytes_differ
    same: pd.Series = (frame.method == BASELINE) | (frame.variant == "merged") | as_large
    return same


def _spread(unsteady: pd.DataFrame) -> str:
    worst = extreme(unsteady.assign(ratio=unsteady.high / unsteady.value), "ratio", largest=True)
    percentile = f"the 95th percentile of {worst.label}, {seconds_text(worst.high)}"
    return f"{percentile}, is more than twice its median, {seconds_text(worst.value)}"


def _range(frame: pd.DataFrame) -> str:
    low, high = seconds_text(frame.value.min()), seconds_text(frame.value.max())
    return low if low == high else f"{low} to {high}"
