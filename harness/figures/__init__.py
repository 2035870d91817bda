"""The figures: one module per figure, tables in, a matplotlib Figure out.

To add a figure, add a module here with ``draw(tables) -> Figure``, and its name below.
Matplotlib is imported when the first figure is drawn.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

#: Takes the tables by name, as :func:`harness.results.tables.read` returns them.
Draw = Callable[["Mapping[str, pd.DataFrame]"], "Figure"]

#: Name -> what the figure shows, in the order of the report.
DESCRIPTIONS = {
    "score_by_method": "Test score of each method with its 95 % interval, beside the untrained model.",
    "score_vs_params": "Test score against the number of parameters that train.",
    "score_vs_memory": "Test score against the peak memory of training, with the Pareto front.",
    "score_vs_time": "Test score against the time that training took, with the Pareto front.",
    "memory_by_method": "Where the memory of training goes.",
    "training_speed": "Tokens per second of the training steps.",
    "decode_latency": "Time per generated token, or per prediction of a classifier, at batch size 1.",
    "training_curves": "Training loss at each step.",
    "learning_rates": "Validation score at every learning rate that was tried.",
}


def _figure(name: str) -> Draw:
    def draw(tables: Mapping[str, pd.DataFrame]) -> Figure:
        figure: Figure = import_module(f"harness.figures.{name}").draw(tables)
        return figure

    draw.__name__ = name
    draw.__doc__ = DESCRIPTIONS[name]
    return draw


FIGURES: dict[str, Draw] = {name: _figure(name) for name in DESCRIPTIONS}


_PIXELS = 16_000
"""The largest width and height of a PNG."""


def save(figure: Figure, folder: Path, name: str) -> tuple[Path, Path]:
    """Write ``figure`` as ``folder/name.png`` and ``folder/name.svg``; returns both paths.

    The PNG has 200 dots per inch. A figure with very many panels gets fewer, so that its file stays small.
    """
    folder.mkdir(parents=True, exist_ok=True)
    png, svg = folder / f"{name}.png", folder / f"{name}.svg"
    figure.savefig(png, dpi=min(200.0, _PIXELS / max(figure.get_size_inches())))
    figure.savefig(svg, metadata={"Date": None})
    return png, svg
