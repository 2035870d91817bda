"""What the figures share: small multiples, labels of rows, and the reason of a figure that has nothing to show."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from harness import plain
from harness.execution import FIELDS
from harness.figures import Nothing as Nothing
from harness.figures.layout import Panel as Panel
from harness.figures.layout import View as View
from harness.figures.layout import compose as compose
from harness.results.execution_columns import asked
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


def labelled(frame: pd.DataFrame, among: Sequence[str] = ()) -> pd.DataFrame:
    """``frame`` with a ``label``: the method, and everything that tells two rows of one method apart.

    Columns and arguments that ``among`` names do not count.
    """
    label = frame.method.astype(str)
    told = frame.assign(**{name: _varying(frame, name, among) for name in _ARGUMENTS if name in frame})
    for column, say in _DISTINCTIONS.items():
        if column not in told or column in among:
            continue
        # An objective has its notebook: who knows the one knows the other.
        alike = ["method", "objective"] if column == "notebook" and "objective" in told else ["method"]
        if told.groupby(alike, dropna=False)[column].nunique(dropna=False).max() > 1:
            said = told[column].map(lambda value, say=say: say(None if pd.isna(value) else value))
            label = label + (", " + said).where(said != "", "")
    return frame.assign(label=label.map(plain.line))


_ARGUMENTS = ("method_args", "objective_args")


def _varying(frame: pd.DataFrame, column: str, without: Sequence[str]) -> list[str]:
    """Of the arguments in each row, as JSON, those in which rows of one method differ, ``without`` some."""
    parsed = [json.loads(text) if isinstance(text, str) else {} for text in frame[column]]
    values: dict[tuple[str, str], set[str]] = {}
    for method, arguments in zip(frame.method, parsed, strict=True):
        of_method = [given for other, given in zip(frame.method, parsed, strict=True) if other == method]
        for name in arguments:
            if (method, name) not in values:
                values[method, name] = {json.dumps(given.get(name)) if name in given else "" for given in of_method}
    return [
        json.dumps(
            {name: value for name, value in arguments.items() if len(values[method, name]) > 1 and name not in without}
        )
        for method, arguments in zip(frame.method, parsed, strict=True)
    ]


def rows(frame: pd.DataFrame) -> Iterator[Any]:
    """The rows of ``frame``, whose attributes are the columns."""
    return iter(frame.itertuples())


def extreme(frame: pd.DataFrame, column: str, largest: bool) -> Any:
    """The first row with the largest value of ``column``, or the smallest where ``largest`` is false."""
    return next(rows(frame.sort_values(column, ascending=not largest, kind="stable")))


def arguments_text(method_args: str) -> str:
    """Arguments from the column ``method_args`` as people read them: '{"alpha": 16, "r": 8}' -> 'alpha 16, r 8'."""
    return ", ".join(f"{name} {value}" for name, value in json.loads(method_args or "{}").items())


def _of_execution(field: str, value: Any) -> str:
    """What is asked for in a field of the execution; '' for the usual."""
    if value in (None, FIELDS[field].default):
        return ""
    words = field.replace("_", " ")
    return words if value is True else f"{words} {value}"


_DISTINCTIONS: dict[str, Callable[[Any], str]] = {
    "sweep": lambda name: f"sweep {name}",
    "notebook": str,
    "method_args": arguments_text,
    "objective": str,
    "objective_args": arguments_text,
    "dtype": str,
    **{asked(name): partial(_of_execution, name) for name in FIELDS},
    "device": str,
    "requested_device": lambda name: f"asked for {name}",
    "model_revision": lambda name: f"revision {name or 'unknown'}",
    "task_version": lambda name: f"task version {name or 'unknown'}",
    "method_version": lambda name: f"file {name or 'unknown'}",
    "protocol_version": lambda n: f"protocol {n:g}",
    "train_examples": lambda n: f"{n:g} examples",
    "batch_size": lambda n: f"batch {n:g}",
    "epochs": lambda n: f"{n:g} epochs",
    "max_length": lambda n: f"length {n:g}",
    "eval_examples": lambda n: "scored on all" if n is None else f"scored on {n:g}",
    "max_new_tokens": lambda n: "answers of usual length" if n is None else f"answers of {n:g} tokens",
    "probes": lambda names: "no probes" if names is None else f"probes {names}",
    "latency_batches": lambda sizes: f"timed at batch {sizes}",
    "variant": str,
}
