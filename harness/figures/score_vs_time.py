"""What does a score cost in time?"""

from __future__ import annotations

from matplotlib.figure import Figure

from harness.figures.panels import Tables
from harness.figures.scatter import Cost, score_against
from harness.figures.style import seconds_text


def draw(tables: Tables) -> Figure:
    """Test score against the wall time of the training call."""
    return score_against(tables, Cost("train_s", "Time of training", seconds_text, "training time"))
