"""What does one machine cost that serves many fine-tunes? (Liu et al. 2024; Sheng et al. 2023, table 3)"""

from __future__ import annotations

import pandas as pd
from matplotlib.figure import Figure

from harness.figures import published
from harness.figures.lines import Series, draw_lines, line_views
from harness.figures.panels import Nothing, Panel, Tables, View, compose
from harness.figures.published_panels import lines_view
from harness.figures.style import bytes_text, seconds_text
from harness.figures.words import leading

SERVING = "serving"
"""The optional table of a serving study: ``model strategy method tenants p50_s p95_s memory_bytes``."""

_X = "Tenants, one request each (log scale)"
_TIME = Series("tenants", _X, lambda count: f"{count:g}", "p50_s", seconds_text, "p50_s", "p95_s", log_y=True)
_MEMORY = Series("tenants", _X, lambda count: f"{count:g}", "memory_bytes", bytes_text, None, None, log_y=True)
_FACET = ["model", "measure"]


def draw(tables: Tables) -> Figure | Nothing:
    """Median time of a decoding step, and memory, against the number of tenants; a line per serving strategy."""
    table = tables.get(SERVING)
    if table is None or table.empty:
        return Nothing("no serving study with several tenants is among these tables")
    parts = []
    for series, measure in ((_TIME, "decoding step"), (_MEMORY, "memory")):
        known = table[table[series.y] > 0]
        parts += line_views(known.assign(measure=measure, variant=known.strategy), _draw, _FACET, series)
    if not parts:
        return Nothing("the serving study has one number of tenants alone")
    return compose([*parts, _liu(), _sheng()], height=lambda _lines: 3.8)


def _draw(panel: Panel, frame: pd.DataFrame) -> str:
    series = _TIME if frame.measure.iloc[0] == "decoding step" else _MEMORY
    frame = frame.assign(label=frame.strategy)
    draw_lines(panel, frame, series, f"{frame.measure.iloc[0]} (log scale)".capitalize())
    most = frame[frame.tenants == frame.tenants.max()]
    low, high = (leading(most, series.y, largest, series.y_text or str) for largest in (False, True))
    size = f"With {most.tenants.iloc[0]:g} tenants"
    if low.text == high.text:
        return f"{size}, every strategy needs {low.text}"
    return f"{size}, {low.who} lowest ({low.text}) and {high.who} highest ({high.text})"


def _liu() -> View:
    frame = published.read("liu2024_bitdelta_latency", table="figure_decode_latency")
    frame = frame.assign(tenants=frame.setting.str.extract(r"batch (\d+)")[0].astype(float), value=frame.value / 1000,
                         error=frame.error / 1000, label=frame.method.str.replace("_", "-"))  # fmt: skip
    at = frame[frame.tenants == 16].set_index("method").value
    said = f"With 16 fine-tunes of a 7B model, BitDelta decodes {at.naive / at.bitdelta:.0f} times as fast as copies"
    return lines_view(frame, "Llama-2-7B; copies beyond memory are predicted", _TIME, "Decoding step (log scale)", said)


def _sheng() -> View:
    frame = published.read("sheng2023_slora", model="llama-7b", metric="requests_per_s")
    parts = frame.setting.str.extract(r"(S1).*; (\d+) adapters")
    frame = frame.assign(tenants=parts[1].astype(float), label=frame.method.str.replace("_", "-"))
    frame = frame[parts[0].notna() & frame.value.notna()]
    series = Series("tenants", "Adapters (log scale)", lambda count: f"{count:g}")
    wide = frame.pivot_table(index="tenants", columns="method", values="value")
    said = f"With 100 adapters, S-LoRA serves {wide.s_lora[100.0] / wide.peft[100.0]:.0f} times the requests of PEFT"
    return lines_view(frame, "Llama-7B, one A100", series, "Requests per second", said)
