"""The pictures of the execution study: each way in its row with its factor, nothing where nothing was measured."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from harness.figures.panels import title_of
from harness.figures.ways import plus_and_minus, speed_and_memory


def factor(label: str, value: float, spread: float) -> Any:
    return SimpleNamespace(label=label, value=value, low=value - spread, high=value + spread)


@pytest.mark.parametrize("spread", [0.1, math.nan], ids=["repeats", "one repeat"])
def test_rows_are_the_ways_and_then_what_others_published(spread: float) -> None:
    plus = [factor("baseline", 1.0, 0.0), factor("+ packing", 0.75, spread)]
    fig = plus_and_minus(plus, [factor("without packing", 1.25, spread)], "all together are slower")
    (axes,) = fig.axes
    names = [text.get_text() for text in axes.get_yticklabels()]
    assert names[:3] == ["baseline", "+ packing", "without packing"] and "liger" in names[3:]
    assert axes.get_yticks().tolist() == sorted(set(axes.get_yticks()))
    shown = [text.get_text() for text in axes.texts]
    assert shown[:6] == ["Added one by one", "1.00", "0.75", "All but one", "1.25", "Published: 8B on one H100"]
    intervals = [
        line for line in axes.lines if line.get_linewidth() == 2 and len(set(np.asarray(line.get_ydata()))) == 1
    ]
    widths = sorted(round(float(np.ptp(np.asarray(line.get_xdata()))), 6) for line in intervals)
    assert widths == ([0.0] if math.isnan(spread) else [0.0, 0.2, 0.2])
    bottom, top = axes.get_ylim()
    assert bottom > max(axes.get_yticks()) and top < 0, "the first heading stands inside"
    assert title_of(fig) == "all together are slower"
    plt.close(fig)


def test_ways_that_were_not_active_have_no_row() -> None:
    fig = plus_and_minus([factor("baseline", 1.0, 0.0)], [], "nothing beside the baseline was active")
    assert "All but one" not in [text.get_text() for text in fig.axes[0].texts]
    plt.close(fig)


def test_memory_is_relative_to_the_first_row_with_a_speed() -> None:
    frame = {"tokens_per_s": [50.0, 25.0, None], "activations_bytes": [200.0, 50.0, None]}
    fig = speed_and_memory(pd.DataFrame(frame, index=["baseline", "checkpointing", "flash"]))
    (line,) = fig.axes[0].lines
    assert (np.asarray(line.get_xdata()).tolist(), np.asarray(line.get_ydata()).tolist()) == ([1.0, 0.5], [1.0, 0.25])
    assert title_of(fig) == "‘checkpointing’ keeps 25% of the baseline’s activations"
    plt.close(fig)
