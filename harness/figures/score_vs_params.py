"""What does a score cost in trainable parameters?"""

from __future__ import annotations

from matplotlib.figure import Figure

from harness.figures.panels import Nothing, Tables
from harness.figures.scatter import Cost, score_against
from harness.figures.style import count_text


def draw(tables: Tables) -> Figure | Nothing:
    """Test score against the number of trainable parameters."""
    return score_against(tables, Cost("trainable_params", "Trainable parameters", count_text, "trainable parameters"))
