"""What does one machine cost that serves many fine-tunes? (Liu et al. 2024)"""

from __future__ import annotations

import pandas as pd
from matplotlib.figure import Figure

from harness.figures import published
from harness.figures.lines import Series, draw_lines, line_views
from harness.figures.panels import Nothing, Panel, Tables, View, compose
from harness.figures.published_panels import lines_view
from harness.figures.serving_rows import NO_STUDY, disturbed_note, served, tenants_text
from harness.figures.style import bytes_text, seconds_text
from harness.figures.words import leading

_X = "Tenants, one request each (log scale)"
_TIME = Series("tenants", _X, lambda count: f"{count:g}", "p50_s", seconds_text, "p50_s", "p95_s", log_y=True)
_MEMORY = Series("tenants", _X, lambda count: f"{count:g}", "memory_bytes", bytes_text, None, None, log_y=True)
_FACET = ["model", "measure"]


def draw(tables: Tables) -> Figure | Nothing:
    """Median time of a decoding step, and memory, against the number of tenants; a line per serving strategy."""
    frame = served(tables, "decode")
    frame = frame[(frame.popularity == "distinct") & (frame.requests == frame.tenants)]
    if frame.empty:
        return Nothing(NO_STUDY)
    parts = []
    for series, measure in ((_TIME, "decoding step"), (_MEMORY, "memory")):
        known = frame[frame[series.y] > 0]
        note = disturbed_note(known) if series is _TIME else ""
        known = known.assign(measure=" · ".join(filter(None, (measure, note))), variant=known.strategy)
        parts += line_views(known, _draw, _FACET, series)
    if not parts:
        return Nothing("the serving study has one number of tenants alone")
    return compose([*parts, _liu()], height=lambda lines: max(3.8, 1.2 + 0.2 * lines))


def _draw(panel: Panel, frame: pd.DataFrame) -> str:
    measure = frame.measure.iloc[0].split(" · ")[0]
    series = _TIME if measure == "decoding step" else _MEMORY
    frame = frame.assign(label=frame.strategy)
    draw_lines(panel, frame, series, f"{measure} (log scale)".capitalize())
    most = frame[frame.tenants == frame.tenants.max()]
    low, high = (leading(most, series.y, largest, series.y_text or str) for largest in (False, True))
    size = f"With {tenants_text(most.tenants.iloc[0])}"
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
