"""What must be stored when every task has its own fine-tune? (Hu et al. 2021, section 4.2)"""

from __future__ import annotations

import pandas as pd
from matplotlib.figure import Figure

from harness.figures import published
from harness.figures.findings import trained
from harness.figures.lines import Series, draw_lines
from harness.figures.panels import Nothing, Panel, Tables, View, rows, small_multiples, why_empty
from harness.figures.published_panels import lines_view
from harness.figures.style import bytes_text, count_text
from harness.figures.words import leading
from harness.judgement.statistics import aggregate

_TASKS = (1, 10, 100, 1000)
_SERIES = Series(
    "tasks", "Tasks (log scale)", count_text, "bytes", bytes_text, low=None, high=None, log_x=True, log_y=True
)


def draw(tables: Tables) -> Figure | Nothing:
    """Bytes of the checkpoints of 1 to 1000 tasks, the base model that adapters share not counted."""
    chosen = trained(aggregate(tables))
    stored = chosen[chosen.checkpoint_bytes > 0]
    if stored.empty:
        return Nothing(why_empty(tables["trials"], "no checkpoint was saved and measured in any trial"))
    return small_multiples(stored, _draw, height=lambda rows: max(3.6, 1.4 + 0.2 * rows), published=[_hu()])


def _draw(panel: Panel, frame: pd.DataFrame) -> str:
    draw_lines(panel, _for_tasks(frame, frame.checkpoint_bytes), _SERIES, "Checkpoints of all tasks (log scale)")
    many = _TASKS[-1]
    most, least = (
        leading(frame.assign(bytes=many * frame.checkpoint_bytes), "bytes", largest, bytes_text)
        for largest in (True, False)
    )
    if most.text == least.text:
        who = frame.label.iloc[0] if len(frame) == 1 else f"each of {len(frame)} methods"
        return f"{many} tasks take {most.text} with {who}"
    return f"For {many} tasks, {least.who} smallest with {least.text}, {most.who} largest with {most.text}"


def _for_tasks(frame: pd.DataFrame, size: pd.Series) -> pd.DataFrame:
    return pd.concat([frame.assign(tasks=float(tasks), bytes=tasks * size) for tasks in _TASKS], ignore_index=True)


def _hu() -> View:
    frame = published.read("hu2021_lora_efficiency", metric="checkpoint_gb")
    sizes = {row.method: 1e9 * row.value for row in rows(frame)}
    frame = frame.assign(label=frame.method)
    frame = _for_tasks(frame, 1e9 * frame.value).assign(value=lambda many: many.bytes)
    said = (
        f"GPT-3: {bytes_text(sizes['full'])} for each fine-tune, {bytes_text(sizes['lora'])} for each LoRA "
        f"of rank 4; the lines are these sizes times the tasks"
    )
    return lines_view(frame, "GPT-3 175B, section 4.2", _SERIES, "Checkpoints of all tasks (log scale)", said)
