"""What the figures share: small multiples, titles that state the finding, and empty figures that give the reason."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import matplotlib as mpl
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from harness import plain
from harness.figures import labels
from harness.figures.style import MUTED, style
from harness.results.files import Tables as Tables

#: One panel shows one task on one model.
FACET = ["task", "model"]

#: Inches: the width of the report's column.
_WIDTH = 9.6


class Panel:
    """One panel: its axes, and the labels that wait until the layout is final."""

    def __init__(self, axes: Axes) -> None:
        self.axes = axes
        self._later: list[Callable[[], None]] = []

    def label_points(
        self,
        xs: Sequence[float],
        ys: Sequence[float],
        texts: Sequence[str],
        spans: Sequence[tuple[float, float]] = (),
    ) -> None:
        """Write each text beside its point, so that it covers no point, no other text and no error bar (``spans``)."""
        self._later.append(lambda: labels.beside_points(self.axes, xs, ys, texts, spans))

    def label_ends(self, x: float, ys: Sequence[float], texts: Sequence[str], colours: Sequence[str]) -> None:
        """Write each text to the right of its line's end at ``x``, and move texts apart that would overlap."""
        ends = labels.at_ends(self.axes, x, ys, texts, colours)
        self._later.append(lambda: labels.move_apart(self.axes, ends))

    def finish(self) -> None:
        """Place the labels."""
        for place in self._later:
            place()


def small_multiples(
    frame: pd.DataFrame,
    draw: Callable[[Panel, pd.DataFrame], str],
    height: Callable[[int], float] = lambda _rows: 4.2,
) -> Figure:
    """One panel per task and model of ``frame``; ``draw`` fills a panel and returns its finding for the title.

    ``draw`` gets the panel's rows with their ``label``; ``height`` gives the inches for the largest number of rows.
    """
    groups = list(frame.groupby(FACET, sort=False))
    columns = min(2, len(groups))
    lines = -(-len(groups) // columns)
    tall = height(max(len(group) for _, group in groups)) + 0.9
    with _style():
        figure = Figure(figsize=(_WIDTH, lines * tall), layout="constrained")
        FigureCanvasAgg(figure)
        grid = figure.subplots(lines, columns, squeeze=False).flat
        panels = [Panel(axes) for axes in grid]
        for panel, ((task, model), group) in zip(panels, groups, strict=False):
            finding = draw(panel, labelled(group.reset_index(drop=True)))
            _title(panel.axes, finding, plain.line(f"{task} · {model}"), 92 // columns)
        for panel in panels[len(groups) :]:
            panel.axes.remove()
        _legend(figure)
        figure.draw_without_rendering()
        figure.set_layout_engine("none")
        for panel in panels[: len(groups)]:
            panel.finish()
    return figure


@contextmanager
def _style() -> Iterator[None]:
    """The project's style, and a dollar sign in a name is a dollar sign; so tick labels hold no mathematics either."""
    with style(), mpl.rc_context({"text.parse_math": False}):
        yield


def nothing(reason: str) -> Figure:
    """A figure that says why there is nothing to show."""
    with _style():
        figure = Figure(figsize=(_WIDTH, 1.4))
        FigureCanvasAgg(figure)
        text = textwrap.fill(f"Nothing to show because {reason}.", 90)
        figure.text(0.5, 0.5, text, ha="center", va="center", color=MUTED, fontsize=12)
    return figure


def why_empty(trials: pd.DataFrame, missing: str) -> str:
    """The reason for an empty figure: no trials, none that ended well, or ``missing``."""
    if trials.empty:
        return "the sweep has no trial that ended"
    if not (trials.status == "ok").any():
        counts = ", ".join(f"{n} {status}" for status, n in trials.status.value_counts().items())
        return f"no trial ended well ({counts})"
    return missing


def title_of(figure: Figure) -> str:
    """The findings of a figure as one text, for readers who cannot see it."""
    titles = [" ".join(axes.get_title(loc="left").split()) for axes in figure.axes]
    return "; ".join(filter(None, titles)) or " ".join(text.get_text().replace("\n", " ") for text in figure.texts)


def _legend(figure: Figure) -> None:
    """Add one legend for all panels below the figure, if anything in them has a name for a legend."""
    entries: dict[str, Any] = {}
    for axes in figure.axes:
        handles, texts = axes.get_legend_handles_labels()
        entries |= dict(zip(texts, handles, strict=True))
    if entries:
        figure.legend(entries.values(), entries.keys(), loc="outside lower center", ncols=len(entries))


def _title(axes: Axes, finding: str, where: str, width: int) -> None:
    text = textwrap.fill(finding, width, break_on_hyphens=False)
    axes.set_title(text, fontweight="bold", linespacing=1.25, pad=18)
    axes.annotate(where, (0, 1), (0, 6), xycoords="axes fraction", textcoords="offset points", color=MUTED, fontsize=9)


def labelled(frame: pd.DataFrame) -> pd.DataFrame:
    """``frame`` with a ``label``: the method, and everything that tells two rows of one method apart."""
    label = frame.method.astype(str)
    told = frame.assign(**{name: _varying(frame, name) for name in _ARGUMENTS if name in frame})
    for column, say in _DISTINCTIONS.items():
        if column in told and told.groupby("method")[column].nunique(dropna=False).max() > 1:
            said = told[column].map(lambda value, say=say: say(None if pd.isna(value) else value))
            label = label + (", " + said).where(said != "", "")
    return frame.assign(label=label.map(plain.line))


_ARGUMENTS = ("method_args", "objective_args")


def _varying(frame: pd.DataFrame, column: str) -> list[str]:
    """Of the arguments in each row, as JSON, those in which rows of one method differ."""
    parsed = [json.loads(text) if isinstance(text, str) else {} for text in frame[column]]
    values: dict[tuple[str, str], set[str]] = {}
    for method, arguments in zip(frame.method, parsed, strict=True):
        of_method = [given for other, given in zip(frame.method, parsed, strict=True) if other == method]
        for name in arguments:
            if (method, name) not in values:
                values[method, name] = {json.dumps(given.get(name)) if name in given else "" for given in of_method}
    return [
        json.dumps({name: value for name, value in arguments.items() if len(values[method, name]) > 1})
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


_DISTINCTIONS: dict[str, Callable[[Any], str]] = {
    "sweep": lambda name: f"sweep {name}",
    "notebook": str,
    "method_args": arguments_text,
    "objective": str,
    "objective_args": arguments_text,
    "dtype": str,
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
    "variant": str,
}
