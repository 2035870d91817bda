"""The picture of a training run."""

from __future__ import annotations

import io
from collections.abc import Sequence


def loss_curve(losses: Sequence[float]) -> bytes:
    """The training loss after each step, as a PNG in the style of every figure.

    It imports Matplotlib here, opens no window, and leaves the state of ``pyplot`` alone.
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    from harness.figures.style import COLOURS, style

    with style():
        figure = Figure(figsize=(6, 3), layout="constrained")
        axes = figure.subplots()
        axes.plot(range(1, len(losses) + 1), losses, marker="o", markersize=4, color=COLOURS["blue"])
        axes.set(xlabel="optimiser step", ylabel="training loss", title=loss_finding(losses))
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        picture = io.BytesIO()
        figure.savefig(picture, format="png")
    return picture.getvalue()


def loss_finding(losses: Sequence[float]) -> str:
    """Where the loss began and ended, in words."""
    if len(losses) == 1:
        return f"Loss {losses[0]:.3f} in one step"
    return f"Loss {losses[0]:.3f} → {losses[-1]:.3f} in {len(losses)} steps"
