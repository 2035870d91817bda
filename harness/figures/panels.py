"""What the figures share: small multiples, labels of rows, and the reason of a figure that has nothing to show."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from harness.figures import Nothing as Nothing
from harness.figures.layout import Panel as Panel
from harness.figures.layout import View as View
from harness.figures.layout import compose as compose
from harness.judgement.labels import labelled
from harness.results.files import Tables as Tables

#: One panel shows one task on one model.
FACET = ["task", "model"]


def small_multiples(
    frame: pd.DataFrame,
    draw: Callable[[Panel, pd.DataFrame], str],
    height: Callable[[int], float] = lambda _rows: 4.2,
    published: Sequence[View] = (),
) -> Figure:
    """One panel per task and model of ``frame``; ``draw`` fills a panel and returns its finding for the title.

    ``draw`` gets the panel's rows with their ``label``; ``height`` gives the inches for the largest number of rows in
    a line of panels. Behind them stand the panels of published numbers.
    """
    return compose([*views(frame, draw, FACET), *published], height)


def views(
    frame: pd.DataFrame, draw: Callable[[Panel, pd.DataFrame], str], facet: Sequence[str], among: Sequence[str] = ()
) -> list[View]:
    """One view per value of the columns ``facet``; the rows are labelled by all that differs but by ``among``.

    ``among`` names what an axis of the panel shows: columns, and arguments of methods (:func:`labelled`).
    """
    panels = []
    for key, group in frame.groupby(list(facet), sort=False):
        labelled_rows = shortened(labelled(group.reset_index(drop=True), among))
        panels.append(
            View(
                where=" · ".join(map(str, key)),
                draw=of_rows(draw, labelled_rows),
                rows=len(labelled_rows) if not among else labelled_rows.label.nunique(),
                name_length=int(labelled_rows.label.str.len().max()),
            )
        )
    return panels


def of_rows(draw: Callable[[Panel, pd.DataFrame], str], frame: pd.DataFrame) -> Callable[[Panel], str]:
    """What fills a panel, of what fills a panel with rows."""
    return lambda panel: draw(panel, frame)


_LONGEST = 42
"""Characters of a name in a figure."""


def shortened(frame: pd.DataFrame) -> pd.DataFrame:
    """``frame`` with labels that leave room for a figure: the middle of a longer one becomes an ellipsis.

    Labels that would then be equal get a number.
    """
    half = (_LONGEST - 1) // 2
    short = {
        name: name if len(name) <= _LONGEST else f"{name[:half].rstrip(' ,')}…{name[-half:].lstrip(' ,')}"
        for name in frame.label.unique()
    }
    seen: dict[str, int] = {}
    for name, text in short.items():
        seen[text] = seen.get(text, 0) + 1
        short[name] = text if seen[text] == 1 else f"{text} ({seen[text]})"
    return frame.assign(label=frame.label.map(short))


def why_empty(trials: pd.DataFrame, missing: str) -> str:
    """The reason for no figure: no trials, none that ended well, or ``missing``."""
    if trials.empty:
        return "the sweep has no trial that ended"
    if not (trials.status == "ok").any():
        counts = ", ".join(f"{n} {status}" for status, n in trials.status.value_counts().items())
        return f"no trial ended well ({counts})"
    return missing


def title_of(figure: Figure) -> str:
    """The findings of a figure as one text, for readers who cannot see it."""
    return "; ".join(" ".join(axes.get_title(loc="left").split()) for axes in figure.axes)


def rows(frame: pd.DataFrame) -> Iterator[Any]:
    """The rows of ``frame``, whose attributes are the columns."""
    return iter(frame.itertuples())


def extreme(frame: pd.DataFrame, column: str, largest: bool) -> Any:
    """The first row with the largest value of ``column``, or the smallest where ``largest`` is false."""
    return next(rows(frame.sort_values(column, ascending=not largest, kind="stable")))
