"""What does a score cost in time?"""

from __future__ import annotations

from matplotlib.figure import Figure

from harness.figures.panels import Nothing, Tables
from harness.figures.scatter import Cost, score_against
from harness.figures.style import seconds_text


def draw(tables: Tables) -> Figure | Nothing:
    """Test score against the wall time of training: that of the trials that it was trained from included."""
    return score_against(
        tables, Cost("chain_train_s", "Time of training, parents included", seconds_text, "training time")
    )
