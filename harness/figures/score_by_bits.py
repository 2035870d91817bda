"""What do fewer bits alone cost? (Zhao et al. 2023, table 21; Dettmers et al. 2023, table 4)"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from harness.figures import published
from harness.figures.findings import metric_label, scored
from harness.figures.intervals import draw_intervals
from harness.figures.lines import Series
from harness.figures.panels import FACET, Nothing, Panel, Tables, View, extreme, small_multiples, why_empty
from harness.figures.published_panels import lines_view
from harness.figures.style import bytes_text, percent_text
from harness.judgement.statistics import aggregate
from harness.results.baseline import BASELINE

_QUANTIZED = "quantized"
_DEFAULT = "nf4"
"""The scheme of the method where a sweep names none."""


def draw(tables: Tables) -> Figure | Nothing:
    """Test score and interval of the untrained model in each number format, with the bytes of its weights."""
    chosen = aggregate(tables)
    arguments = [json.loads(text or "{}") for text in chosen.method_args]
    is_bare = pd.Series([not any(given.values()) for given in arguments], index=chosen.index, dtype=bool)  # zero-shot
    wanted = (chosen.method == _QUANTIZED) | ((chosen.method == BASELINE) & is_bare)
    bare = chosen.assign(scheme=[_scheme(given) for given in arguments])[wanted & chosen.test_score.notna()]
    both = bare[bare.groupby(FACET).method.transform("nunique") == 2] if len(bare) else bare
    if both.empty:
        return Nothing(why_empty(tables["trials"], "no untrained model was scored both plain and quantised"))
    return small_multiples(both, _draw, height=lambda rows: 1.1 + 0.29 * rows, published=[_zhao()])


def _scheme(arguments: Mapping[str, Any]) -> str:
    """The name of a scheme; only the absmax schemes have a granularity."""
    scheme = str(arguments.get("scheme", _DEFAULT))
    return f"{scheme} {arguments.get('granularity', '')}".strip() if scheme.startswith("absmax") else scheme


def _draw(panel: Panel, frame: pd.DataFrame) -> str:
    name = frame.scheme.where(frame.method == _QUANTIZED, frame.label)
    name = name.where(~name.duplicated(keep=False), frame.label)
    sizes = frame.weights_bytes.map(lambda size: "" if pd.isna(size) else f" ({bytes_text(size)})")
    frame = draw_intervals(panel, frame.assign(label=name + sizes, name=name))
    panel.axes.set_xlabel(f"{metric_label(frame)}\nin brackets: bytes of the weights")
    plain = frame[frame.method == BASELINE]
    whole = extreme(plain, "test_score", bool(frame.higher_is_better.iloc[0]))
    small = frame[(frame.method == _QUANTIZED) & frame.weights_bytes.notna()]
    if small.empty or pd.isna(whole.weights_bytes) or not whole.weights_bytes:
        return f"{whole.name} scores {scored(whole)} before quantisation"
    least = extreme(small, "weights_bytes", largest=False)
    share = percent_text(least.weights_bytes / whole.weights_bytes)
    return f"{least.name} scores {scored(least)} in {share} of the bytes; {whole.name} scores {scored(whole)}"


_BITS = {"baseline": 16.0, "quantized_8bit": 8.0, "quantized_4bit": 4.0}


def _zhao() -> View:
    """Accuracy on MMLU of two fine-tuned models, by the bits of their weights."""
    frame = published.read("zhao2023_survey", table="table21", task="mmlu")
    tuned_on = frame.setting.str.extract(r"SFT on ([\w-]+)")[0]
    frame = frame.assign(
        bits=frame.method.map(_BITS), label=frame.model + ", " + tuned_on, method=frame.model + tuned_on
    )
    wide = frame.pivot_table(index="label", columns="bits", values="value")
    lost = (wide[16.0] - wide[4.0]).max()
    series = Series("bits", "Bits per weight (log scale)", lambda bits: f"{bits:g}")
    said = f"From 16 to 4 bits, no fine-tuned model loses more than {lost:.1f} points on MMLU"
    return lines_view(frame, "MMLU, LLaMA after SFT", series, "accuracy, %", said)
