"""What does a score cost in memory?"""

from __future__ import annotations

from matplotlib.figure import Figure

from harness.figures.panels import Nothing, Tables
from harness.figures.scatter import Cost, score_against
from harness.figures.style import bytes_text


def draw(tables: Tables) -> Figure | Nothing:
    """Test score against the peak memory of training."""
    return score_against(tables, Cost("peak_train_bytes", "Peak memory while training", bytes_text, "peak memory"))
